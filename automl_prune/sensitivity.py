"""Sensitivity: how much every channel group, pruned alone, costs in accuracy at several prune ratios.

One group at a time with all its coupled layers, the others dense, as in Li et al. 2017 (arXiv:1608.08710, section 3.2),
scored without training. Results are written after every evaluation, so that a killed analysis goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from automl_prune.candidate import Candidate, GroupChoice
from automl_prune.errors import CheckpointError, ConfigError
from automl_prune.evaluation import Evaluator, score
from automl_prune.files import read_sealed, tensors_digest, write_sealed
from automl_prune.tasks.base import Metric, Score

RATIOS = (0.25, 0.5, 0.75, 0.9)
"""Prune ratios (fractions removed) that are tried by default."""


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluation.

    Attributes:
        variant: How the model was repaired after the cut: the evaluator's name.
        group: The only group that was cut.
        keep: Its channels afterwards.
        score: Of the model on validation data, without training.
    """

    variant: str
    group: str
    keep: int
    score: Score


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The whole analysis.

    Attributes:
        metric: What scores are.
        criterion: Which channels went first.
        ratios: Prune ratios asked for, ascending.
        widths: Dense width of every group, in network order.
        dense: The dense model's score on the same samples.
        points: One per variant, group and width.
    """

    metric: Metric
    criterion: str
    ratios: tuple[float, ...]
    widths: Mapping[str, int]
    dense: Score
    points: tuple[Point, ...]

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the variants, in order."""
        return tuple(dict.fromkeys(point.variant for point in self.points))

    def point(self, variant: str, group: str, ratio: float) -> Point:
        """The evaluation at a prune ratio."""
        keep = kept(self.widths[group], ratio)
        return next(p for p in self.points if (p.variant, p.group, p.keep) == (variant, group, keep))

    def drop(self, point: Point) -> float:
        """How much worse than the dense model a point is, in the metric's unit; negative when it is better."""
        sign = 1 if self.metric.higher_is_better else -1
        return sign * (self.dense.value - point.score.value)

    def drops(self, variant: str) -> dict[str, dict[float, float]]:
        """Drop by group and prune ratio: what greedy baselines start from."""
        return {
            group: {ratio: self.drop(self.point(variant, group, ratio)) for ratio in self.ratios}
            for group in self.widths
        }


def kept(width: int, ratio: float) -> int:
    """Channels left of ``width`` at a prune ratio: the nearest number, but at least one goes and at least one stays."""
    return max(1, min(width - 1, round(width * (1 - ratio))))


def analyse(
    evaluators: Mapping[str, Evaluator],
    criterion: str,
    ratios: Sequence[float] = RATIOS,
    *,
    folder: Path | None = None,
    on_step: Callable[[int, int, str], None] | None = None,
) -> Sensitivity:
    """Prune every group alone at every ratio and score the result; the dense model is not changed.

    Args:
        evaluators: By name of the variant; all of the same dense model and data, with scores of ``criterion`` and
            without fine-tuning.
        criterion: Ranks the channels.
        ratios: Prune ratios, each in (0, 1).
        folder: Where results are kept, one file per model, data, criterion and recipe; an earlier analysis there goes
            on, and other ratios add to it.
        on_step: Called with (evaluations done, in all, which one).

    Raises:
        ConfigError: A ratio out of range, no ratio, or an evaluator that trains.
    """
    wrong = [ratio for ratio in ratios if not 0 < ratio < 1]
    if wrong or not ratios:
        raise ConfigError(f"prune ratios are {list(ratios)}; give fractions to remove, each between 0 and 1")
    if any(evaluator.recipe.finetuning is not None for evaluator in evaluators.values()):
        raise ConfigError("sensitivity is measured without training; set finetuning to None")
    first = next(iter(evaluators.values()))
    stores = {
        variant: _Store(folder, _identity(evaluator, criterion), variant, ratios)
        for variant, evaluator in evaluators.items()
    }
    known = [store.dense for store in stores.values() if store.dense is not None]
    dense = known[0] if known else score(first.model, first.task, "val", first.device)
    widths = {name: width for name, width in first.graph.widths.items() if width > 1}
    wanted = list(_wanted(evaluators, widths, ratios))
    done: list[Point] = []
    for number, (variant, group, keep) in enumerate(wanted):
        found = stores[variant].scores.get((group, keep))
        if found is None:
            candidate = Candidate({group: GroupChoice(keep, criterion)})
            found = evaluators[variant].evaluate(candidate, 0).score
            stores[variant].put(dense, group, keep, found)
        done.append(Point(variant, group, keep, found))
        if on_step is not None:
            on_step(number + 1, len(wanted), "")
    return Sensitivity(first.task.metric, criterion, tuple(sorted(set(ratios))), widths, dense, tuple(done))


