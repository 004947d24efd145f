from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from automl_prune.files import save_tensors, tensors_digest, write_sealed
from automl_prune.report.data import collect
from automl_prune.report.sections.sensitivity import analyses, render
from automl_prune.study.record import StudyRecord
from automl_prune.tasks import Score

MakeRecord = Callable[..., StudyRecord]


def stored(folder: Path, model: str, record: StudyRecord, groups: dict[str, list[int]]) -> None:
    points = [
        {"group": group, "keep": keep, "score": asdict(Score(0.9 - 0.01 * index, 500, 0.01))}
        for index, (group, keeps) in enumerate(groups.items())
        for keep in keeps
    ]
    identity = {"model": model, "criterion": "l1", "metric": asdict(record.context.metric)}
    content = {"identity": identity, "variant": "norms recalibrated", "ratios": [0.5], "points": points}
    write_sealed(folder / f"{model}.json", {**content, "dense": asdict(Score(0.93, 500, 0.01))})


def test_analyses_of_the_studys_model_are_drawn_and_others_passed_over(make_record: MakeRecord, tmp_path: Path) -> None:
    record = make_record()
    record = replace(record, context=replace(record.context, group_widths={"a": 16, "b": 8, "c": 4}))
    tensors = {"weight": torch.ones(3)}
    save_tensors(tmp_path / "baseline.safetensors", tensors)
    folder = tmp_path / "sensitivity"
    folder.mkdir()
    data = collect(record, tmp_path)
    assert "automl-prune sensitivity" in render(data), "nothing there yet"
    stored(folder, "another", record, {"a": [8], "b": [4], "c": [2]})
    assert analyses(data) == []
    stored(folder, tensors_digest(tensors), record, {"a": [8], "b": [4]})
    ((result, variant),) = analyses(data)
    assert (list(result.widths), variant) == (["a", "b"], "norms recalibrated")
    html = render(data)
    assert "unfinished: 2 of 3 groups" in html
    assert "With 50.0 % removed, b loses most (+4.00 points) and a least (+3.00 points)" in html
