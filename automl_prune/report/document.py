"""A self-contained page around sections that are HTML already: it opens offline and fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from plotly.offline import get_plotlyjs

from automl_prune.report.markup import text

# The browser itself then refuses every network request, whatever a string on the page tries.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


def document(title: str, heading: str, subtitle: str, sections: Mapping[str, tuple[str, str]]) -> str:
    """The page as text.

    Args:
        title: Of the browser's window.
        heading: Of the page.
        subtitle: One sentence below it.
        sections: By identifier: what its link says, and its HTML.
    """
    body = "\n".join(html for _, html in sections.values())
    links = "\n".join(f'<a href="#{identifier}">{text(name)}</a>' for identifier, (name, _) in sections.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)} – automl-prune</title>
<style>{asset("style.css")}</style>
</head>
<body>
<header>
<h1>{text(heading)}</h1>
<p class="soft">{text(subtitle)}</p>
<nav aria-label="Sections">
{links}
</nav>
<noscript><p>Scripts are off: the figures are not drawn, the tables hold the same numbers.</p></noscript>
</header>
<main>
{body}
</main>
<footer><p>Written by automl-prune from recorded results. This file needs no network.</p></footer>
<script>{get_plotlyjs()}</script>
<script>{asset("page.js")}</script>
<script>{asset("front.js")}</script>
</body>
</html>
"""


def asset(name: str) -> str:
    """A file of ``report/assets``, as text."""
    return files("automl_prune.report").joinpath("assets", name).read_text(encoding="utf-8")
