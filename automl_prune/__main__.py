"""``python -m automl_prune`` is the command ``automl-prune``."""

from automl_prune.cli import main

main()
