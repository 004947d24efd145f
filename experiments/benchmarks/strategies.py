"""Every search strategy on the same problem: hypervolume, and accuracy at half and at 22.5 % of the MACs.

    OMP_NUM_THREADS=1 nice python experiments/benchmarks/strategies.py --trials 300 --seeds 0
    OMP_NUM_THREADS=1 nice python experiments/benchmarks/strategies.py --trials 150 --seeds 1 2 --strategies tpe random
    OMP_NUM_THREADS=1 nice python experiments/benchmarks/strategies.py --spaces coefficients --strategies tpe

A study for each search space, strategy and seed, without any training (rung 0), scored on 2000 validation images.
Criteria are those of the default space in all. All studies of a space start from the same baselines, which have a row.
No strategy knows how long a study will be, so what it found after fewer trials is read off the same study. The best
model within each budget is scored on all test images, on which nothing was chosen. Plans that an earlier study has
scored are not scored again. Studies lie in ``runs/benchmarks/strategies`` and are resumed: more
trials or seeds add to what is there. ``results/strategies.json`` and its table are written after every study.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from one_shot import HERE

import automl_prune as ap
from automl_prune.candidate import Candidate
from automl_prune.checkpoints import load_weights
from automl_prune.config import Config
from automl_prune.errors import StudyError
from automl_prune.evaluation import Evaluation, Evaluator, score
from automl_prune.evaluation.evaluator import Climb
from automl_prune.files import read_json, write_json, write_text
from automl_prune.front import FrontPoint, ParetoFront
from automl_prune.report.table import completed
from automl_prune.sections import EvaluationSection
from automl_prune.session import Session, choose_device, environment
from automl_prune.space import Space
from automl_prune.study.directory import RunDirectory
from automl_prune.study.record import StudyRecord
from automl_prune.study.runner import read_study
from automl_prune.study.storage import open_storage
from automl_prune.study.strategies import strategies
from automl_prune.tasks.bounded import BoundedValidation
from automl_prune.view import Silent

RESULTS = HERE / "results" / "strategies.json"
STUDIES = Path("runs") / "benchmarks" / "strategies"
SAMPLES = 2000
BUDGET, LEAST = 0.5, 0.45
"""The budget, and the least share of it a candidate may spend: a little less than a quarter of the dense MACs."""
BUDGETS = (BUDGET, BUDGET * LEAST)
"""Where one looks: at what the dearest and the cheapest baselines may spend, so that nobody has more than they."""
AFTER = (60, 150, 300)
"""Trials after which one looks."""
SPACES = {
    "per_group": Space(target_cost=LEAST),
    "near": Space(target_cost=LEAST, residual=0.15),
    "around_uniform": Space(target_cost=LEAST, allocations=("uniform",)),
    "per_stage": Space(target_cost=LEAST, scope="stage"),
    "global_rank": Space(target_cost=LEAST, residual=0.0, depth_slope=0.5),
    "coefficients": Space(target_cost=LEAST, coefficient=2.0),
    "stage_coefficients": Space(target_cost=LEAST, coefficient=2.0, scope="stage", depth_slope=1.0),
}
"""Those of ``search_spaces/`` by name, with the default criteria; one that stays nearer to what it starts from, one
that starts from uniform widths alone, and one of few coefficients."""


class Problem:
    """One experiment's dense model, and what a study of it finds."""

    def __init__(self, name: str, overrides: Sequence[str]) -> None:
        config = Config.load(HERE.parent / name / "config.yaml", overrides)
        self.name, self.device = name, choose_device("auto")
        self.whole = config.build_task()
        self.task = BoundedValidation(self.whole, SAMPLES)
        self.model = config.build_model().to(self.device).eval()
        assert config.model.weights is not None
        load_weights(self.model, Path(config.model.weights))
        self.evaluation = EvaluationSection(finetune_steps=0, finalists=0)
        self.known = _scored(STUDIES / name)
        self.session: Session | None = None

    def study(self, space: str, strategy: str, seed: int, trials: int) -> StudyRecord:
        """Run or resume one study."""
        directory = RunDirectory(STUDIES / self.name / f"{space}-{strategy}-{seed}")
        shared = STUDIES / self.name / "shared"
        for path in (directory.calibration, directory.scores):
            if not path.exists() and (shared / path.name).exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(shared / path.name, path)
        with _remembering(self.known):
            result = ap.search(
                model=self.model, task=self.task, budget=ap.Budget(macs=BUDGET), run_dir=directory.path,
                n_trials=trials, patience=None, space=SPACES[space], evaluation=self.evaluation, strategy=strategy,
                seed=seed,
            )  # fmt: skip
        shared.mkdir(parents=True, exist_ok=True)
        for path in (directory.calibration, directory.scores):
            if not (shared / path.name).exists():
                shutil.copy(path, shared / path.name)
        return result.record

    def test(self, record: StudyRecord, trial: int) -> float:
        """Test accuracy of a trial's model."""
        directory = RunDirectory(STUDIES / self.name / "shared")
        if self.session is None:
            self.session = Session.prepare(
                self.model, self.task, ap.Budget(macs=BUDGET), SPACES["per_group"], self.evaluation.recipe(), seed=0,
                device=self.device, view=Silent(), calibration=directory.calibration, ranking=directory.scores,
            )  # fmt: skip
        candidate = next(e.candidate for t, e in completed(record) if t.number == trial)
        evaluator = self.session.evaluator
        return score(evaluator.compress(evaluator.plan(candidate)), self.whole, "test", self.device).value


