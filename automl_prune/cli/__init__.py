"""The command ``automl-prune``. Every command is a thin call of ``api``; heavy imports wait until one runs."""

from automl_prune.cli.command import app, main

__all__ = ["app", "main"]
