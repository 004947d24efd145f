"""How channels are ranked: pure functions (context, group) -> scores, in a registry open to third parties."""

from automl_prune.criteria.activation import apoz, is_measured, mean_activation
from automl_prune.criteria.base import Criterion, CriterionContext, Need, criteria, filter_rows, need_of, needs
from automl_prune.criteria.consumers import Consumer, consumers
from automl_prune.criteria.gradient import taylor
from automl_prune.criteria.reconstruction import lasso, obs, thinet
from automl_prune.criteria.scores import in_order, keep_best, score_groups
from automl_prune.criteria.store import load_or_score
from automl_prune.criteria.weight import bn_scale, geometric_median, has_bn_scale, l1, l2, random

__all__ = [
    "Consumer",
    "Criterion",
    "CriterionContext",
    "Need",
    "apoz",
    "bn_scale",
    "consumers",
    "criteria",
    "filter_rows",
    "geometric_median",
    "has_bn_scale",
    "in_order",
    "is_measured",
    "keep_best",
    "l1",
    "l2",
    "lasso",
    "load_or_score",
    "mean_activation",
    "need_of",
    "needs",
    "obs",
    "random",
    "score_groups",
    "taylor",
    "thinet",
]