def _scored(folder: Path) -> dict[str, Evaluation]:
    """What studies in a folder have scored, by plan."""
    found = {}
    for path in sorted(folder.glob("*/study.journal")):
        with suppress(StudyError):  # none was begun
            record = read_study(open_storage(None, path.parent.resolve()), "study")
            found |= {e.plan_digest: e for _, e in completed(record)}
    return found


@contextmanager
def _remembering(known: dict[str, Evaluation]) -> Iterator[None]:
    """Without training an evaluation is a function of what is kept: studies of one process share them."""
    evaluate = Evaluator.evaluate

    def remembered(self: Evaluator, candidate: Candidate, seed: int, climb: Climb, **others: Any) -> Evaluation:
        digest = self.digest(candidate)
        if digest not in known:
            known[digest] = evaluate(self, candidate, seed, climb, **others)
        return replace(known[digest], candidate=candidate, seed=seed)

    Evaluator.evaluate = remembered  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Evaluator.evaluate = evaluate  # type: ignore[method-assign]


def main() -> None:
    arguments = _arguments()
    document = read_json(RESULTS) if RESULTS.is_file() else {"studies": [], "environments": {}}
    problem = Problem(arguments.model, arguments.overrides)
    document["environments"].setdefault(arguments.model, environment(problem.device))
    for seed, space, strategy in product(arguments.seeds, arguments.spaces, arguments.strategies):
        key = {"model": arguments.model, "space": space, "strategy": strategy, "seed": seed}
        old: dict[str, Any] = next((study for study in document["studies"] if key.items() <= study.items()), {})
        if len(old.get("rows", ())) >= arguments.trials:
            continue
        record = problem.study(space, strategy, seed, arguments.trials)
        document["studies"] = [study for study in document["studies"] if study is not old]
        document["studies"].append({**key, **_found(problem, record)})
        write_json(RESULTS, document)
        print(key, document["studies"][-1]["after"], flush=True)
        write_text(RESULTS.with_suffix(".md"), _table(document["studies"]))
    print(_table(document["studies"]))


