"""The public functions. Each is a short script over the layers below; the command line calls the same ones."""

from __future__ import annotations

from automl_prune.api.analysing import sensitivity
from automl_prune.api.comparing import compare
from automl_prune.api.compressing import one_shot, one_shot_config
from automl_prune.api.exporting import export
from automl_prune.api.launching import Ray, Team, storage_proxy, worker
from automl_prune.api.profiling import Profile, profile
from automl_prune.api.progressing import progressive_config
from automl_prune.api.reading import budget_of, front, read, report, status, verdict
from automl_prune.api.retargeting import retarget
from automl_prune.api.running import SearchResult
from automl_prune.api.searching import search, search_config
from automl_prune.api.serving import dashboard
from automl_prune.api.sparsifying import sparsify
from automl_prune.api.training import train

__all__ = [
    "Profile", "Ray", "SearchResult", "Team", "budget_of", "compare", "dashboard", "export", "front", "one_shot",
    "one_shot_config", "profile", "progressive_config", "read", "report", "retarget", "search", "search_config",
    "sensitivity", "sparsify", "status",
    "storage_proxy", "train", "verdict", "worker",
]  # fmt: skip
