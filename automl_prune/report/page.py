"""report.html: one file that opens offline, needs nothing else, and is rebuilt from the study's record alone."""

from __future__ import annotations

from pathlib import Path

from automl_prune.files import write_text
from automl_prune.report.data import ReportData, collect
from automl_prune.report.document import document
from automl_prune.report.markup import section
from automl_prune.report.sections import ORDER
from automl_prune.study.record import StudyRecord


def build_report(record: StudyRecord, path: Path) -> Path:
    """Write the report of a study, in whatever state it is, atomically; an older report is replaced.

    Args:
        record: The study as of reading.
        path: The file to write, in the study's run directory (the commands on the page name that directory).

    Returns:
        ``path``.
    """
    write_text(path, render(collect(record, path.parent)))
    return path


def render(data: ReportData) -> str:
    """The whole page as text."""
    parts = {part.identifier: (part.title, section(part.identifier, part.title, part.render(data))) for part in ORDER}
    return document(data.context.name, f"Pruning report: {data.context.name}", data.progress, parts)
