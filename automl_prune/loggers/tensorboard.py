"""A search as TensorBoard event files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from automl_prune.errors import ConfigError
from automl_prune.loggers.base import Logger, Outcome, Row
from automl_prune.study.directory import RunDirectory
from automl_prune.view import SearchEnded, SearchStarted
from automl_prune.yaml_file import to_yaml

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def open_tensorboard(folder: str, directory: RunDirectory) -> Logger:
    """A logger into a folder of TensorBoard's, in which every search has a folder of its own.

    Raises:
        ConfigError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            f"--log tensorboard needs a package that is not installed ({error}): "
            "pip install 'automl-prune[tensorboard]'"
        ) from error
    return _TensorBoard(SummaryWriter, Path(folder).expanduser() / directory.path.resolve().name)


class _TensorBoard:
    """Writes a search from its first trial on whenever it is resumed.

    TensorBoard drops what a series had at and after a step that comes again, so steps must ascend, and a file that
    begins anew takes the place of the older ones.
    """

    def __init__(self, writer: type[SummaryWriter], folder: Path) -> None:
        self._open, self._folder = writer, folder
        self._writer: SummaryWriter | None = None

    def start(self, study: SearchStarted) -> None:
        self._writer = self._open(str(self._folder), purge_step=0)
        self._writer.add_text("config", f"```yaml\n{to_yaml(dict(study.config))}```")
        self._writer.add_text("budget", _table("at most", study.limits))
        self._writer.add_text("environment", _table("value", study.environment))

    def log(self, rows: Sequence[Row]) -> None:
        if self._writer is None:
            return
        for row in rows:
            for name, value in row.values.items():
                self._writer.add_scalar(name, value, row.step)
            if row.origin and "trial/complete" in row.values:
                self._writer.add_text("trial/origin", row.origin, row.step)
        self._writer.flush()

    def finish(self, result: SearchEnded) -> None:
        if self._writer is not None:
            summary = RunDirectory(Path(result.run_dir)).summary
            self._writer.add_text("summary", summary.read_text(encoding="utf-8"))

    def close(self, outcome: Outcome) -> None:
        if self._writer is not None:
            self._writer.close()


def _table(column: str, values: Mapping[str, object]) -> str:
    return "\n".join([f"| | {column} |", "|---|---|", *(f"| {name} | {value} |" for name, value in values.items())])
