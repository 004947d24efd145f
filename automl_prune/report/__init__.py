"""What a study found, for people: the front as a table, and one self-contained HTML page."""

from automl_prune.report.images import dashboard_figures, write_figures
from automl_prune.report.page import build_report
from automl_prune.report.summary import write_summary
from automl_prune.report.table import FrontRow, front_table, write_front

__all__ = [
    "FrontRow",
    "build_report",
    "dashboard_figures",
    "front_table",
    "write_figures",
    "write_front",
    "write_summary",
]
