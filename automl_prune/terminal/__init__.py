"""What the command line draws: the display of a running command, and tables of results."""

from automl_prune.terminal.display import Terminal, open_terminal
from automl_prune.terminal.tables import comparison_tables, compressed_as_table, sensitivity_tables, sparsified_tables

__all__ = [
    "Terminal", "comparison_tables", "compressed_as_table", "open_terminal", "sensitivity_tables", "sparsified_tables",
]  # fmt: skip
