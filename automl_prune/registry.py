"""Named plug-ins: the one place where a string from YAML or the command line becomes an object."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from automl_prune.errors import ConfigError

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """A helpful tail for an error message: the nearest known names, and all of them where none is very near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    guess = f"did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    if difflib.get_close_matches(name, close, n=1, cutoff=0.65):
        return guess
    return " ".join(filter(None, [guess, f"known are: {', '.join(names) or 'none'}"]))


class Registry(Generic[T]):
    """A mapping from names to implementations of one concept, open to third parties.

    A package adds an implementation through the entry point group ``automl_prune.<kind>``; entry points are
    loaded when a name is first looked up, so importing this package never imports someone else's code.

    Args:
        kind: What is registered, in the plural, e.g. ``"criteria"``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._known: dict[str, T] = {}
        self._entry_points_loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that registers its object under ``name``; a duplicate raises ``ConfigError``."""

        def add(implementation: T) -> T:
            if name in self._known:
                raise ConfigError(f"{self.kind}: {name!r} is registered twice; choose another name")
            self._known[name] = implementation
            return implementation

        return add

    def __getitem__(self, name: str) -> T:
        self._load_entry_points()
        if name not in self._known:
            raise ConfigError(f"{self.kind}: unknown name {name!r}; {nearest(name, self._known)}")
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        self._load_entry_points()
        return iter(sorted(self._known))

    def __contains__(self, name: str) -> bool:
        self._load_entry_points()
        return name in self._known

    def _load_entry_points(self) -> None:
        if self._entry_points_loaded:
            return
        self._entry_points_loaded = True
        for entry in entry_points(group=f"automl_prune.{self.kind}"):
            self.register(entry.name)(entry.load())
