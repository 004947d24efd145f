"""What strategies are shown of a study: scores of points, and budgets that were broken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from automl_prune.candidate import Candidate, GroupChoice
from automl_prune.costs import Cost
from automl_prune.evaluation.evaluator import Climb
from automl_prune.evaluation.record import Evaluation
from automl_prune.study.baselines import Baseline
from automl_prune.study.runner import run_study
from automl_prune.study.storage import open_storage
from automl_prune.study.strategies import strategies
from tests.study import synthetic
from tests.study.synthetic import Evaluator, evaluate, propose, spec


@contextmanager
def spying() -> Iterator[list[list[FrozenTrial]]]:
    """A strategy ``spy``, which proposes at random: for every proposal the complete trials that it is shown."""
    shown: list[list[FrozenTrial]] = []

    class Spy(BaseSampler):
        def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
            return {}

        def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
            shown.append(study.get_trials(states=(TrialState.COMPLETE,)))
            return {}

        def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
            chance = RandomSampler(seed=len(shown))
            return chance.sample_independent(study, trial, param_name, param_distribution)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(strategies._known, "spy", lambda seed: Spy())
        yield shown


def test_baseline_that_is_no_point_is_evaluated_as_given_and_not_shown_to_the_strategy(tmp_path: Path) -> None:
    near = synthetic.uniform_point("l1", 1.0)
    odd = Baseline("odd", near, Candidate({name: GroupChoice(7, "l2") for name in synthetic.groups(4)}))
    plain = [Baseline(f"plain {share}", synthetic.uniform_point("l2", share)) for share in (1.0, 0.5)]
    evaluator = Evaluator({1: KeyboardInterrupt()})
    storage = open_storage(None, tmp_path / "with")
    with pytest.raises(KeyboardInterrupt):
        run_study(replace(spec(8), baselines=(odd, *plain)), storage, propose, evaluator)
    record = run_study(replace(spec(8), baselines=(odd, *plain)), storage, propose, evaluate)
    first = record.trials[0]
    assert first.evaluation is not None
    assert (first.origin, first.point, first.evaluation.candidate) == ("odd", near, odd.candidate)

    with spying() as shown:
        run_study(
            replace(spec(7), strategy="spy", baselines=(odd, *plain)),
            open_storage(None, tmp_path / "spy"),
            propose,
            evaluate,
        )
    scores = [t.evaluation.score.value for t in record.trials if t.evaluation and t.origin.startswith("plain")]
    last = [trial.values[0] for trial in shown[-1]]
    assert last[:2] == scores
    assert first.evaluation.score.value not in last


def test_a_budget_is_a_constraint_for_the_strategy_from_the_first_trial_that_breaks_it(tmp_path: Path) -> None:
    dear = 6

    def evaluate_one_too_dear(candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
        found = evaluate(candidate, seed, climb)
        over = len(shown) == dear  # proposals so far
        return replace(found, costs={"macs": Cost("macs", 2500.0, 4000.0)}) if over else found

    asked = replace(spec(14), strategy="spy", baselines=())
    with spying() as shown:
        run_study(asked, open_storage(None, tmp_path), propose, evaluate_one_too_dear)
    assert [len(trials) for trials in shown] == list(range(14))
    constraints = [[trial.constraints for trial in trials] for trials in shown]
    assert not any(found for trials in constraints[:dear] for found in trials), "all are within the budget"
    for trials in constraints[dear:]:
        assert [found["macs"] > 0 for found in trials] == [number == dear - 1 for number in range(len(trials))]
    values = [[trial.values for trial in trials] for trials in shown]
    assert all(before == after[:-1] for before, after in pairwise(values)), "in the study's order, before and after"