def known_drops(evaluator: Evaluator, criterion: str, folder: Path) -> dict[str, dict[int, float]]:
    """What an earlier analysis of the same model, data, criterion and repair measured; nothing is evaluated.

    Args:
        evaluator: Its fine-tuning, if any, is left out of account.
        criterion: Ranks the channels.
        folder: Where analyses are kept.

    Returns:
        Drop of the score in the metric's unit by group and width; empty when there is none.
    """
    recipe = replace(evaluator.recipe, finetuning=None)
    store = _Store(folder, {**_identity(evaluator, criterion), "recipe": asdict(recipe)})
    found: dict[str, dict[int, float]] = {}
    if store.dense is not None:
        sign = 1 if evaluator.task.metric.higher_is_better else -1
        for (group, keep), score_of in store.scores.items():
            found.setdefault(group, {})[keep] = sign * (store.dense.value - score_of.value)
    return found


def stored(folder: Path, model: str, widths: Mapping[str, int]) -> tuple[Sensitivity, ...]:
    """The analyses of a model that a folder holds, one per criterion and variant; nothing is evaluated.

    Args:
        folder: Where analyses are kept; it need not exist.
        model: Digest of the dense model's tensors; analyses of other models are passed over.
        widths: Dense width of every group, in network order.

    Returns:
        In order of criterion and variant. An interrupted analysis holds the groups that are finished.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        content = read_sealed(path)
        try:
            identity, dense, ratios = content["identity"], Score(**content["dense"]), tuple(content["ratios"])
            points = tuple(
                Point(content["variant"], p["group"], int(p["keep"]), Score(**p["score"])) for p in content["points"]
            )
            metric, criterion, of = Metric(**identity["metric"]), identity["criterion"], identity["model"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is no sensitivity analysis ({error!r}); delete it to start again") from error
        if of == model:
            have = {(point.group, point.keep) for point in points}
            done = {g: w for g, w in widths.items() if all((g, kept(w, ratio)) in have for ratio in ratios)}
            found.append(Sensitivity(metric, criterion, ratios, done, dense, points))
    return tuple(sorted(found, key=lambda result: (result.criterion, result.variants)))


def _wanted(
    evaluators: Mapping[str, Evaluator], widths: Mapping[str, int], ratios: Sequence[float]
) -> Iterator[tuple[str, str, int]]:
    for variant in evaluators:
        for group, width in widths.items():
            for keep in sorted({kept(width, ratio) for ratio in ratios}, reverse=True):
                yield variant, group, keep


def _identity(evaluator: Evaluator, criterion: str) -> dict[str, Any]:
    calibration = evaluator.calibration if evaluator.recipe.reconstruct else None
    return {
        "model": tensors_digest(evaluator.model.state_dict()),
        "channel groups": evaluator.graph.digest,
        "data": evaluator.task.digest,
        "metric": asdict(evaluator.task.metric),
        "criterion": criterion,
        "scores": tensors_digest(evaluator.scores[criterion]),
        "recipe": asdict(evaluator.recipe),
        "calibration": asdict(calibration.settings) if calibration is not None else None,
    }


class _Store:
    """Finished evaluations of one evaluator in a JSON file that is replaced whole after each of them."""

    def __init__(
        self, folder: Path | None, identity: Mapping[str, Any], variant: str = "", ratios: Sequence[float] = ()
    ) -> None:
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self.path = folder / f"{key}.json" if folder else None
        self.identity = identity
        self.variant = variant
        self.ratios = set(ratios)
        self.dense: Score | None = None
        self.scores: dict[tuple[str, int], Score] = {}
        if self.path is not None and self.path.is_file():
            self._read(self.path)

    def _read(self, path: Path) -> None:
        content = read_sealed(path)
        try:
            self.dense = Score(**content["dense"])
            self.ratios |= set(content["ratios"])
            self.scores = {(p["group"], int(p["keep"])): Score(**p["score"]) for p in content["points"]}
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is no sensitivity analysis ({error!r}); delete it to start again") from error

    def put(self, dense: Score, group: str, keep: int, found: Score) -> None:
        """Keep one more result."""
        self.dense, self.scores[group, keep] = dense, found
        if self.path is not None:
            points = [{"group": g, "keep": k, "score": asdict(s)} for (g, k), s in self.scores.items()]
            content = {"identity": dict(self.identity), "variant": self.variant, "ratios": sorted(self.ratios)}
            write_sealed(self.path, {**content, "dense": asdict(dense), "points": points})
