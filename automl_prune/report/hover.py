"""What appears when the pointer rests on a mark: everything about one model, in a few escaped lines."""

from __future__ import annotations

import html

from automl_prune.candidate import Candidate

_MAX_WIDTHS = 80


def safe(text: str) -> str:
    """Plotly reads a few HTML tags in texts; names from a user's model or configuration must not become any."""
    return html.escape(text, quote=False)


def keep(candidate: Candidate, group: str, dense: int) -> int:
    """Kept width; a group the candidate does not name keeps all its channels."""
    choice = candidate.choices.get(group)
    return choice.keep if choice else dense


def criterion(candidate: Candidate, group: str) -> str:
    """The criterion that chose a group's channels, in words."""
    choice = candidate.choices.get(group)
    return choice.criterion if choice else "none, all channels kept"
