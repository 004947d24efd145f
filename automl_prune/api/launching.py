"""Several workers for one search: who they are, and what they are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from automl_prune.api.watching import Watcher
from automl_prune.errors import ConfigError, StudyError
from automl_prune.finalists import Ahead, Run
from automl_prune.joining import BASELINE, CALIBRATION, LATENCY, SCORES, in_words, join
from automl_prune.launchers import Launcher, LocalProcesses, RayTasks
from automl_prune.session import choose_device
from automl_prune.study.artifacts import open_artifacts
from automl_prune.study.directory import RunDirectory
from automl_prune.study.invitation import invite
from automl_prune.study.record import StudyRecord
from automl_prune.study.runner import StudyReader, read_study
from automl_prune.study.serving import serve
from automl_prune.study.spec import Event, StudySpec
from automl_prune.study.storage import StudyStorage, open_storage
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


def open_to_workers(team: Team, spec: StudySpec, storage: StudyStorage, directory: RunDirectory) -> None:
    """Publish what a worker needs of a study that has been started."""
    files = {BASELINE: directory.baseline, CALIBRATION: directory.calibration, SCORES: directory.scores}
    files[LATENCY] = directory.latency
    invite(storage, spec.name, open_artifacts(team.artifacts or directory.path), files)


def run_workers(
    launcher: Launcher,
    spec: StudySpec,
    storage: StudyStorage,
    view: View,
    *,
    url: str | None,
    run_dir: Path,
    config: Mapping[str, Any],
) -> None:
    """Run a study that has been started in the launcher's workers, until its trials are finished.

    Args:
        launcher: Starts them.
        spec: As the study was started.
        storage: Where it lives.
        view: Shows the progress of all workers as one.
        url: Of the storage, if it is no journal.
        run_dir: Of the search.
        config: The configuration, secrets included.
    """
    options = {"run_dir": str(run_dir.resolve()), "storage": url, "study": spec.name, "requested": spec.requested}
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
            launcher.run("automl_prune.joining:work", {**options, "config": dict(config)}, view.say, tick)
            tick()


def runs_ahead(
    team: Team, study: str, view: View, *, url: str | None, run_dir: Path, config: Mapping[str, Any]
) -> Ahead | None:
    """Trains finalists' runs in as many processes as search, where these see the run directory; None elsewhere.

    Runs that fail there, or whose processes keep dying, are left to the caller, as are those that have several devices
    to themselves (``FineTuning.devices``).
    """
    if team.ray is not None and team.ray.address is not None:
        return None
    directory = RunDirectory(run_dir.resolve())
    options = {"run_dir": str(directory.path), "storage": url, "study": study, "config": dict(config)}

    def ahead(runs: Sequence[Run]) -> None:
        todo = [run for run in runs if not run.finetuning.devices and not run.weights(directory).is_file()]
        workers = min(team.workers, len(todo))
        launcher = replace(team, workers=workers).launcher(url) if workers > 1 else None
        if launcher is None:
            return
        with view.stage(f"Fine-tuning {len(todo)} runs side by side") as stage:

            def tick() -> None:
                stage(sum(run.weights(directory).is_file() for run in todo), len(todo))

            given = {**options, "runs": [run.to_json() for run in todo], "workers": workers}
            try:
                launcher.run("automl_prune.joining:train", given, view.say, tick)
            except StudyError as error:  # side by side they may want more memory than there is
                view.say(f"{error}. Runs that are left are fine-tuned one after the other.")
            tick()

    return ahead


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
    """Join a running study from this or another machine; see ``joining.join``, and its errors."""
    view = view or Silent()
    with view.stage("Searching") as stage:

        def on_event(event: Event) -> None:
            if said := in_words(event):
                view.say(said)
            stage(event.finished, event.requested, "" if event.trial is None else f"trial {event.trial}")

        invitation = join(
            run_dir,
            storage=storage,
            study=study,
            artifacts=artifacts,
            overrides=overrides,
            trusted=trusted,
            device=device,
            wait=wait,
            on_event=on_event,
            view=view,
        )
    record = read_study(open_storage(storage, run_dir or Path()), invitation.name)
    view.say(
        record.stop.sentence(record.requested)
        if record.stop
        else f"All {invitation.requested} trials of study {invitation.name} are finished"
    )


def storage_proxy(storage: str, host: str = "localhost", port: int = 13000, view: View | None = None) -> None:
    """Serve a database to workers until interrupted; see ``study.serving.serve``, and its errors."""
    serve(storage, host, port, say=(view or Silent()).say)
