"""Where the files are that a configuration names: ``~`` and variables expanded, relative paths looked up."""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from automl_prune.errors import ConfigError

_REPOSITORY = Path(__file__).resolve().parents[1]
_INSTALLED = Path(sysconfig.get_path("data")) / "share" / "automl-prune"
"""Where search_spaces/ lies: in a checkout, and where a wheel puts it."""


def with_paths(values: Mapping[str, Any], base: Path, *, final: bool) -> dict[str, Any]:
    """A copy of a configuration's values with absolute paths; relative ones are meant from ``base``.

    Values of a wrong type stay as they are, for the validation; unless ``final``, so do paths with a variable that
    is not set, because an override may still replace them.

    Raises:
        ConfigError: A path names an environment variable that is not set.
    """
    found = dict(values)
    above = (base, *base.parents, Path.cwd())

    def find(text: str, key: str, bases: Sequence[Path], otherwise: Path) -> str:
        unset = _unset_variable(text)
        if unset and final:
            raise ConfigError(f"{key} is {text!r}, but the environment variable {unset} is not set")
        return text if unset else _find(text, bases, otherwise)

    if isinstance(found.get("model"), dict) and isinstance(found["model"].get("weights"), str):
        # nowhere else than in its folder: many experiments call theirs baseline.safetensors
        found["model"] = {**found["model"], "weights": find(found["model"]["weights"], "model.weights", (base,), base)}
    if isinstance(found.get("data"), dict) and isinstance(found["data"].get("root"), str):
        found["data"] = {**found["data"], "root": find(found["data"]["root"], "data.root", above, Path.cwd())}
    if isinstance(found.get("space"), str):
        found["space"] = find(found["space"], "space", (*above, _REPOSITORY, _INSTALLED), Path.cwd())
    return found


def _unset_variable(text: str) -> str | None:
    left = re.search(r"\$\{?(\w+)", os.path.expandvars(text))
    return left[1] if left else None


def _find(text: str, bases: Sequence[Path], otherwise: Path) -> str:
    """The first existing of the paths a text means; where none exists, the one in ``otherwise``."""
    path = Path(os.path.expandvars(text)).expanduser()
    existing = (base / path for base in bases if (base / path).exists())
    return str(path if path.is_absolute() else next(existing, otherwise / path))
