"""From criteria to scores: checked, comparable between groups, and whole orders of removal as scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from automl_prune.channels.group import ChannelGroup
from automl_prune.criteria.base import CriterionContext, criteria, need_of
from automl_prune.errors import ConfigError, ModelError, PlanError


def score_groups(
    groups: Sequence[ChannelGroup],
    context: CriterionContext,
    criterion: str,
    on_step: Callable[[int, int], None] | None = None,
) -> dict[str, torch.Tensor]:
    """Scores of every group by one criterion, each divided by its mean, so that groups are comparable.

    The mean serves every criterion: with the bare errors of ``obs`` or with Euclidean norms, a ranking of all
    channels of ResNet-20 together keeps the narrow groups too wide, and scores points less than uniform widths.

    Args:
        groups: The groups to score; not changed.
        context: The dense model's tensors, and its calibration where the criterion needs one.
        criterion: A registered name; an unknown one raises ``ConfigError`` with the nearest names.
        on_step: Called with (groups done, groups in all).

    Returns:
        By group name, shape (width,), mean 1; all ones where every channel scored 0.

    Raises:
        ConfigError: When the criterion needs what the context lacks, or breaks its contract (shape, a negative
            score).
        ModelError: When scores are not finite, which means that weights are not.
    """
    score = criteria[criterion]
    need = need_of(score)
    if need not in context.has:
        raise ConfigError(
            f"criterion {criterion!r} needs {need} of what the layers read, and there are none; collect a calibration"
            f"{' with_gradients' if need == 'gradients' else ''}, or choose a criterion of the weights alone"
        )
    scores = {}
    for done, group in enumerate(groups, start=1):
        scores[group.name] = _normalised(score(context, group), group, criterion)
        if on_step is not None:
            on_step(done, len(groups))
    return scores


def _normalised(scores: torch.Tensor, group: ChannelGroup, criterion: str) -> torch.Tensor:
    where = f"criterion {criterion!r}, group {group.name!r}"
    if scores.shape != (group.width,):
        raise ConfigError(f"{where}: scores have shape {tuple(scores.shape)}, expected ({group.width},)")
    scores = scores.detach().cpu().double()
    if not bool(torch.isfinite(scores).all()):
        bad = int((~torch.isfinite(scores)).sum())
        raise ModelError(
            f"{where}: {bad} of {group.width} scores are NaN or infinite; the model's weights are damaged, "
            "load or train them again"
        )
    if bool((scores < 0).any()):
        raise ConfigError(f"{where}: lowest score is {scores.min().item():.4g}; a criterion must not be negative")
    # Two divisions: the sum of huge finite scores may overflow, and the mean of tiny ones may vanish.
    largest = scores.max()
    if largest == 0:
        return torch.ones_like(scores)
    scores = scores / largest
    return scores / scores.mean()


def keep_best(scores: torch.Tensor, keep: int) -> tuple[int, ...]:
    """The channels with the highest scores, ascending; of equal scores the lower index is kept.

    Args:
        scores: Shape (width,).
        keep: How many, from 1 to width; anything else raises ``PlanError``.
    """
    if not 1 <= keep <= len(scores):
        raise PlanError(f"cannot keep {keep} of {len(scores)} channels; keep from 1 to {len(scores)}")
    order = torch.argsort(scores, descending=True, stable=True)
    return tuple(sorted(order[:keep].tolist()))


def in_order(order: torch.Tensor, increments: torch.Tensor) -> torch.Tensor:
    """An order of removal as scores: the best k channels by score are those that are removed last, for every k.

    Args:
        order: The channels in the order they are removed, shape (width,).
        increments: What the removal of each cost, in that order; finite.

    Returns:
        By channel, shape (width,), positive: the greatest increment until then (a channel cannot go before those that
        go before it), each a billionth greater than the one before where that is all the difference.
    """
    largest = float(increments.max())
    growth = (1 + 1e-9) ** torch.arange(len(order), dtype=torch.float64)
    floor = 1e-12 * largest if largest > 0 else 1.0
    scores = torch.empty(len(order), dtype=torch.float64)
    scores[order] = (increments.double().clamp(min=floor) / growth).cummax(dim=0).values * growth
    return scores
