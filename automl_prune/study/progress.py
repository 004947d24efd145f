"""How far a study is, as of now, whoever works on it; cheap enough to be asked every two seconds."""

from __future__ import annotations

from dataclasses import dataclass

from automl_prune.study.ledger import Ledger
from automl_prune.study.storage import StudyStorage


@dataclass(frozen=True, slots=True)
class Progress:
    """Finished points of a study and the best score among them (None without one)."""

    finished: int
    best: float | None


def progress(storage: StudyStorage, name: str | None, requested: int, *, higher_is_better: bool) -> Progress:
    """The progress towards ``requested`` trials."""
    chains = Ledger(storage, name).chains()[:requested]
    scores = [chain.current.values[0] for chain in chains if chain.state == "complete"]
    best = max if higher_is_better else min
    return Progress(sum(chain.finished for chain in chains), best(scores) if scores else None)
