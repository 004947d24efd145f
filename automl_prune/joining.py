"""One more worker of a study that runs already, on this machine or another: all it needs comes with the study."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from automl_prune.checkpoints import load_weights
from automl_prune.config import Config
from automl_prune.errors import StudyError
from automl_prune.files import tensors_digest
from automl_prune.finalist_jobs import Trainer
from automl_prune.pricing import check_machine, measuring
from automl_prune.session import Findings, Session, choose_device
from automl_prune.space import Space
from automl_prune.study.artifacts import Bucket, Folder, open_artifacts
from automl_prune.study.directory import RunDirectory
from automl_prune.study.invitation import Invitation, fetch, read_invitation, take_part
from automl_prune.study.jobs import Jobs, hands_out
from automl_prune.study.spec import Event, OnEvent
from automl_prune.study.storage import StudyStorage, open_storage
from automl_prune.view import Silent, View

BASELINE = "baseline"
CALIBRATION = "calibration"
SCORES = "scores"
LATENCY = "latency"


@dataclass(slots=True)
class Member:
    """A process that has joined a study, with all it needs.

    Attributes:
        invitation: Of the study, as it was taken.
        storage: Where the study lives.
        config: The study's, or the caller's own.
        session: Proved to be that of the other workers.
        run_dir: Of the search, where its processes see what is written there; else None.
        store: Where the study's files lie, which takes the weights that are trained here.
        view: Where progress goes.
        trained: How many finalists' runs were trained here.
    """

    invitation: Invitation
    storage: StudyStorage
    config: Config
    session: Session
    run_dir: Path | None
    store: Folder | Bucket
    view: View
    trained: int = 0

    def search(self, on_event: OnEvent, *, number: int | None = None, requested: int | None = None) -> None:
        """Work on the trials until they are finished, by whomever; arguments as of ``take_part``."""
        take_part(
            self.invitation,
            self.storage,
            self.session.projector,
            self.session.evaluator.digest,
            self.session.evaluate,
            attempts=self.config.evaluation.attempts,
            device=str(self.session.device),
            promotion=self.config.evaluation.promotion(),
            requested=requested,
            number=number,
            on_event=on_event,
        )

    def finetune(self, patience: float | None = None) -> bool:
        """Train finalists' runs that the search offers.

        Where the run directory is shared with the search, an interrupted run goes on from its checkpoint; elsewhere it
        is begun anew.

        Args:
            patience: Stay until the search has concluded, or its process has been gone for so many seconds; with None
                leave as soon as all that is offered is trained.

        Returns:
            Whether that came about; False when the search's process stayed away.

        Raises:
            StudyError: The weights cannot be brought to where the study's files lie.
        """
        study = self.invitation.name
        if not hands_out(self.storage, study):
            return True
        jobs = Jobs(self.storage, study, str(self.session.device), attempts=self.config.evaluation.attempts)
        with tempfile.TemporaryDirectory(prefix="automl-prune-") as folder:
            directory, store = RunDirectory(self.run_dir or Path(folder)), None if self.run_dir else self.store
            trainer = Trainer(self.session, self.storage, study, jobs, directory, store, self.view)
            try:
                with trainer.shown("Fine-tuning finalists"):
                    if patience is not None:
                        return jobs.attend(trainer.train, patience, trainer.show)
                    jobs.work(trainer.train)
                    return True
            finally:
                self.trained += trainer.trained


def join(
    run_dir: Path | None,
    *,
    storage: str | None = None,
    study: str | None = None,
    artifacts: str | None = None,
    config: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    trusted: Sequence[str] = (),
    device: str | None = None,
    wait: float = 0.0,
    shares_run_dir: bool | None = None,
    view: View | None = None,
) -> Member:
    """Get ready to work on a study.

    Args:
        run_dir: Of the search; None for a study in a database.
        storage: URL of that database.
        study: Name in the storage; by default the only one.
        artifacts: Where the study's files lie, seen from here; by default in ``run_dir``, else where the study says.
        config: Of the caller's own, instead of the study's; it is trusted.
        overrides: ``"a.b=value"`` each, e.g. where the data lie on this machine.
        trusted: Packages whose functions the study's configuration may name (see ``factories.check_trust``).
        device: Instead of the configuration's.
        wait: Seconds to wait for a study that is not there yet, or not ready.
        shares_run_dir: Whether what is written into ``run_dir`` is seen by the search; by default when its study lies
            there, for then it is no copy.
        view: Where progress goes.

    Raises:
        StudyError: There is no such study, or this machine has another model, data or version; all is listed.
        CheckpointError: A file of the study is missing or was changed.
        ConfigError: The configuration names code that is not trusted.
    """
    if run_dir is None and storage is None:
        raise StudyError("name the study to join: RUN_DIR, or --storage URL --study NAME")
    view = view or Silent()
    opened, invitation = _find(run_dir, storage, study, wait, view)
    _check_versions(invitation)
    given = Config.of(config or invitation.context.config, overrides, source=f"the configuration of {opened.location}")
    if config is None:
        given.check_trust(trusted)
    location = artifacts or _here(invitation, run_dir) or invitation.artifacts
    session = _prepare(given, invitation, location, device, view)
    shares = storage is None if shares_run_dir is None else shares_run_dir
    return Member(invitation, opened, given, session, run_dir if shares else None, open_artifacts(location), view)


def _find(
    run_dir: Path | None, storage: str | None, study: str | None, wait: float, view: View
) -> tuple[StudyStorage, Invitation]:
    """The study, for which there may be a wait."""
    deadline, waiting = time.monotonic() + wait, False
    while True:
        try:
            if storage is None and run_dir is not None and not RunDirectory(run_dir).journal.is_file():
                raise StudyError(f"{run_dir} holds no study; give the run directory of a search, or --storage URL")
            opened = open_storage(storage, run_dir or Path())
            try:
                return opened, read_invitation(opened, study)
            except BaseException:
                opened.close()
                raise
        except StudyError as error:
            if time.monotonic() >= deadline:
                raise
            if not waiting:
                view.say(f"Waiting for the study: {error}")
                waiting = True
            time.sleep(2)


def work(
    *,
    run_dir: str,
    number: int,
    device: str | None,
    say: Callable[[str], None],
    requested: int | None = None,
    **options: Any,
) -> None:
    """Do what is to be done for a study now, for a launcher: trials, then finalists' runs that are offered.

    JSON-ready arguments as of ``join`` and ``Member.search``, and ``say`` for what is out of the ordinary.
    """

    def on_event(event: Event) -> None:
        if said := in_words(event):
            say(said)

    member = join(Path(run_dir), device=device, **options)
    member.search(on_event, number=number, requested=requested)
    member.finetune()


def in_words(event: Event) -> str:
    """A sentence about an event that is out of the ordinary; empty for others."""
    if event.kind not in ("notice", "failed", "lost", "handed_back"):
        return ""
    where = "" if event.trial is None else f"trial {event.trial} {event.kind.replace('_', ' ')}"
    return ": ".join(part for part in (where, event.message) if part)


def _here(invitation: Invitation, run_dir: Path | None) -> str | None:
    """The run directory, when it holds the study's files: it may lie elsewhere than the study says."""
    found = run_dir is not None and all((run_dir / file.key).is_file() for file in invitation.files.values())
    return str(run_dir) if found else None


