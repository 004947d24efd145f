"""The whole idea in one file: a pruning search on scikit-learn's digits, of the package's public parts and Optuna.

    python examples/minimal_search.py [--trials 40] [--epochs 10]

``automl-prune search`` does the same and what a real run needs besides: resume, workers, baselines, finalists with
several seeds, export, verification, a report. Read this to see how the parts fit; it takes under a minute.
"""

from __future__ import annotations

import argparse

import optuna
import torch
from torch import nn

import automl_prune as ap
from automl_prune.calibration import Calibration, CalibrationSettings, collect
from automl_prune.criteria import CriterionContext, keep_best, score_groups
from automl_prune.evaluation import recalibrate, reconstruct, score
from automl_prune.front import FrontPoint, ParetoFront
from automl_prune.models import resnet8
from automl_prune.projection import Projector
from automl_prune.space import FloatParameter, Parameter
from automl_prune.tasks import Score, Task, tasks
from automl_prune.training.baseline import Training, train

CPU = torch.device("cpu")
SPACE = ap.Space(criteria=("obs", "l1"))


def main() -> None:
    """Train, search, print the front."""
    parser = argparse.ArgumentParser(description="A pruning search in one file.")
    parser.add_argument("--trials", type=int, default=40, help="candidates to evaluate")
    parser.add_argument("--epochs", type=int, default=10, help="of training the dense model")
    options = parser.parse_args()

    # The dense model: any nn.Module will do. A task is its data with loss and metric.
    task: Task = tasks["digits"]()
    model = train(resnet8(num_classes=10, in_channels=1), task, Training(epochs=options.epochs), seed=0, device=CPU)

    # 1. Trace: which channels must be cut together. Prove: cutting them computes what it should.
    graph = ap.prove(model, ap.ChannelGraph.trace(model, task.example_inputs), task.example_inputs)
    print(f"{len(graph.groups)} groups, {sum(graph.widths.values())} channels, {graph.dense_costs['macs']:,.0f} MACs")

    # 2. Calibrate: one pass of training images says what every layer reads.
    calibration = collect(model, task, CalibrationSettings(samples=512), device=CPU)

    # 3. Order: a score per channel and criterion. Of any width, the best channels are kept.
    context = CriterionContext.of(model, calibration=calibration)
    scores = {criterion: score_groups(graph.groups, context, criterion) for criterion in SPACE.criteria}

    # 4. Project: every point of the search space becomes widths within the budget, exactly.
    projector = Projector(graph, SPACE, ap.Budget(macs=0.3).limits(graph.dense_costs), scores)
    points: list[FrontPoint] = []

    def objective(trial: optuna.Trial) -> float:
        candidate = projector.candidate({p.name: suggest(trial, p) for p in projector.parameters})
        choices = candidate.choices.items()
        plan = graph.plan({group: keep_best(scores[c.criterion][group], c.keep) for group, c in choices})
        value = score(compress(model, plan, calibration, task), task, "val", CPU).value
        points.append(FrontPoint(trial.number, value, plan.costs()["macs"].value, feasible=True, rung=0))
        return value

    # 8. Search: Optuna proposes, starting from uniform widths.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0, multivariate=True))
    for criterion in SPACE.criteria:
        study.enqueue_trial(projector.uniform_point(criterion, target=1.0))
    study.optimize(objective, n_trials=options.trials)

    # 9. Front: what no other candidate beats in both accuracy and cost.
    front = ParetoFront.of(points, higher_is_better=True)
    print_front(front, graph.dense_costs["macs"], score(model, task, "val", CPU), task)


def suggest(trial: optuna.Trial, parameter: Parameter) -> float | str:
    """A value for one parameter of the space."""
    if isinstance(parameter, FloatParameter):
        return trial.suggest_float(parameter.name, parameter.low, parameter.high)
    return trial.suggest_categorical(parameter.name, parameter.choices)


def compress(model: nn.Module, plan: ap.Plan, calibration: Calibration, task: Task) -> nn.Module:
    """Steps 5 to 7, without any training."""
    small = ap.prune(model, plan)  # 5. Prune: a new module with smaller layers.
    reconstruct(small, model, plan, calibration)  # 6. Reconstruct: least squares for what lost inputs.
    recalibrate(small, task, samples=512, device=CPU)  # 7. Recalibrate: BatchNorm's statistics, measured anew.
    return small


def print_front(front: ParetoFront, dense_macs: float, dense: Score, task: Task) -> None:
    """The front as a table, the dense model last."""
    print("trial    MACs  validation accuracy")
    for point in front.points:
        print(f"{point.trial:>5}  {point.cost / dense_macs:6.1%}  {task.metric.show(point.score)}")
    print(f"dense  {1:6.1%}  {task.metric.show(dense.value)}")


if __name__ == "__main__":
    main()
