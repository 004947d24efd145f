"""What a search proposes: for every channel group, how many channels to keep and which criterion chooses them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class GroupChoice:
    """The decision for one group.

    Attributes:
        keep: Width after pruning, in channels, at least 1.
        criterion: Registered name of the criterion that ranks the group's channels.
    """

    keep: int
    criterion: str

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError(f"a group keeps at least 1 channel, got keep={self.keep}")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One point of the search: a choice for every prunable group, by group name. Immutable."""

    choices: Mapping[str, GroupChoice]

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", MappingProxyType(dict(sorted(self.choices.items()))))

    @property
    def widths(self) -> dict[str, int]:
        """Kept width of every group."""
        return {name: choice.keep for name, choice in self.choices.items()}

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that identify the candidate across processes and versions."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, list[Any]]:
        """A JSON-ready form, ``{group: [keep, criterion]}``; ``from_json`` inverts it."""
        return {name: [choice.keep, choice.criterion] for name, choice in self.choices.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Candidate:
        """Rebuild a candidate; malformed values raise ``ValueError``."""
        try:
            return cls({name: GroupChoice(int(keep), str(criterion)) for name, (keep, criterion) in value.items()})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a candidate: {value!r}; expected {{group: [keep, criterion]}}") from error
