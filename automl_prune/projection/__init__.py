"""From a point of the search space to widths within the budget: the projection and what allocates widths."""

from automl_prune.projection.projector import Projector

__all__ = ["Projector"]