def _found(problem: Problem, record: StudyRecord) -> dict[str, Any]:
    """What is kept of a study: every trial's origin, score and cost, and the best within each budget, tested."""
    dense = record.context.dense_costs["macs"]
    rows = [(t.number, t.origin, e.score.value, e.costs["macs"].value / dense) for t, e in completed(record)]
    tests: dict[int, float] = {}
    after = {}
    for trials in AFTER:
        best, first = {}, rows[:trials]
        for budget, kind in product(BUDGETS, ("baseline", "all")):
            within = [row for row in first if row[3] <= budget and (kind == "all" or row[1] != "search")]
            if len(first) == trials and within:
                number, origin, value, _ = max(within, key=lambda row: row[2])
                if number not in tests:
                    tests[number] = problem.test(record, number)
                best[f"{kind} {budget}"] = {"trial": number, "origin": origin, "val": value, "test": tests[number]}
        if best:
            after[str(trials)] = {"best": best, "hypervolume": _hypervolumes(first)}
    return {"after": after, "rows": rows}


def _hypervolumes(rows: Sequence[tuple[int, str, float, float]]) -> dict[str, float]:
    """Of the baselines alone and of everything, against a score of 0.5 at the whole budget."""

    def volume(some: Iterable[tuple[int, str, float, float]]) -> float:
        points = [FrontPoint(number, value, macs, macs <= BUDGET, 0) for number, _, value, macs in some]
        return ParetoFront.of(points, higher_is_better=True).hypervolume((0.5, BUDGET))

    return {"baselines": volume(row for row in rows if row[1] != "search"), "all": volume(rows)}


def _table(studies: list[dict[str, Any]]) -> str:
    lines = [
        "# Strategies",
        "",
        f"Studies without training, scored on {SAMPLES} validation images; mean over seeds. Hypervolume of the front",
        "against 50 % accuracy at half the MACs, in thousandths, and how much of it the search added to the baselines",
        "of the same seed, from which all strategies start; validation and (test) accuracy in % of the best model",
        "within each budget. Written by `strategies.py` from `strategies.json`.",
    ]
    for model, trials in product(sorted({study["model"] for study in studies}), map(str, AFTER)):
        mine = [study for study in studies if study["model"] == model and trials in study["after"]]
        mine.sort(key=lambda study: list(SPACES).index(study["space"]))
        if not mine:
            continue
        lines += ["", f"## {model}, {trials} trials", ""]
        lines += [
            f"| space, strategy | seeds | hypervolume | added | {' | '.join(f'{b:.1%} of the MACs' for b in BUDGETS)} |"
        ]
        lines += ["|---|---|---|---|" + "---|" * len(BUDGETS)]
        of_seeds = {study["seed"]: study["after"][trials] for study in reversed(mine)}
        lines.append(_row("baselines alone", list(of_seeds.values()), "baselines", "baseline"))
        for space, strategy in product(SPACES, strategies):
            its = [s["after"][trials] for s in mine if (s["space"], s["strategy"]) == (space, strategy)]
            lines += [_row(f"{space}, {strategy}", its, "all", "all")] if its else []
    return "\n".join(lines) + "\n"


def _row(name: str, studies: list[dict[str, Any]], volume: str, kind: str) -> str:
    volumes = [study["hypervolume"] for study in studies]
    added = [1000 * (each[volume] - each["baselines"]) for each in volumes]
    cells = [_mean([1000 * each[volume] for each in volumes]), _mean(added)]
    for budget in BUDGETS:
        found = [study["best"][f"{kind} {budget}"] for study in studies if f"{kind} {budget}" in study["best"]]
        val, test = (_mean([100 * f[split] for f in found]) for split in ("val", "test"))
        cells.append(f"{val} ({test})" if found else "–")
    return f"| {name} | {len(studies)} | {' | '.join(cells)} |"


def _mean(values: Sequence[float]) -> str:
    """With the standard error over seeds where there are several."""
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else ""
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values) / len(values) ** 0.5:.2f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fashion_mnist_resnet20", help="a folder of experiments/ with weights")
    parser.add_argument("--set", dest="overrides", metavar="a.b=value", nargs="+", default=[], help="in its config")
    parser.add_argument("--spaces", nargs="+", default=["per_group"], choices=list(SPACES))
    parser.add_argument("--strategies", nargs="+", default=list(strategies), choices=list(strategies))
    parser.add_argument("--trials", type=int, default=AFTER[-1], help="of each study, baselines included")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser.parse_args()


if __name__ == "__main__":
    main()
