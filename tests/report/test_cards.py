from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from automl_prune.candidate import Candidate, GroupChoice
from automl_prune.report.cards import cards, shared
from automl_prune.report.data import collect
from automl_prune.study.record import StudyRecord

MakeRecord = Callable[..., StudyRecord]


def test_a_card_holds_scores_costs_widths_and_criteria(make_record: MakeRecord) -> None:
    record = make_record()
    data = collect(record, Path("runs/x"))
    found, common = cards(data), shared(data)
    assert set(found) == {t.number for t in record.trials if t.evaluation}
    number = record.finalists[0].trial
    facts = dict(found[number]["facts"])
    assert {"MACs", "parameters", "accuracy, test (3 seeds)", "accuracy, validation (rung 1)"} <= set(facts)
    assert "±" in facts["accuracy, test (3 seeds)"]
    candidate = next(t.evaluation.candidate for t in record.trials if t.number == number and t.evaluation)
    names = [name for name, _ in common["groups"]]
    assert found[number]["kept"] == [candidate.choices[name].keep for name in names]
    criteria = found[number]["criteria"]
    indices = criteria if isinstance(criteria, list) else [criteria] * len(names)
    assert [common["criteria"][i] for i in indices] == [candidate.choices[name].criterion for name in names]
    assert len(json.dumps(found)) < 1000 * len(found), "5000 of them must fit a page"


def test_a_card_says_what_the_search_corrected(make_record: MakeRecord) -> None:
    record = make_record()
    trials = tuple(replace(trial, point={**trial.point, "allocation": "knapsack"}) for trial in record.trials)
    found = cards(collect(replace(record, trials=trials), Path("runs/x")))
    origins = {trial.number: trial.origin for trial in trials if trial.evaluation}
    said = {number: dict(card["facts"]).get("widths corrected from") for number, card in found.items()}
    assert said == {number: "knapsack ones" if origin == "search" else None for number, origin in origins.items()}


def test_a_group_without_a_choice_keeps_everything(make_record: MakeRecord) -> None:
    record = make_record(finalists=0)
    first = record.trials[0]
    assert first.evaluation is not None
    evaluation = replace(first.evaluation, candidate=Candidate({"conv1": GroupChoice(3, "l1")}))
    data = collect(replace(record, trials=(replace(first, evaluation=evaluation), *record.trials[1:])), Path("x"))
    card = cards(data)[0]
    assert card["kept"] == [3, *list(record.context.group_widths.values())[1:]]
    assert card["criteria"][1:] == [-1] * (len(record.context.group_widths) - 1)


def test_files_are_named_when_they_are_there_and_over_budget_is_never_exported(
    make_record: MakeRecord, tmp_path: Path
) -> None:
    record = make_record()
    number = record.finalists[0].trial
    folder = tmp_path / "models" / str(number)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    found = cards(collect(record, tmp_path))
    assert str(folder) in found[number]["note"]
    assert any("load_pruned" in line for _, line in found[number]["commands"])
    assert "commands" not in found[record.finalists[1].trial]
    assert found[12]["exportable"] is False
    assert "Over budget" in found[12]["note"]
