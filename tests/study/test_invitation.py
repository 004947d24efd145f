"""What a member takes from the study, on the synthetic search; with a real model: tests/test_joining.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from automl_prune.candidate import Candidate
from automl_prune.errors import StudyError
from automl_prune.evaluation.evaluator import Climb
from automl_prune.evaluation.record import Evaluation
from automl_prune.projection import Projector
from automl_prune.study.artifacts import open_artifacts
from automl_prune.study.invitation import invite, read_invitation, take_part
from automl_prune.study.runner import read_study, run_study, start_study
from automl_prune.study.spec import Event
from automl_prune.study.storage import open_storage
from tests.study.synthetic import evaluate, parameters, propose, rescored, spec

PROJECTOR = cast(Projector, SimpleNamespace(parameters=parameters(), candidate=propose, network=dict))


def flat(candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
    """Nothing beats the baselines, whose widths are all the same."""
    return rescored(evaluate(candidate, seed), 0.6 if len(set(candidate.widths.values())) == 1 else 0.5)


def test_a_member_stops_where_the_search_would_have_stopped(tmp_path: Path) -> None:
    request = replace(spec(40), patience=8)
    alone = run_study(request, open_storage(None, tmp_path / "alone"), propose, flat)
    storage = open_storage(None, tmp_path / "joined")
    start_study(request, storage)
    invite(storage, request.name, open_artifacts(tmp_path), {})
    events: list[Event] = []
    take_part(
        read_invitation(storage, None),
        storage,
        PROJECTOR,
        lambda candidate: candidate.digest,
        flat,
        device="cpu",
        number=0,
        on_event=events.append,
    )
    joined = read_study(storage)
    assert joined.stop == alone.stop is not None
    assert [trial.point for trial in joined.trials] == [trial.point for trial in alone.trials]
    assert events


def test_a_study_that_invites_nobody_is_named(tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path)
    start_study(spec(4), storage)
    with pytest.raises(StudyError, match="study 'synthetic' cannot be joined"):
        read_invitation(storage, "synthetic")
