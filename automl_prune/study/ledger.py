"""One study in a storage: the few writes a worker makes, each one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from automl_prune.errors import StudyError
from automl_prune.study.chains import Chain, GrowingChains
from automl_prune.study.codec import RESULT
from automl_prune.study.storage import StudyStorage, quiet

JOBS: Final = " (jobs)"
"""At the end of the name of the study that holds another one's jobs (``jobs``)."""


class Ledger:
    """The trials and attributes of one study.

    Args:
        storage: Where it lives.
        name: Its name; None for the only study there is.

    Raises:
        StudyError: There is no such study; the message names those that exist.
    """

    def __init__(self, storage: StudyStorage, name: str | None) -> None:
        self._backend: BaseStorage = storage.backend
        self.location = storage.location
        known = [study.study_name for study in self._backend.get_all_studies()]
        named = [study for study in known if not study.endswith(JOBS)]
        if name is None and len(named) == 1:
            name = named[0]
        if name is None or name not in known:
            raise StudyError(
                f"{storage.location} holds {f'no study {name!r}' if name else f'{len(named)} studies'}; "
                + (f"name one of {sorted(named)}" if named else "start one with: automl-prune search CONFIG")
            )
        self.name = name
        self._id = self._backend.get_study_id_from_name(name)
        self._chains = GrowingChains()

    @classmethod
    def create(cls, storage: StudyStorage, name: str, directions: Sequence[StudyDirection]) -> Ledger:
        """The study of that name, made when it does not exist yet."""
        if not exists(storage, name):
            try:
                with quiet():
                    storage.backend.create_new_study(directions, study_name=name)
            except DuplicatedStudyError:
                pass  # another process was faster, or the answer to our own call was lost
        return cls(storage, name)

    # ---- the study

    def attributes(self) -> Mapping[str, Any]:
        """The study's user attributes."""
        return dict(self._backend.get_study_user_attrs(self._id))

    def set_attribute(self, key: str, value: Any) -> None:
        """Store one JSON value with the study."""
        self._backend.set_study_user_attr(self._id, key, value)

    def trials(self) -> Sequence[FrozenTrial]:
        """Every stored trial, in order of number; not to be changed."""
        return self._backend.get_all_trials(self._id, deepcopy=False)

    def chains(self) -> tuple[Chain, ...]:
        """The study's points and their attempts."""
        return self._chains.of(self.trials())

    # ---- one trial, by its id in the storage

    def add(self, trial: FrozenTrial) -> int:
        """Store a whole trial; its id."""
        return self._backend.create_new_trial(self._id, template_trial=trial)

    def has_number(self, trial_id: int, number: int) -> bool:
        """Whether a trial that this process stored has this number; if so, databases are not asked for it."""
        try:
            return self._backend.get_trial_id_from_study_id_trial_number(self._id, number) == trial_id
        except KeyError:
            return False

    def claim(self, trial_id: int) -> bool:
        """Turn a waiting trial into a running one; whether it was this call that did."""
        try:
            return self._backend.set_trial_state_values(trial_id, OptunaState.RUNNING)
        except UpdateFinishedTrialError:
            return False

    def annotate(self, trial_id: int, **attributes: Any) -> bool:
        """Store user attributes of an unfinished trial; False when it is finished."""
        try:
            for key, value in attributes.items():
                self._backend.set_trial_user_attr(trial_id, key, value)
        except UpdateFinishedTrialError:
            return False
        return True

    def fail(self, trial_id: int, **attributes: Any) -> bool:
        """Finish a trial without a result, noting why; False when it was finished already."""
        return self.annotate(trial_id, **attributes) and self._finish(trial_id, OptunaState.FAIL, None)

    def complete(self, trial_id: int, values: Sequence[float], result: Mapping[str, Any]) -> bool:
        """Finish a trial with its result; False when it was finished already, by whoever took it for lost."""
        # The result comes before the state: a trial that is complete has everything.
        return self.annotate(trial_id, **{RESULT: result}) and self._finish(trial_id, OptunaState.COMPLETE, values)

    def _finish(self, trial_id: int, state: OptunaState, values: Sequence[float] | None) -> bool:
        try:
            return self._backend.set_trial_state_values(trial_id, state, values)
        except UpdateFinishedTrialError:
            return False


def exists(storage: StudyStorage, name: str) -> bool:
    """Whether a storage holds a study of this name."""
    return name in (study.study_name for study in storage.backend.get_all_studies())


def trial_id(trial: FrozenTrial) -> int:
    """The id of a trial in its storage, which Optuna tells only by a private name."""
    return trial._trial_id
