"""Several workers for one search: who they are, and what they are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from automl_prune.api.reading import storage_by_default, study_name
from automl_prune.api.watching import Watcher
from automl_prune.errors import ConfigError, StudyError
from automl_prune.finalist_jobs import Trainer, key_of
from automl_prune.finalists import Ahead, Run, trained_run
from automl_prune.joining import BASELINE, CALIBRATION, LATENCY, SCORES, in_words, join
from automl_prune.launchers import Launcher, LocalProcesses, RayTasks
from automl_prune.session import Session, choose_device
from automl_prune.study.artifacts import open_artifacts
from automl_prune.study.directory import RunDirectory
from automl_prune.study.invitation import invite
from automl_prune.study.jobs import Jobs
from automl_prune.study.record import StudyRecord
from automl_prune.study.runner import StudyReader, read_study, start_study
from automl_prune.study.serving import serve
from automl_prune.study.spec import Event, StudySpec
from automl_prune.study.storage import StudyStorage
from automl_prune.view import Silent, View


@dataclass(frozen=True, slots=True)
class Ray:
    """Workers placed by a Ray cluster.

    Attributes:
        address: Of the cluster, e.g. ``auto`` or ``ray://head:10001``; None starts Ray on this machine.
        cpus: Cores of each worker.
        gpus: GPUs of each worker; a fraction shares one.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Team:
    """Who works on a search, besides workers that join it from elsewhere.

    Attributes:
        workers: How many; without Ray, a single one works in the calling process.
        devices: Torch devices, given out in turn; empty leaves it to the configuration.
        artifacts: A folder that all machines see, or ``s3://bucket/prefix``, where the files of the study lie for
            workers elsewhere; by default the run directory.
        ray: Where workers run; None for processes of this machine.
    """

    workers: int = 1
    devices: tuple[str, ...] = ()
    artifacts: str | None = None
    ray: Ray | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"a search needs at least 1 worker, got {self.workers}")
        if self.ray is not None and self.devices:
            raise ConfigError(f"devices are {', '.join(self.devices)}, but Ray gives out its own; say gpus instead")
        for device in self.devices:
            choose_device(device)

    def launcher(self, storage: str | None) -> Launcher | None:
        """What starts the workers; None for a single one, which is the caller itself."""
        if self.ray is None:
            return LocalProcesses(self.workers, self.devices) if self.workers > 1 else None
        if self.ray.address is not None and storage is None:
            raise ConfigError(
                f"workers on the Ray cluster {self.ray.address} need a study in a database; give --storage URL"
            )
        return RayTasks(self.workers, self.ray.address, self.ray.cpus, self.ray.gpus)

    def arguments(
        self, spec: StudySpec, storage: str | None, directory: RunDirectory, config: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What the launcher's workers are told (``joining.work``)."""
        return {
            "run_dir": str(directory.path.resolve()),
            "shares_run_dir": self.ray is None or self.ray.address is None,
            "storage": storage,
            "study": spec.name,
            "requested": spec.requested,
            "config": dict(config),
        }


@contextmanager
def open_to_workers(
    team: Team,
    spec: StudySpec,
    session: Session,
    storage: StudyStorage,
    directory: RunDirectory,
    view: View,
    *,
    url: str | None,
    config: Mapping[str, Any],
) -> Iterator[Ahead]:
    """Start a study, and while the block runs, have its workers train finalists' runs too.

    Args:
        team: Who works on it besides those who join.
        spec: What is searched.
        session: Of the study.
        storage: Where it lives.
        directory: Of the search.
        view: Where progress goes.
        url: Of the storage, if it is no journal.
        config: The configuration, secrets included.

    Yields:
        What has runs trained, by the team, by all who have joined, and by this process where the team is no other.
        Runs that have several devices to themselves (``FineTuning.devices``) are left out.
    """
    start_study(spec, storage)
    store = open_artifacts(team.artifacts or directory.path)
    jobs = Jobs(storage, spec.name, spec.device, attempts=spec.attempts, lease=spec.lease, host=True)
    trainer = Trainer(session, storage, spec.name, jobs, directory, None, view)

    def ahead(runs: Sequence[Run]) -> Mapping[Run, str]:
        record = read_study(storage, spec.name)
        shared = [run for run in runs if not run.finetuning.devices]
        if runs and not shared:
            jobs.dismiss()
        todo = [run for run in shared if trained_run(session, record, run, directory) is None]
        if not todo:
            return {}
        jobs.offer({key_of(run): run.to_json() for run in todo})
        left = sum(not job.finished for job in jobs.look())
        with trainer.shown(f"Fine-tuning {len(todo)} run{'' if len(todo) == 1 else 's'}"):
            if min(team.workers, left) > 1:
                _train_elsewhere(replace(team, workers=min(team.workers, left)), spec, trainer, url, config)
            jobs.work(trainer.train, trainer.show)
        return trainer.collect(todo, store)

    with jobs.hosting():
        files = {BASELINE: directory.baseline, CALIBRATION: directory.calibration, SCORES: directory.scores}
        invite(storage, spec.name, store, files | {LATENCY: directory.latency})
        yield ahead


def _train_elsewhere(team: Team, spec: StudySpec, trainer: Trainer, url: str | None, config: Mapping[str, Any]) -> None:
    """Have the team train what is offered; what it does not survive is left to others."""
    launcher = team.launcher(url)
    if launcher is None:
        return

    def tick() -> None:
        trainer.jobs.look()
        trainer.show()

    given = team.arguments(spec, url, trainer.directory, config)
    try:
        launcher.run("automl_prune.joining:work", given, trainer.view.say, tick)
    except StudyError as error:  # side by side they may want more memory than there is
        trainer.view.say(f"{error}. Runs that are left are fine-tuned one after the other.")


def run_workers(
    launcher: Launcher, arguments: Mapping[str, Any], spec: StudySpec, storage: StudyStorage, view: View
) -> None:
    """Run a study that has been started in the launcher's workers, until its trials are finished.

    Args:
        launcher: Starts them.
        arguments: What they are told (``Team.arguments``).
        spec: As the study was started.
        storage: Where it lives.
        view: Shows the progress of all workers as one.
    """
    with view.stage("Searching") as stage:
        reader = StudyReader(storage, spec.name)
        record = reader.read()
        watcher, seen = Watcher(view, stage, spec, record), _finished(record)

        def tick() -> None:
            nonlocal seen
            record = reader.read()
            if _finished(record) > seen:
                seen = _finished(record)
                watcher.look(record)

        if not record.finished:
            view.say(launcher.describe())
            launcher.run("automl_prune.joining:work", arguments, view.say, tick)
            tick()


def _finished(record: StudyRecord) -> int:
    return sum(trial.state in ("complete", "failed") for trial in record.trials)


def worker(
    run_dir: Path | None,
    *,
    storage: str | None = None,
    study: str | None = None,
    artifacts: str | None = None,
    overrides: Sequence[str] = (),
    trusted: Sequence[str] = (),
    device: str | None = None,
    wait: float = 0.0,
    view: View | None = None,
) -> None:
    """Work on a running study from this or another machine: on its trials, then on its finalists' runs.

    See ``joining.join``, and its errors. A study whose run directory holds no journal is found as the environment says.
    """
    view = view or Silent()
    storage = storage_by_default(run_dir, storage)
    if study is None and run_dir is not None and storage is not None:
        study = study_name(RunDirectory(run_dir), storage)
    member = join(
        run_dir,
        storage=storage,
        study=study,
        artifacts=artifacts,
        overrides=overrides,
        trusted=trusted,
        device=device,
        wait=wait,
        view=view,
    )
    with view.stage("Searching") as stage:

        def on_event(event: Event) -> None:
            if said := in_words(event):
                view.say(said)
            stage(event.finished, event.requested, "" if event.trial is None else f"trial {event.trial}")

        member.search(on_event)
    name, record = member.invitation.name, read_study(member.storage, member.invitation.name)
    view.say(
        record.stop.sentence(record.requested)
        if record.stop
        else f"All {member.invitation.requested} trials of study {name} are finished"
    )
    concluded = member.finetune(patience=wait)
    view.say(
        f"Study {name} is concluded; finalists' runs trained here: {member.trained}"
        if concluded
        else f"The search of study {name} has stopped, so this worker leaves; finalists' runs trained here: "
        f"{member.trained}. Run the search again to go on (--wait lets a worker stay meanwhile)"
    )


def storage_proxy(storage: str, host: str = "localhost", port: int = 13000, view: View | None = None) -> None:
    """Serve a database to workers until interrupted; see ``study.serving.serve``, and its errors."""
    serve(storage, host, port, say=(view or Silent()).say)