def _prepare(config: Config, invitation: Invitation, location: str, device: str | None, view: View) -> Session:
    """The session, proved to be that of the other workers; the study's files are fetched for as long as that takes."""
    with tempfile.TemporaryDirectory(prefix="automl-prune-") as folder:
        return _session(config, invitation, fetch(invitation, Path(folder), location), device, view)


def _session(
    config: Config, invitation: Invitation, files: Mapping[str, Path], device: str | None, view: View
) -> Session:
    task, model = config.build_task(), config.build_model()
    if BASELINE not in files:
        raise StudyError(f"study {invitation.name!r} names no weights of the dense model; run the search again")
    load_weights(model, files[BASELINE])
    # before anything is computed, and perhaps found in a file, that rests on these
    invitation.verify({"model": tensors_digest(model.state_dict()), "data": task.digest})
    measured = invitation.identity.get("latency")
    if isinstance(measured, Mapping):
        check_machine(config.latency.settings(), measured)
    session = Session.prepare(
        model,
        task,
        config.parsed_budget(),
        Space.parse(invitation.identity.get("space"), source=f"the search space of study {invitation.name!r}"),
        config.evaluation.recipe(),
        seed=config.search.seed,
        device=choose_device(device or config.device),
        view=view,
        calibration=files.get(CALIBRATION),
        ranking=files.get(SCORES),
        latency=files.get(LATENCY),
        make_meter=measuring(config.latency.settings()),
        findings=Findings.of(invitation),
    )
    invitation.verify(session.identity(strategy=config.search.strategy))
    return session


def _check_versions(invitation: Invitation) -> None:
    """Evaluations of another version of this package, or of another minor version of torch, are not comparable."""
    stored = invitation.context.environment
    now = {"automl-prune": version("automl-prune"), "torch": version("torch")}
    cut = {"automl-prune": None, "torch": 2}
    wrong = [
        f"{name}: the study has {stored.get(name, 'none')}, this machine {mine}"
        for name, mine in now.items()
        if _parts(stored.get(name, ""), cut[name]) != _parts(mine, cut[name])
    ]
    if wrong:
        raise StudyError(
            f"this machine's packages do not fit study {invitation.name!r}; what differs:\n  "
            + "\n  ".join(wrong)
            + "\ninstall the study's versions here"
        )


def _parts(text: str, count: int | None) -> list[str]:
    return text.split("+")[0].split(".")[:count]
