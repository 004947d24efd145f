"""Several workers for one search: who they are, and what they are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_prune.errors import ConfigError
from automl_prune.joining import BASELINE, CALIBRATION, SCORES
from automl_prune.launchers import Launcher, LocalProcesses
from automl_prune.session import choose_device
from automl_prune.study.artifacts import open_artifacts
from automl_prune.study.directory import RunDirectory
from automl_prune.study.invitation import invite
from automl_prune.study.progress import progress
from automl_prune.study.runner import StudySpec
from automl_prune.study.storage import StudyStorage
from automl_prune.tasks import Metric
from automl_prune.view import View


@dataclass(frozen=True, slots=True)
class Team:
    """Who works on a search, besides workers that join it from elsewhere.

    Attributes:
        workers: How many; one works in the calling process.
        devices: Torch devices, given out in turn; empty leaves it to the configuration.
        artifacts: A folder that all machines see, or ``s3://bucket/prefix``, where the files of the study lie for
            workers elsewhere; by default the run directory.
    """

    workers: int = 1
    devices: tuple[str, ...] = ()
    artifacts: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"a search needs at least 1 worker, got {self.workers}")
        for device in self.devices:
            choose_device(device)

    def launcher(self) -> Launcher | None:
        """What starts the workers; None for a single one, which is the caller itself."""
        return LocalProcesses(self.workers, self.devices) if self.workers > 1 else None


def open_to_workers(team: Team, spec: StudySpec, storage: StudyStorage, directory: RunDirectory) -> None:
    """Publish what a worker needs of a study that has been started."""
    files = {BASELINE: directory.baseline, CALIBRATION: directory.calibration, SCORES: directory.scores}
    invite(storage, spec.name, open_artifacts(team.artifacts or directory.path), files)


def run_workers(
    launcher: Launcher,
    spec: StudySpec,
    storage: StudyStorage,
    metric: Metric,
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
        metric: Of its scores.
        view: Shows the progress of all workers as one.
        url: Of the storage, if it is no journal.
        run_dir: Of the search.
        config: The configuration, secrets included.
    """
    options = {"run_dir": str(run_dir.resolve()), "storage": url, "study": spec.name, "requested": spec.requested}
    with view.stage("Searching") as stage:

        def tick() -> bool:
            now = progress(storage, spec.name, spec.requested, higher_is_better=metric.higher_is_better)
            note = "" if now.best is None else f"best {metric.name} {metric.show(now.best)}"
            stage(now.finished, spec.requested, note)
            return now.finished >= spec.requested

        if not tick():
            view.say(launcher.describe())
            launcher.run("automl_prune.joining:work", {**options, "config": dict(config)}, view.say, tick)
            tick()
