"""YAML as people mean it: ``1e-3`` is a number, a repeated key is an error, errors say line and column."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from automl_prune.errors import ConfigError

_EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
_FLOAT = "tag:yaml.org,2002:float"


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    problem = f"the key {key.value!r} is given twice; keep one"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    pass


# YAML 1.1, which PyYAML reads, wants a point in every float: 5e-4 would be text. Both ways, so that texts that look
# like such numbers are quoted when written.
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+0123456789"))


def read_mapping(path: Path, expected: str) -> dict[str, Any]:
    """Read a file that holds a mapping.

    Args:
        path: A UTF-8 file.
        expected: What it should be, for messages, e.g. ``"a configuration with model, data, ..."``.

    Raises:
        ConfigError: The file is missing, unreadable, not YAML (with line and column), or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; give the path of {expected}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; give the path of {expected}") from error
    values = parse(text, str(path))
    if not isinstance(values, dict):
        found = "is empty" if values is None else f"holds a {type(values).__name__} ({str(values)[:60]!r})"
        raise ConfigError(f"{path} {found}; expected {expected}")
    return values


def parse(text: str, source: str) -> Any:
    """The value of a YAML text; ``ConfigError`` names ``source``, line and column."""
    try:
        return yaml.load(text, _Loader)  # a SafeLoader with stricter keys
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        context = f" {error.context}" if error.context else ""
        raise ConfigError(f"{source}{where}: not valid YAML{context}: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-02-31
        raise ConfigError(f"{source}: not valid YAML: {error}") from error


def to_yaml(value: Mapping[str, Any]) -> str:
    """Plain values as YAML text that ``parse`` reads back to equal values; keys keep their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def overridden(values: Mapping[str, Any], override: str) -> dict[str, Any]:
    """A copy of ``values`` with one key replaced or added.

    Args:
        values: Nested mappings.
        override: ``"section.key=value"``, the value in YAML.

    Raises:
        ConfigError: It is not of that form, or leads through something that is no section.
    """
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override!r}: write it as section.key=value, e.g. search.trials=50")
    return _replaced(values, parts, parse(text, f"--set {override!r}"), override)


def _replaced(values: Mapping[str, Any], path: Sequence[str], value: Any, override: str) -> dict[str, Any]:
    head, *rest = path
    if not rest:
        return {**values, head: value}
    child = values.get(head)
    if child is not None and not isinstance(child, dict):
        raise ConfigError(f"--set {override!r}: {head!r} is {child!r}, not a section with keys of its own")
    return {**values, head: _replaced(child or {}, rest, value, override)}
