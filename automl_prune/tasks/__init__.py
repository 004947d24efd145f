"""Data sets with their loss and metric."""

from automl_prune.tasks import cifar, digits, folders, images  # noqa: F401  # importing registers their tasks
from automl_prune.tasks.base import Batches, Metric, Preprocessing, Score, Split, Task, move, tasks

__all__ = ["Batches", "Metric", "Preprocessing", "Score", "Split", "Task", "move", "tasks"]
