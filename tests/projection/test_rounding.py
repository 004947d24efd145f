"""Rounding chosen from a staircase: the number that explains it, with what others cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from automl_prune.projection.rounding import choose_rounding

GROUPS = ("a", "b", "c")
ALLOWED = {"a": range(2, 65), "b": range(2, 129), "c": range(2, 65)}


@dataclass(frozen=True)
class Chain:
    """Products of neighbouring widths; ``penalty`` times as much where one of the two is off ``multiple``."""

    multiple: int
    penalty: float
    groups: tuple[str, ...] = GROUPS
    monotone: bool = False

    def evaluate(self, widths: NDArray[np.int64] | Sequence[int]) -> float:
        return float(self.evaluate_all(np.asarray(widths)[None])[0])

    def evaluate_all(self, widths: NDArray[np.int64]) -> NDArray[Any]:
        even = widths % self.multiple == 0
        factor = np.where(even[:, :-1] & even[:, 1:], 1.0, self.penalty)
        return np.asarray((factor * widths[:, :-1] * widths[:, 1:]).sum(axis=1), dtype=np.float64)

    def at(self, widths: Mapping[str, int]) -> float:
        return self.evaluate([widths[group] for group in self.groups])


MACS = Chain(1, 1.0)


@pytest.mark.parametrize("multiple", [2, 4, 8, 16])
def test_the_number_behind_the_staircase_is_found(multiple: int) -> None:
    found = choose_rounding(Chain(multiple, 1.5), MACS, ALLOWED)
    assert found.reason == (f"widths in multiples of {multiple}: others take 1.5 times as long per MAC on this machine")
    for name, widths in found.allowed.items():
        assert widths == tuple(w for w in ALLOWED[name] if w % multiple == 0)


def test_without_a_staircase_every_width_stays() -> None:
    found = choose_rounding(Chain(16, 1.01), MACS, ALLOWED)
    assert {name: tuple(widths) for name, widths in ALLOWED.items()} == found.allowed
    assert "all widths" in found.reason


def test_blocks_that_cost_alike_leave_the_widest_of_each() -> None:
    class Blocks(Chain):
        def evaluate_all(self, widths: NDArray[np.int64]) -> NDArray[Any]:
            blocks = -(-widths // 24) * 24  # no power of 2, so no rounding explains it
            return np.asarray((blocks[:, :-1] * blocks[:, 1:]).sum(axis=1), dtype=np.float64)

    found = choose_rounding(Blocks(1, 1.0), MACS, {"a": range(1, 97), "b": range(1, 97), "c": range(1, 97)})
    assert found.allowed["a"] == (24, 48, 72, 96) or "multiples" in found.reason
    assert all(widths[-1] == 96 for widths in found.allowed.values())


def test_a_group_too_narrow_for_the_multiple_keeps_its_efficient_widths() -> None:
    found = choose_rounding(Chain(16, 1.6), MACS, {**ALLOWED, "c": range(2, 11)})
    assert "multiples of 16" in found.reason
    assert found.allowed["c"][-1] == 10
    assert len(found.allowed["c"]) > 1
