"""Histories, replay of CMA-ES and DDPG, and what strategies refuse."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import cmaes
import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import TrialState, create_trial
from scipy.stats import kstest, truncnorm

from automl_prune.errors import ConfigError, StudyError
from automl_prune.study.strategies import ddpg as reinforcement
from automl_prune.study.strategies import strategies
from automl_prune.study.strategies.actor_critic import ActorCritic, Transitions
from automl_prune.study.strategies.cma import SIGMA
from automl_prune.study.strategies.ddpg import truncated_normal
from automl_prune.study.strategies.history import Cube, choices, complete_trials, excess, ranking

SPACE: dict[str, BaseDistribution] = {
    "target_cost": FloatDistribution(0.5, 1.0),
    "residual/b": FloatDistribution(-1.0, 1.0),
    "residual/a": FloatDistribution(0.0, 4.0),
    "criterion": CategoricalDistribution(("l1", "l2")),
}

Row = tuple[Mapping[str, Any], float, float, float, str]
"""Parameters, score, cost, violation, origin."""


def point(b: float, a: float, criterion: str = "l1", target: float = 1.0) -> dict[str, Any]:
    return {"target_cost": target, "residual/b": b, "residual/a": a, "criterion": criterion}


def study(rows: Sequence[Row], direction: StudyDirection = StudyDirection.MAXIMIZE) -> Study:
    made = optuna.create_study(directions=[direction, StudyDirection.MINIMIZE])
    for params, score, cost, violation, origin in rows:
        made.add_trial(
            create_trial(
                state=TrialState.COMPLETE, params=dict(params), distributions=SPACE, user_attrs={"origin": origin},
                values=(score, cost), constraints={"macs": violation},
            )
        )  # fmt: skip
    return made


def ask(strategy: str, made: Study, seed: int) -> dict[str, Any]:
    """A proposal for the whole space in its own order."""
    trial = made.ask()
    sampler = strategies[strategy](seed)
    frozen = made.get_trials(deepcopy=False)[trial.number]
    return sampler.sample_relative(made, frozen, SPACE)


def random_rows(count: int, seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for _ in range(count):
        b, a = rng.uniform((-1, 0), (1, 4)).tolist()
        params = point(b, a, str(rng.choice(["l1", "l2"])))
        rows.append((params, float(rng.uniform()), 1e6, float(rng.choice([-0.1, 0.2])), "search"))
    return rows


def test_cube_scales_each_parameter_to_its_bounds() -> None:
    cube = Cube.of(SPACE, "target_cost")
    assert list(cube.ranges) == ["residual/b", "residual/a"]
    assert cube.encode(point(-0.5, 3.0)).tolist() == [0.25, 0.75]
    assert cube.decode(np.array([0.25, 0.75])) == {"residual/b": -0.5, "residual/a": 3.0}
    assert cube.decode(np.array([-9.0, 9.0])) == {"residual/b": -1.0, "residual/a": 4.0}


@pytest.mark.parametrize(
    ("direction", "order"), [(StudyDirection.MAXIMIZE, [1, 0, 3, 2]), (StudyDirection.MINIMIZE, [0, 1, 3, 2])]
)
def test_ranking_puts_what_is_over_budget_last_by_how_little(direction: StudyDirection, order: list[int]) -> None:
    scores = [(0.5, -0.1), (0.7, 0.0), (0.9, 0.3), (0.1, 0.2)]
    made = study([(point(0, 0), score, 1.0, violation, "search") for score, violation in scores], direction)
    trials = complete_trials(made)
    assert [trial.number for trial in ranking(made, trials)] == order
    assert [excess(trial) for trial in trials] == [0, 0, 0.3, 0.2]


def test_choices_are_tried_once_each_and_then_mostly_the_best() -> None:
    assert {choices(study([]), SPACE, seed)["criterion"] for seed in range(20)} == {"l1", "l2"}
    one = study([(point(0, 0, "l1"), 0.9, 1.0, 0.0, "search")])
    assert {choices(one, SPACE, seed)["criterion"] for seed in range(20)} == {"l2"}
    both = study([(point(0, 0, name), score, 1.0, 0.0, "search") for name, score in (("l1", 0.9), ("l2", 0.5))])
    found = [choices(both, SPACE, seed)["criterion"] for seed in range(400)]
    assert 0.01 < found.count("l2") / 400 < 0.12


def test_cmaes_proposes_what_the_package_itself_would() -> None:
    rows = random_rows(13)
    baseline = (point(0.5, 1.0), 0.2, 1e6, 0.0, "uniform l1")
    found = ask("cmaes", study([baseline, *rows]), seed=5)
    reference = cmaes.SepCMA(mean=np.array([0.75, 0.25]), sigma=SIGMA, bounds=np.array([[0, 1], [0, 1]]), seed=5)
    size = reference.population_size
    for first in range(0, 13 - size + 1, size):
        generation = rows[first : first + size]
        order = sorted(generation, key=lambda row: (max(0.0, row[3]), -row[1]))
        reference.tell(
            [
                (np.array([(row[0]["residual/b"] + 1) / 2, row[0]["residual/a"] / 4]), float(rank))
                for rank, row in enumerate(order)
            ]
        )
    expected = reference.ask()
    assert found["residual/b"] == pytest.approx(2 * expected[0] - 1)
    assert found["residual/a"] == pytest.approx(4 * expected[1])
    assert found["target_cost"] == 1.0


def test_cmaes_serves_a_space_of_one_number() -> None:
    space = {"target_cost": SPACE["target_cost"], "residual/a": SPACE["residual/a"]}
    made = study(random_rows(9))
    found = strategies["cmaes"](1).sample_relative(made, made.get_trials()[0], space)
    assert set(found) == set(space)
    assert 0 <= found["residual/a"] <= 4


def test_cmaes_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(ConfigError, match=r"pip install 'automl-prune\[strategies\]'"):
        strategies["cmaes"](0)


@pytest.mark.parametrize("name", ["ddpg", "ddpg_cost"])
def test_ddpg_that_lived_through_the_study_equals_one_that_is_rebuilt(name: str) -> None:
    rows = random_rows(reinforcement.WARM_UP + 6)
    growing = study([])
    for row in rows:
        (trial,) = study([row]).get_trials()
        growing.add_trial(trial)
        lived = ask(name, growing, seed=3)
    assert ask(name, study(rows), seed=3) == lived
    assert ask(name, study(rows), seed=4) != lived
    other = study([(params, score * (0.6 + 0.3 * params["residual/b"]), *rest) for params, score, *rest in rows])
    assert ask(name, other, seed=3) != lived, "what trials scored has no say"


def test_ddpg_spends_the_budget_and_ddpg_cost_chooses() -> None:
    rows = random_rows(reinforcement.WARM_UP + 2)
    assert ask("ddpg", study(rows), seed=3)["target_cost"] == 1.0
    assert ask("ddpg_cost", study(rows), seed=3)["target_cost"] < 1.0


def test_ddpg_cost_refuses_scores_above_one() -> None:
    with pytest.raises(StudyError, match=r"trial 0 scored 17\.0; use strategy 'ddpg'"):
        ask("ddpg_cost", study([(point(0, 0), 17.0, 1e6, 0.0, "search")]), seed=0)


def test_rewards_are_those_of_the_paper() -> None:
    made = study([(point(0, 0), 0.75, 1e6, 0.0, "search")])
    (trial,) = complete_trials(made)
    assert reinforcement._reward(made, trial, "error") == 0.75
    assert reinforcement._reward(made, trial, "error times log cost") == pytest.approx(-0.25 * np.log(1e6))


def test_states_say_place_layers_spent_rest_and_last_action() -> None:
    cube = Cube.of(SPACE, "target_cost")
    agent = reinforcement._Agent(cube, {"residual/b": (0.6, 0.1), "residual/a": (0.4, 0.9)})
    assert agent._state(np.array([])).tolist() == [1, 0, 0.6, 0.1, 0, 0.4, 0]
    assert agent._state(np.array([0.5])).tolist() == pytest.approx([0, 1, 0.4, 0.9, 0.3, 0, 0.5])


def test_rewards_are_relative_to_a_moving_average() -> None:
    average = reinforcement._Average()
    assert average.standardise(5.0) == 0.0
    assert average.standardise(7.0) == pytest.approx(1.0)  # the spread is 2, the mean 5
    assert average.mean == pytest.approx(5.2)
    assert average.standardise(4.2) == pytest.approx(-1 / (0.9 * 2 + 0.1))


@pytest.mark.parametrize(("mean", "deviation"), [(0.5, 0.5), (0.95, 0.2), (0.0, 0.05)])
def test_noise_is_the_truncated_normal_distribution(mean: float, deviation: float) -> None:
    rng = np.random.default_rng(0)
    drawn = [truncated_normal(mean, deviation, rng) for _ in range(2000)]
    reference = truncnorm(-mean / deviation, (1 - mean) / deviation, mean, deviation)
    assert kstest(drawn, reference.cdf).pvalue > 0.01


def test_actor_finds_the_best_action_of_every_state() -> None:
    """A reward with a known optimum per state, one step per episode: the actor has to reach it."""
    random = torch.Generator().manual_seed(0)
    rows = 400
    state = torch.eye(3)[torch.randint(3, (rows,), generator=random)]
    action = torch.rand(rows, generator=random)
    best = torch.tensor([0.2, 0.5, 0.8])
    reward = 1 - 8 * (action - state @ best).square()
    buffer = Transitions(state, action, reward, state, torch.ones(rows, dtype=torch.bool))
    learner = ActorCritic(3)
    for _ in range(300):
        learner.update(buffer)
    assert [learner.act(row) for row in torch.eye(3)] == pytest.approx(best.tolist(), abs=0.12)


def test_critic_adds_up_what_is_still_to_come() -> None:
    """Two steps, a reward of 1 at each: worth 2 at the first, 1 at the second, whatever the action."""
    rows = 200
    state = torch.eye(2).repeat(rows // 2, 1)
    action = torch.rand(rows, generator=torch.Generator().manual_seed(0))
    buffer = Transitions(state, action, torch.ones(rows), state.roll(1, dims=1), state[:, 1] == 1)
    learner = ActorCritic(2)
    for _ in range(400):
        learner.update(buffer)
    with torch.no_grad():
        worth = learner.critic(torch.cat([torch.eye(2), torch.full((2, 1), 0.5)], dim=1)).squeeze(1)
    assert worth.tolist() == pytest.approx([2.0, 1.0], abs=0.2)


def test_a_cost_in_seconds_is_rewarded_too() -> None:
    made = study([(point(0, 0), 0.75, 4e-3, 0.0, "search"), (point(0, 1), 0.75, 2e-3, 0.0, "search")])
    made.set_user_attr("cost", "latency")
    slow, fast = (reinforcement._reward(made, trial, "error times log cost") for trial in complete_trials(made))
    assert slow == pytest.approx(-0.25 * np.log(4e6))
    assert slow < fast < 0
