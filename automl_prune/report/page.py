"""report.html: one file that opens offline, needs nothing else, and is rebuilt from the study's record alone."""

from __future__ import annotations

from pathlib import Path

from plotly.offline import get_plotlyjs

from automl_prune.files import write_text
from automl_prune.report import sections
from automl_prune.report.assets import SCRIPT, STYLE
from automl_prune.report.data import ReportData, collect
from automl_prune.report.markup import text
from automl_prune.study.record import StudyRecord

# The browser itself then refuses every network request, whatever a string on the page tries.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


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
    body = "\n".join(section(data) for _, _, section in sections.ORDER)
    links = "\n".join(f'<a href="#{identifier}">{text(title)}</a>' for identifier, title, _ in sections.ORDER)
    name = text(data.context.name)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} – automl-prune</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>Pruning report: {name}</h1>
<p class="soft">{text(data.progress)}</p>
<nav aria-label="Sections">
{links}
</nav>
<noscript><p>Scripts are off: the figures are not drawn, the tables hold the same numbers.</p></noscript>
</header>
<main>
{body}
</main>
<footer><p>Written by automl-prune from the study's record. This file needs no network.</p></footer>
<script>{get_plotlyjs()}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""
