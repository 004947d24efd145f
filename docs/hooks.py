"""Parts of pages that are made of the code when the documentation is built, so that they cannot go stale.

A line ``<!-- commands -->`` becomes the help of every command, ``<!-- configuration -->`` the tables of the
configuration's keys, ``<!-- search space -->`` those of a search space.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import griffe
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from automl_prune.cli import app
from automl_prune.config import Config
from automl_prune.space import Space

_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_NAMES = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", type(None): "`null`"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with every page."""
    made: dict[str, Callable[[], str]] = {
        "commands": commands,
        "configuration": lambda: configuration(Config),
        "search space": lambda: configuration(Space),
    }
    for name, make in made.items():
        mark = f"<!-- {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return markdown


def commands() -> str:
    """The help of every command, as the command line prints it."""
    parts = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]  # it is a group
        context = command.context_class(
            command, info_name=f"automl-prune {name}", terminal_width=100, max_content_width=100
        )
        parts.append(f"## {name}\n\n```text\n{command.get_help(context).strip()}\n```\n")
    return "\n".join(parts)


def configuration(model: type[BaseModel], prefix: str = "") -> str:
    """A table of a model's keys, and below it those of its sections."""
    meanings = descriptions(model)
    rows, sections = [], []
    for name, field in model.model_fields.items():
        section = next(_models_in(field.annotation), None)
        mapping = typing.get_origin(field.annotation) is Mapping
        if section is None or mapping:
            rows.append(f"| `{prefix}{name}` | {kind(field)} | {default(field)} | {meanings[name]} |")
        if section is not None:
            sections.append((f"{prefix}{name}{'.PATTERN' if mapping else ''}", section))
    parts = ["\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows]) + "\n"]
    for path, section in sections:
        parts.append(f"## {path}\n\n{_parsed(section)[0].value}\n\n{configuration(section, f'{path}.')}")
    return "\n".join(parts)


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """What the class says of each of its fields, in one line of Markdown.

    Raises:
        KeyError: A field is not described.
    """
    found = {
        attribute.name: " ".join(attribute.description.split())
        for section in _parsed(model)
        if section.kind is griffe.DocstringSectionKind.attributes
        for attribute in section.value
    }
    for name, field in model.model_fields.items():
        if name not in found and not list(_models_in(field.annotation)):
            raise KeyError(f"{model.__name__}.{name} is not described under Attributes in the class's docstring")
    return found


def kind(field: FieldInfo) -> str:
    """The values a field takes, in words."""
    return _kind(field.annotation, field.metadata)


def default(field: FieldInfo) -> str:
    """The default as it is written in YAML; where there is none, the field's description or ``required``."""
    if field.description:
        return field.description
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    words = {None: "null", True: "true", False: "false"}
    if isinstance(value, (tuple, list)):
        text = f"[{', '.join(map(str, value))}]"
    elif isinstance(value, Mapping):
        text = "{}"
    else:
        text = words.get(value, str(value)) if value is None or isinstance(value, bool) else str(value)
    return f"`{text}`"


def _kind(annotation: Any, metadata: typing.Sequence[Any]) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(arguments[0], arguments[1:])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(part, ()) for part in arguments)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return f"list of {_kind(arguments[0], ())}s"
    if origin is Mapping:
        return "mapping"
    bounds = [
        f"{sign} {getattr(one, name)}" for one in metadata for name, sign in _BOUNDS.items() if hasattr(one, name)
    ]
    return " ".join([_NAMES[annotation], ", ".join(bounds)]).strip()


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)


def _parsed(model: type[BaseModel]) -> list[Any]:
    return list(griffe.Docstring(inspect.getdoc(model) or "").parse("google", warnings=False))
