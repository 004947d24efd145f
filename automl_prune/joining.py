"""One more worker of a study that runs already, on this machine or another: all it needs comes with the study."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from automl_prune.checkpoints import load_weights
from automl_prune.config import Config
from automl_prune.errors import EvaluationError, StudyError
from automl_prune.files import tensors_digest
from automl_prune.finalists import Run, train_run
from automl_prune.pricing import check_machine, measuring
from automl_prune.session import Findings, Session, choose_device
from automl_prune.space import Space
from automl_prune.study.directory import RunDirectory
from automl_prune.study.invitation import Invitation, fetch, read_invitation, take_part
from automl_prune.study.runner import read_study
from automl_prune.study.spec import Event, OnEvent
from automl_prune.study.storage import StudyStorage, open_storage
from automl_prune.view import Silent, View

BASELINE = "baseline"
CALIBRATION = "calibration"
SCORES = "scores"
LATENCY = "latency"


def join(
    run_dir: Path | None,
    *,
    storage: str | None = None,
    study: str | None = None,
    artifacts: str | None = None,
    config: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    trusted: Sequence[str] = (),
    number: int | None = None,
    device: str | None = None,
    requested: int | None = None,
    wait: float = 0.0,
    on_event: OnEvent,
    view: View | None = None,
) -> Invitation:
    """Work on a study until its trials are finished, by whomever.

    Args:
        run_dir: Of the search; None for a study in a database.
        storage: URL of that database.
        study: Name in the storage; by default the only one.
        artifacts: Where the study's files lie, seen from here; by default in ``run_dir``, else where the study says.
        config: Of the caller's own, instead of the study's; it is trusted.
        overrides: ``"a.b=value"`` each, e.g. where the data lie on this machine.
        trusted: Packages whose functions the study's configuration may name (see ``factories.check_trust``).
        number: Of this worker among those of the study; by default one that no other process has.
        device: Instead of the configuration's.
        requested: Trials in all; by default as many as the study wants.
        wait: Seconds to wait for a study that is not there yet, or not ready.
        on_event: Told what happens.
        view: Where progress goes.

    Returns:
        The study's invitation, as it was taken.

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
    session = _prepare(given, invitation, artifacts, run_dir, device, view)
    take_part(
        invitation,
        opened,
        session.projector,
        session.evaluator.digest,
        session.evaluate,
        attempts=given.evaluation.attempts,
        device=str(session.device),
        promotion=given.evaluation.promotion(),
        requested=requested,
        number=number,
        on_event=on_event,
    )
    return invitation


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


def work(*, run_dir: str, number: int, device: str | None, say: Callable[[str], None], **options: Any) -> None:
    """``join`` for a launcher: JSON-ready arguments, and sentences about what is out of the ordinary."""

    def on_event(event: Event) -> None:
        if said := in_words(event):
            say(said)

    join(Path(run_dir), number=number, device=device, on_event=on_event, **options)


def train(
    *,
    run_dir: str,
    storage: str | None,
    study: str,
    config: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    number: int,
    workers: int,
    device: str | None,
    say: Callable[[str], None],
) -> None:
    """Train this worker's share of finalists' runs, for a launcher; a run that fails is left to the searching process.

    Args:
        run_dir: Of the search; the runs' files are written into it.
        storage: URL of the study's database, if it has one.
        study: Its name in the storage.
        config: Of the search.
        runs: All runs that are to be trained (``Run.to_json``).
        number: Of this worker, from 0.
        workers: How many share the runs.
        device: Instead of the configuration's.
        say: Shows a sentence.
    """
    directory = RunDirectory(Path(run_dir))
    opened, invitation = _find(directory.path, storage, study, 0.0, Silent())
    given = Config.of(config, source=f"the configuration of {opened.location}")
    session = _prepare(given, invitation, None, directory.path, device, Silent())
    record = read_study(opened, study)
    for run in (Run.from_json(value) for value in runs[number::workers]):
        try:
            train_run(session, record, run, directory, lambda done, total: None, Silent())
        except EvaluationError as error:
            say(f"trial {run.trial}, run {run.number}: {error}")


def in_words(event: Event) -> str:
    """A sentence about an event that is out of the ordinary; empty for others."""
    if event.kind not in ("notice", "failed", "lost", "handed_back"):
        return ""
    where = "" if event.trial is None else f"trial {event.trial} {event.kind.replace('_', ' ')}"
    return ": ".join(part for part in (where, event.message) if part)


def _prepare(
    config: Config,
    invitation: Invitation,
    artifacts: str | None,
    run_dir: Path | None,
    device: str | None,
    view: View,
) -> Session:
    """The session, proved to be that of the other workers; the study's files are fetched for as long as that takes."""
    with tempfile.TemporaryDirectory(prefix="automl-prune-") as folder:
        return _session(config, invitation, fetch(invitation, Path(folder), artifacts, run_dir), device, view)


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
