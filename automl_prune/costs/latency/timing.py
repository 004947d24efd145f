"""Timing a model in turns with the dense one, until the ratio is known well enough."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from automl_prune.costs.latency.measurement import LEAST_ROUNDS, Rounds, half_width, ratios
from automl_prune.costs.latency.runtime import Runner
from automl_prune.costs.latency.settings import LatencySettings

BLOCK_SECONDS = 0.005
"""How long one model runs before the other takes its turn."""

CALLS = (2, 20)
"""Fewest and most calls of a block."""

BLOCKS = 2
"""Turns of each model in a round."""

_WARM_UP = 20


def take_turns(
    load: Callable[[], Runner],
    load_dense: Callable[[], Runner],
    settings: LatencySettings,
    now: Callable[[], float] = time.perf_counter,
) -> tuple[Rounds, Rounds]:
    """Time two models round after round: both are loaded anew, warmed up, and run in alternating blocks.

    Which of them comes first changes from round to round.

    Args:
        load: Loads the model.
        load_dense: Loads the dense model.
        settings: Precision and time limit.
        now: Clock of the time limit.

    Returns:
        Samples of the model and of the dense model.
    """
    start, samples, dense = now(), list[tuple[float, ...]](), list[tuple[float, ...]]()
    while len(samples) < LEAST_ROUNDS or (
        half_width(ratios(samples, dense)) > settings.precision and now() - start < settings.time_limit
    ):
        order = ((load, samples), (load_dense, dense))
        _round(order if len(samples) % 2 else order[::-1])
    return tuple(samples), tuple(dense)


def _round(turns: tuple[tuple[Callable[[], Runner], list[tuple[float, ...]]], ...]) -> None:
    """Both models once, in the order given; appends what they took."""
    runners = [load() for load, _ in turns]
    counts = [_calls(warm_up(runner)) for runner in runners]
    taken: list[list[float]] = [[] for _ in turns]
    for _ in range(BLOCKS):
        for runner, count, seconds in zip(runners, counts, taken, strict=True):
            seconds.extend(runner() for _ in range(count))
    for (_, rounds), seconds in zip(turns, taken, strict=True):
        rounds.append(tuple(seconds))


def _calls(seconds: float) -> int:
    return min(max(math.ceil(BLOCK_SECONDS / max(seconds, 1e-9)), CALLS[0]), CALLS[1])


def warm_up(run: Runner) -> float:
    """Run until a call is no longer clearly faster than those before; the seconds of the fastest."""
    fastest = run()
    for _ in range(_WARM_UP):
        seconds = run()
        stable = seconds > 0.95 * fastest
        fastest = min(fastest, seconds)
        if stable:
            break
    return fastest
