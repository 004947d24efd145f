"""Taking turns, with runners that only say how long they took."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from automl_prune.costs.latency import LatencySettings, take_turns
from automl_prune.costs.latency.measurement import LEAST_ROUNDS, half_width, ratios
from automl_prune.costs.latency.timing import warm_up


class Machine:
    """A machine whose speed drifts and whose calls other processes lengthen; keeps the order of what happened."""

    def __init__(self, noise: float = 0.0, drift: float = 0.0) -> None:
        self.random = np.random.default_rng(0)
        self.noise, self.drift, self.time = noise, drift, 0.0
        self.log: list[str] = []

    def loader(self, name: str, seconds: float) -> Callable[[], Callable[[], float]]:
        def load() -> Callable[[], float]:
            self.log.append(f"load {name}")

            def run() -> float:
                self.log.append(name)
                taken = seconds * (1 + self.drift * self.time) * (1 + self.noise * self.random.exponential())
                self.time += taken
                return float(taken)

            return run

        return load


def test_drift_cancels_in_the_ratio() -> None:
    machine = Machine(noise=0.05, drift=5.0)  # several times slower at the end than at the start
    mine, dense = take_turns(machine.loader("a", 0.002), machine.loader("b", 0.004), LatencySettings())
    assert np.median(ratios(mine, dense)) == pytest.approx(0.5, rel=0.02)
    assert min(dense[-1]) > 1.2 * min(dense[0])


def test_models_alternate_and_every_round_loads_both_anew_in_changing_order() -> None:
    machine = Machine()
    mine, dense = take_turns(machine.loader("a", 0.004), machine.loader("b", 0.004), LatencySettings())
    assert len(mine) == len(dense) == LEAST_ROUNDS
    loads = [entry for entry in machine.log if entry.startswith("load")]
    assert loads[:4] in (["load a", "load b", "load b", "load a"], ["load b", "load a", "load a", "load b"])
    assert len(loads) == 2 * LEAST_ROUNDS
    first_round = machine.log[2 : machine.log.index("load a", 2)]
    turns = [name for name, _ in itertools.groupby(first_round)]
    assert turns == ["b", "a"] * 3  # warming up, and two blocks


def test_it_stops_when_precise_enough_and_goes_on_while_it_is_not() -> None:
    settings = LatencySettings(precision=0.02, time_limit=1e9)
    noisy = Machine(noise=2.0)
    mine, dense = take_turns(noisy.loader("a", 0.002), noisy.loader("b", 0.002), settings, now=lambda: noisy.time)
    assert len(mine) > LEAST_ROUNDS
    assert half_width(ratios(mine, dense)) <= 0.02


def test_the_time_limit_ends_what_never_gets_precise_but_not_before_there_is_an_interval() -> None:
    machine = Machine(noise=10.0)
    settings = LatencySettings(precision=1e-9, time_limit=1.0)
    mine, _ = take_turns(machine.loader("a", 0.02), machine.loader("b", 0.02), settings, now=lambda: machine.time)
    assert machine.time < 20
    slow, _ = take_turns(machine.loader("a", 5.0), machine.loader("b", 5.0), settings, now=lambda: machine.time)
    assert len(mine) >= len(slow) == LEAST_ROUNDS


def test_warming_up_ends_when_calls_stop_getting_faster() -> None:
    taken: Iterator[float] = iter([8.0, 4.0, 2.0, 1.0, 0.99, 0.5])
    assert warm_up(lambda: next(taken)) == 0.99
    assert next(taken) == 0.5
