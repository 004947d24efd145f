"""Searches logged elsewhere, from the events that their view is told: MLflow, TensorBoard (optional extras)."""

from automl_prune.loggers.logged import logged

__all__ = ["logged"]
