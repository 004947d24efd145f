"""What the command line draws: the display of a running command, and tables of results."""

from automl_prune.terminal.display import Terminal
from automl_prune.terminal.tables import compressed_as_table, sensitivity_tables, sparsified_tables

__all__ = ["Terminal", "compressed_as_table", "sensitivity_tables", "sparsified_tables"]
