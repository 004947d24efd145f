"""A new budget is answered from a search that is done: little is evaluated, nothing is over the new budget."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import automl_prune as ap
from automl_prune import api
from automl_prune.api.retargeting import _Earlier
from automl_prune.candidate import Candidate
from automl_prune.config import Config
from automl_prune.costs import Cost
from automl_prune.errors import BudgetError, ConfigError, StudyError
from automl_prune.evaluation import Evaluation, Evaluator
from automl_prune.evaluation.evaluator import Climb
from automl_prune.files import sha256
from automl_prune.report.table import completed
from automl_prune.study.directory import RunDirectory
from tests.views import Recorder

DIGITS = Path(__file__).parents[2] / "experiments" / "digits" / "config.yaml"
SHORT = (
    "training.epochs=1",
    "evaluation.calibration_samples=64",
    "evaluation.finetune_steps=2",
    "evaluation.learning_rate=0.01",
    "evaluation.finalists=1",
    "evaluation.finetune_epochs=0.1",
    "evaluation.seeds=1",
    "device=cpu",
)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> api.SearchResult:
    directory = tmp_path_factory.mktemp("retarget") / "run"
    return api.search_config(Config.load(DIGITS, SHORT), directory, trials=10)


def test_a_tighter_budget_is_answered_with_what_is_there(
    searched: api.SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[str] = []
    original = Evaluator.evaluate

    def counting(self: Evaluator, candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
        evaluated.append(self.digest(candidate))
        return original(self, candidate, seed, climb)

    monkeypatch.setattr(Evaluator, "evaluate", counting)
    view = Recorder()
    result = ap.retarget(searched.run_dir, budget=ap.Budget(macs=0.45), view=view)
    record, limit = result.record, 0.45 * searched.record.context.dense_costs["macs"]
    assert result.run_dir == searched.run_dir / "retargets" / "macs=0.45"
    assert record.finished
    assert all(e.costs["macs"].value <= limit for _, e in completed(record))
    assert result.front
    assert all(row.costs["macs"].value <= limit and row.test for row in result.front)
    before = {e.plan_digest: e for _, e in completed(searched.record)}
    taken = [e for _, e in completed(record) if e.seconds == 0]
    assert taken
    assert all(e.rungs[0].score == before[e.plan_digest].rungs[0].score for e in taken)
    assert len(evaluated) == len(set(evaluated)) == len(record.trials) - len(taken)
    assert f"{len(taken)} evaluations reused from {searched.run_dir}, {len(evaluated)} new" in view.said
    assert not {"Calibrating", "Proving channel groups", "Scoring the dense model"} & set(view.stages)
    origins = {trial.origin for trial in record.trials}
    assert {"uniform obs", "search"} <= origins
    sources = {trial.source for trial in record.trials if trial.source}
    assert any(source.startswith("proportions of trial") for source in sources)
    assert any(record.trials[f.trial].origin != "search" for f in record.finalists), "the answer has its baseline"
    text = (result.run_dir / "report.html").read_text()
    assert "of the search" in text
    evaluated.clear()
    again = ap.retarget(searched.run_dir, budget=ap.Budget(macs=0.45))
    assert (again.record, evaluated) == (record, [])
    assert "finished" in api.status(result.run_dir).in_words()
    assert api.front(result.run_dir)[1] == list(result.front)
    exported = api.export(result.run_dir, trial=result.front[0].trial)
    assert exported in [path for _, path in RunDirectory(result.run_dir).exported()]


def test_a_looser_budget_and_another_cost(searched: api.SearchResult, tmp_path: Path) -> None:
    result = ap.retarget(searched.run_dir, budget=ap.Budget(params=0.6, macs="70%"), output=tmp_path / "loose")
    limits = result.record.context.limits
    assert list(limits) == ["params", "macs"]
    assert result.record.context.cost == "params"
    assert all(e.costs[metric].value <= limits[metric] for _, e in completed(result.record) for metric in limits)
    dearest = max(e.costs["macs"].value for _, e in completed(result.record))
    assert dearest > searched.record.context.limits["macs"], "the room that is new is used"
    assert any(e.seconds == 0 for _, e in completed(result.record))


def test_what_cannot_be_answered_says_why(searched: api.SearchResult, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="reach"):
        ap.retarget(searched.run_dir, budget=ap.Budget(macs=0.0001))
    with pytest.raises(StudyError, match="holds no study"):
        ap.retarget(tmp_path, budget=ap.Budget(macs=0.3))
    shutil.copy(searched.run_dir / "study.journal", tmp_path)
    with pytest.raises(ConfigError, match=r"config.yaml is missing.*from Python"):
        ap.retarget(tmp_path, budget=ap.Budget(macs=0.3))


def test_a_search_without_a_completed_trial_has_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Evaluator, "evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        api.search_config(Config.load(DIGITS, SHORT), tmp_path, trials=4)
    with pytest.raises(StudyError, match="no completed trial"):
        ap.retarget(tmp_path, budget=ap.Budget(macs=0.3))


def test_a_cost_that_the_search_did_not_have_is_evaluated(searched: api.SearchResult, tmp_path: Path) -> None:
    """The added bound does not bind, so the baselines are the models that the search has evaluated."""
    budget = ap.Budget(macs=0.5, size=0.99)
    record = ap.retarget(searched.run_dir, budget=budget, output=tmp_path / "both").record
    assert record.finished
    assert all({"macs", "size"} <= e.costs.keys() for _, e in completed(record))


def test_a_search_that_has_grown_gives_its_new_models_too(tmp_path: Path) -> None:
    config = Config.load(DIGITS, SHORT)
    run_dir, budget = tmp_path / "run", ap.Budget(macs=0.45)
    api.search_config(config, run_dir, trials=8)
    first = ap.retarget(run_dir, budget=budget).record
    api.search_config(config, run_dir, trials=14)
    second = ap.retarget(run_dir, budget=budget).record
    fresh = ap.retarget(run_dir, budget=budget, output=tmp_path / "fresh").record
    assert second.finished
    assert {(t.origin, t.source) for t in fresh.trials} <= {(t.origin, t.source) for t in second.trials}
    assert len(second.trials) >= max(len(first.trials), len(fresh.trials))


def test_the_configuration_in_a_run_directory_is_the_search_s(tmp_path: Path) -> None:
    config = Config.load(DIGITS, SHORT)
    api.one_shot_config(Config.load(DIGITS, [*SHORT, "budget.macs=0.25"]), tmp_path)
    assert Config.load(tmp_path / "config.yaml").budget == {"macs": 0.25}
    api.search_config(config, tmp_path, trials=4)
    kept = Config.load(tmp_path / "config.yaml")
    assert (kept.budget, kept.search.trials) == (config.budget, 4)
    with pytest.raises(StudyError, match="another"):
        api.search_config(Config.load(DIGITS, [*SHORT, "budget.macs=0.3"]), tmp_path, trials=4)
    assert Config.load(tmp_path / "config.yaml") == kept, "a search that is refused writes nothing"


def contents(directory: Path) -> dict[str, str]:
    """The digest of every file."""
    return {str(path): sha256(path) for path in sorted(directory.rglob("*")) if path.is_file()}


def test_other_data_than_the_search_s_are_refused(searched: api.SearchResult, tmp_path: Path) -> None:
    other, trial = ["data.validation=240"], searched.front[0].trial
    before = contents(searched.run_dir)
    with pytest.raises(StudyError, match="what differs:\n  data"):
        ap.retarget(searched.run_dir, budget=ap.Budget(macs=0.45), output=tmp_path / "other", overrides=other)
    with pytest.raises(StudyError, match="what differs:\n  data"):
        api.export(searched.run_dir, trial=trial, overrides=other)
    assert contents(searched.run_dir) == before
    exported = api.export(searched.run_dir, trial=trial, overrides=["device=cpu"])
    assert exported == RunDirectory(searched.run_dir).model(trial)


@pytest.mark.parametrize("override", ["search.seed=5", "evaluation.seeds=2", "evaluation.calibration_samples=32"])
def test_a_search_is_continued_with_its_own_settings(override: str, searched: api.SearchResult) -> None:
    with pytest.raises(ConfigError, match=rf"--set {override}: only data.\* and device may differ"):
        api.export(searched.run_dir, trial=searched.front[0].trial, overrides=[override])
    with pytest.raises(ConfigError, match=rf"--set {override}: only data.\* and device may differ"):
        ap.retarget(searched.run_dir, budget=ap.Budget(macs=0.45), overrides=[override])


def test_a_refused_search_leaves_what_the_run_directory_holds(searched: api.SearchResult) -> None:
    before = contents(searched.run_dir)
    with pytest.raises(StudyError, match=r"(?s)holds another study.*calibration_samples: stored 64, now 32"):
        api.search_config(Config.load(DIGITS, [*SHORT, "evaluation.calibration_samples=32"]), searched.run_dir)
    assert contents(searched.run_dir) == before


def test_models_of_one_study_are_fine_tuned_alike(searched: api.SearchResult, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(searched.run_dir, run_dir)
    finalists = {finalist.trial for finalist in searched.record.finalists}
    other = next(trial.number for trial, _ in completed(searched.record) if trial.number not in finalists)
    (run_dir / "config.yaml").write_text(
        (run_dir / "config.yaml").read_text().replace("finetune_epochs: 0.1", "finetune_epochs: 0.5")
    )
    with pytest.raises(StudyError, match=r"fine-tuned with other settings \(steps 2, now"):
        api.export(run_dir, trial=other)
    assert api.read(run_dir) == api.read(searched.run_dir)


def test_latencies_of_another_machine_are_not_taken_over(searched: api.SearchResult) -> None:
    evaluation = next(e for _, e in completed(searched.record))
    costs = {**evaluation.costs, "latency": Cost("latency", 1e-5, 2e-5)}
    invitation = SimpleNamespace(identity={"latency": {"runtime": "onnxruntime", "threads": 1, "dense": 2e-5}})
    trial = SimpleNamespace(state="complete", reused_from=None, evaluation=replace(evaluation, costs=costs))
    earlier = _Earlier(cast(Any, SimpleNamespace(trials=(trial,))), cast(Any, invitation))

    def taken(threads: int, *limits: str) -> Any:
        now = {"latency": {"runtime": "onnxruntime", "threads": threads, "dense": 2e-5}}
        session = SimpleNamespace(
            evaluator=SimpleNamespace(digest=lambda candidate: evaluation.plan_digest),
            prices=SimpleNamespace(identity=now),
            limits=dict.fromkeys(limits, 1.0),
            evaluate=lambda *_: "anew",
        )
        return earlier.evaluate(cast(Any, session))(evaluation.candidate, 0, lambda score, costs: False)

    assert taken(1, "macs", "latency").costs == costs
    assert taken(2, "macs", "latency") == "anew"
    assert taken(2, "macs").costs == evaluation.costs


def test_all_finalists_of_a_resumed_search_are_fine_tuned_alike(searched: api.SearchResult, tmp_path: Path) -> None:
    """One that was asked for by hand among them."""
    run_dir = tmp_path / "run"
    shutil.copytree(searched.run_dir, run_dir)
    chosen = {finalist.trial for finalist in api.read(run_dir).finalists}
    asked = next(trial.number for trial, _ in completed(searched.record) if trial.number not in chosen)
    api.export(run_dir, trial=asked)
    assert {len(finalist.runs) for finalist in api.read(run_dir).finalists} == {1}
    result = api.search_config(Config.load(DIGITS, [*SHORT, "evaluation.seeds=2"]), run_dir, trials=10)
    assert {finalist.trial for finalist in result.record.finalists} >= {*chosen, asked}
    assert {len(finalist.runs) for finalist in result.record.finalists} == {2}
