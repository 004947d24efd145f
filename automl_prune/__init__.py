"""Budgeted structured pruning of vision models: from a trained network and a budget to a verified Pareto front.

The public names are loaded when they are first used, so that ``automl-prune --help`` never loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automl_prune.api import SearchResult as SearchResult
    from automl_prune.api import one_shot as one_shot
    from automl_prune.api import retarget as retarget
    from automl_prune.api import search as search
    from automl_prune.budget import Budget as Budget
    from automl_prune.channels import ChannelGraph as ChannelGraph
    from automl_prune.channels import Plan as Plan
    from automl_prune.channels import prove as prove
    from automl_prune.channels import prune as prune
    from automl_prune.export import load_pruned as load_pruned
    from automl_prune.space import Space as Space

_HOMES = {
    "Budget": "automl_prune.budget",
    "ChannelGraph": "automl_prune.channels",
    "Plan": "automl_prune.channels",
    "SearchResult": "automl_prune.api",
    "Space": "automl_prune.space",
    "load_pruned": "automl_prune.export",
    "one_shot": "automl_prune.api",
    "prove": "automl_prune.channels",
    "prune": "automl_prune.channels",
    "retarget": "automl_prune.api",
    "search": "automl_prune.api",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605  # ruff cannot see that it is a list


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'automl_prune' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
