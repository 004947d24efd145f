"""Which widths are worth having on a machine: multiples of some number, or those that no wider width is as fast as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automl_prune.costs import CostModel

MULTIPLES = (1, 2, 4, 8, 16)
"""Roundings that are tried; widths are compared with multiples of the last."""

NOTICEABLE = 1.05
"""How many times as long per multiply-accumulate makes widths not worth having."""

TOLERANCE = 0.005
"""A wider width counts as equally fast when it takes at most this share longer."""

_FRACTIONS = np.linspace(0.3, 0.95, 14)


@dataclass(frozen=True, slots=True)
class Rounding:
    """The widths to search among.

    Attributes:
        allowed: By group, ascending; the dense width is among them.
        reason: One sentence: which, and why.
    """

    allowed: Mapping[str, tuple[int, ...]]
    reason: str


def choose_rounding(latency: CostModel, macs: CostModel, allowed: Mapping[str, Sequence[int]]) -> Rounding:
    """Multiples of the least number that makes widths efficient; where none matters, each group's efficient widths.

    For every number m, models whose widths are all multiples of m, but not of 2 m, are set against models of about
    equal widths that are all multiples of 16: by how much longer they take per multiply-accumulate, at the median over
    fractions of the dense widths.

    Args:
        latency: Of widths, measured or predicted.
        macs: Multiply-accumulates of widths.
        allowed: By group, ascending, the dense width last; the order is that of the costs' variables.
    """
    widths = {name: np.asarray(own, dtype=np.int64) for name, own in allowed.items()}
    slower = [_slower(latency, macs, list(widths.values()), multiple) for multiple in MULTIPLES[:-1]]
    multiple = next((m for m, times in zip(MULTIPLES, slower, strict=False) if times < NOTICEABLE), MULTIPLES[-1])
    curves = {name: _curve(latency, list(widths.values()), number) for number, name in enumerate(widths)}
    if multiple > 1:
        rounded = {name: _rounded(own, multiple) or _efficient(own, curves[name]) for name, own in widths.items()}
        return Rounding(
            rounded,
            f"widths in multiples of {multiple}: others take {slower[0]:.2g} times as long per MAC on this machine",
        )
    efficient = {name: _efficient(own, curves[name]) for name, own in widths.items()}
    kept, offered = (sum(len(own) for own in some.values()) for some in (efficient, allowed))
    if kept < 0.8 * offered:
        reason = f"{kept} of {offered} widths: the others are no faster than a wider one of their group on this machine"
        return Rounding(efficient, reason)
    reason = f"all widths: odd ones take {slower[0]:.2g} times as long per MAC as multiples of 16 on this machine"
    return Rounding({name: tuple(own.tolist()) for name, own in widths.items()}, reason)


def _slower(latency: CostModel, macs: CostModel, allowed: Sequence[NDArray[np.int64]], multiple: int) -> float:
    """Latency per multiply-accumulate of odd multiples, as a multiple of that of multiples of 16."""
    odd, even = (
        np.array([[_nearest(own, fraction, step, avoid) for own in allowed] for fraction in _FRACTIONS], dtype=np.int64)
        for step, avoid in ((multiple, 2 * multiple), (MULTIPLES[-1], 0))
    )
    per_mac = [latency.evaluate_all(many) / macs.evaluate_all(many) for many in (odd, even)]
    return float(np.median(per_mac[0] / per_mac[1]))


def _nearest(own: NDArray[np.int64], fraction: float, step: int, avoid: int) -> int:
    """The width nearest to a fraction that is a multiple of one number and none of another; dense if there is none."""
    fit = own[(own % step == 0) & (own % avoid != 0 if avoid else True)]
    if not fit.size:
        return int(own[-1])
    return int(fit[np.abs(fit - fraction * own[-1]).argmin()])


def _rounded(own: NDArray[np.int64], multiple: int) -> tuple[int, ...]:
    """The multiples among a group's widths, and the dense one; empty when that leaves nothing to prune."""
    kept = own[(own % multiple == 0) | (own == own[-1])]
    return tuple(kept.tolist()) if len(kept) > 1 else ()


def _curve(latency: CostModel, allowed: Sequence[NDArray[np.int64]], number: int) -> NDArray[np.float64]:
    """Latency at every width of one group, the others dense."""
    many = np.repeat(np.array([[own[-1] for own in allowed]]), len(allowed[number]), axis=0)
    many[:, number] = allowed[number]
    return np.asarray(latency.evaluate_all(many), dtype=np.float64)


def _efficient(own: NDArray[np.int64], curve: NDArray[np.float64]) -> tuple[int, ...]:
    """The widths that every wider one is slower than; the dense one is."""
    ahead = np.minimum.accumulate(np.append(curve[1:], np.inf)[::-1])[::-1]
    return tuple(own[curve * (1 + TOLERANCE) < ahead].tolist())
