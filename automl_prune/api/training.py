"""Train the dense model of a configuration."""

from __future__ import annotations

from pathlib import Path

from automl_prune.config import Config
from automl_prune.dense import train_dense
from automl_prune.errors import ConfigError
from automl_prune.view import Silent, View


def train(
    config: Config, output: Path | None, *, force: bool = False, command: str = "", view: View | None = None
) -> Path:
    """Train the dense model of a configuration and write its weights.

    Args:
        config: What to train.
        output: File to write; by default the configuration's ``model.weights``.
        force: Replace the file when it exists.
        command: Recorded in the file's metadata.
        view: Where progress goes.

    Returns:
        The file.

    Raises:
        ConfigError: The file exists and ``force`` is not given.
    """
    default = (
        Path(config.model.weights) if config.model.weights else Path("runs") / config.name / "baseline.safetensors"
    )
    path = output or default
    if path.exists() and not force:
        raise ConfigError(f"{path} exists; add --force to train again and replace it, or choose another --output")
    train_dense(config, config.build_task(), path, command=command, view=view or Silent())
    return path
