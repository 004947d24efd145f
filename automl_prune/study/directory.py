"""Names of the files of a run directory, in one place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from automl_prune.errors import CheckpointError
from automl_prune.files import sweep
from automl_prune.study.journal import JOURNAL


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The layout of ``runs/<name>/``; nothing is created or read by asking for a path.

    Raises:
        CheckpointError: What is written in place is a link, so that writing would change files elsewhere.
    """

    path: Path

    def __post_init__(self) -> None:
        folders = (self.models, self.finalists, self.sensitivity, self.figures, self.path / "retargets")
        for path in (self.journal, *folders):
            if path.is_symlink():
                raise CheckpointError(
                    f"{path} is a link, but a run directory must hold its own files; put the file or folder itself "
                    "there, or link the whole run directory"
                )

    @property
    def config(self) -> Path:
        """The resolved configuration, without secrets."""
        return self.path / "config.yaml"

    @property
    def journal(self) -> Path:
        """The Optuna journal, unless the study lives in a database."""
        return self.path / JOURNAL

    @property
    def elsewhere(self) -> Path:
        """In which database the study lives, if it does, without the password."""
        return self.path / "storage.txt"

    @property
    def baseline(self) -> Path:
        """Weights of the dense model that was searched."""
        return self.path / "baseline.safetensors"

    @property
    def sensitivity(self) -> Path:
        """Results of sensitivity analyses, a file for each model, data, criterion and repair."""
        return self.path / "sensitivity"

    @property
    def calibration(self) -> Path:
        """Statistics of what the dense model's layers read."""
        return self.path / "calibration.safetensors"

    @property
    def latency(self) -> Path:
        """What predicts the latency of candidates."""
        return self.path / "latency.json"

    @property
    def scores(self) -> Path:
        """Channel scores that were computed from these statistics."""
        return self.path / "scores.safetensors"

    @property
    def mlflow(self) -> Path:
        """Which run of MLflow's the search is logged as, by server."""
        return self.path / "mlflow.json"

    @property
    def front_csv(self) -> Path:
        """The front as a table."""
        return self.path / "front.csv"

    @property
    def front_json(self) -> Path:
        """The front as JSON."""
        return self.path / "front.json"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def summary(self) -> Path:
        """The answer in Markdown."""
        return self.path / "summary.md"

    @property
    def figures(self) -> Path:
        """The report's figures as files of their own."""
        return self.path / "figures"

    @property
    def models(self) -> Path:
        """Where exported models lie, one directory per trial."""
        return self.path / "models"

    @property
    def finalists(self) -> Path:
        """Where trained finalists wait for their export."""
        return self.models / ".finalists"

    def sweep(self) -> None:
        """Remove what killed processes left half made."""
        for folder in (self.path, self.models, self.finalists, self.sensitivity):
            sweep(folder)

    def model(self, trial: int) -> Path:
        """Directory of the model exported from a trial."""
        return self.models / str(trial)

    def exported(self) -> Iterator[tuple[int, Path]]:
        """Trials with a complete exported model, ascending.

        A model's manifest is written last, so a directory without one is unfinished, as is whatever has a
        temporary name; both are passed over.
        """
        names = [entry.name for entry in self.models.iterdir()] if self.models.is_dir() else []
        for trial in sorted(int(name) for name in names if name.isdecimal()):
            if (self.model(trial) / "manifest.json").is_file():
                yield trial, self.model(trial)
