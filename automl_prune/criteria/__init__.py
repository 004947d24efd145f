"""How channels are ranked: pure functions (context, group) -> scores, in a registry open to third parties."""

from automl_prune.criteria.base import (
    Criterion,
    CriterionContext,
    criteria,
    filter_rows,
    keep_best,
    score_groups,
)
from automl_prune.criteria.weight import bn_scale, geometric_median, has_bn_scale, l1, l2, random

__all__ = [
    "Criterion",
    "CriterionContext",
    "bn_scale",
    "criteria",
    "filter_rows",
    "geometric_median",
    "has_bn_scale",
    "keep_best",
    "l1",
    "l2",
    "random",
    "score_groups",
]
