"""Data sets with their loss and metric."""

from automl_prune.tasks import images as _images  # registers its tasks
from automl_prune.tasks.base import Batches, Metric, Preprocessing, Score, Split, Task, move, tasks

__all__ = ["Batches", "Metric", "Preprocessing", "Score", "Split", "Task", "move", "tasks"]
del _images
