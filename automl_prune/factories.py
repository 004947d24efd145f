"""Functions of the user's, named in a configuration as ``package.module:function``: found and called."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from automl_prune.errors import AutomlPruneError, ConfigError
from automl_prune.registry import nearest

TRUSTED: Final = ("automl_prune.models", "automl_prune.tasks", "torchvision.models")
"""Packages whose functions build models and data and do nothing else, whatever their arguments."""

_NAMED = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def import_function(reference: str, key: str) -> Callable[..., Any]:
    """The function a ``package.module:function`` names.

    Args:
        reference: The text.
        key: Where in the configuration it stands, for messages.

    Raises:
        ConfigError: There is no such module or function, or importing the module failed.
    """
    module_name, colon, name = reference.partition(":")
    if not colon or not module_name or not name:
        raise ConfigError(f"{key} is {reference!r}; write it as 'package.module:function'")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{key} {reference!r}: {error}; install it, or run where it lies, or put its folder on PYTHONPATH"
        ) from error
    except Exception as error:  # importing runs the user's code, which raises anything
        raise ConfigError(f"{key} {reference!r}: importing {module_name} failed: {_said(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        public = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        what = "has no function" if function is None else f"has {type(function).__name__}, not a function,"
        raise ConfigError(f"{key}: {module_name} {what} {name!r}; {nearest(name, public)}")
    return function  # type: ignore[no-any-return]  # a user's function


def check_trust(reference: str, key: str, trusted: Sequence[str]) -> None:
    """Refuse a function that somebody else has named, unless its package is trusted; nothing else is imported.

    Whoever can write a study or a run directory could otherwise have any function called with any arguments.

    Args:
        reference: ``package.module:function``.
        key: Where in the configuration it stands, for messages.
        trusted: Packages, or modules of packages, besides ``TRUSTED``. The function must be defined there, not
            only be within reach.

    Raises:
        ConfigError: It is not trusted; the message says how to trust it.
    """
    allowed = (*TRUSTED, *trusted)
    module = reference.partition(":")[0]
    home = getattr(import_function(reference, key), "__module__", "") if _is_within(module, allowed) else module
    if not _is_within(str(home), allowed):
        raise ConfigError(
            f"{key} is {reference!r}, which would run code of {str(home)!r}, named by the study and not by you; if you "
            f"know that package and it is installed here, add --trust {str(home).partition('.')[0]}"
        )


def to_trust(config: Mapping[str, Any]) -> list[str]:
    """The packages that a configuration's factories come from and that are not trusted without being asked for."""
    sections = (config.get("model"), config.get("data"))
    references = (
        str(section["factory"]) for section in sections if isinstance(section, Mapping) and "factory" in section
    )
    modules = (reference.partition(":")[0] for reference in references)
    return sorted({module.partition(".")[0] for module in modules if not _is_within(module, TRUSTED)})


def _is_within(module: str, packages: Sequence[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def call(factory: Callable[..., Any], arguments: Mapping[str, Any], label: str, key: str) -> Any:
    """What a factory returns.

    Args:
        factory: The function.
        arguments: Its keyword arguments.
        label: How messages name the function.
        key: Where in the configuration the arguments stand, for messages.

    Raises:
        ConfigError: An argument is unknown (with the nearest known one) or missing, or the factory raised. Errors
            of this package pass through.
    """
    _check_arguments(factory, arguments, label, key)
    try:
        return factory(**arguments)
    except AutomlPruneError:
        raise
    except Exception as error:  # a user's function raises anything
        raise ConfigError(f"{key}: {label} failed with {dict(arguments)}: {_said(error)}") from error


def _check_arguments(factory: Callable[..., Any], arguments: Mapping[str, Any], label: str, key: str) -> None:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (ValueError, TypeError):
        return  # written in C without a signature; the call itself will tell
    named = [p.name for p in parameters if p.kind in _NAMED]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in arguments:
        if name not in named and not open_ended:
            raise ConfigError(f"{key}: {label} takes no argument {name!r}; {nearest(name, named)}")
    for parameter in parameters:
        if parameter.kind in _NAMED and parameter.default is parameter.empty and parameter.name not in arguments:
            raise ConfigError(f"{key}: {label} needs the argument {parameter.name!r}; add {key}.{parameter.name}")


def _said(error: Exception) -> str:
    """An error in one line: kind, message, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (at {frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
