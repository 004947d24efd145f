from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from automl_prune.candidate import Candidate, GroupChoice
from automl_prune.report.sections.widths import widths_figure
from automl_prune.study.record import StudyRecord
from tests.report.conftest import data_of, rows_of

MakeRecord = Callable[..., StudyRecord]


def test_heat_map_holds_kept_fractions_in_network_order(make_record: MakeRecord) -> None:
    data = data_of(make_record())
    rows = rows_of(data.front)
    (heat,) = widths_figure(data, rows).data
    assert list(heat.x) == list(data.context.group_widths)
    for row, fractions, counts in zip(rows, heat.z, heat.text, strict=True):
        assert list(counts) == [row.candidate.widths[name] for name in data.context.group_widths]
        assert list(fractions) == pytest.approx(
            [100 * row.candidate.widths[name] / width for name, width in data.context.group_widths.items()]
        )


def test_groups_a_candidate_leaves_out_keep_everything(make_record: MakeRecord) -> None:
    data = data_of(make_record(finalists=0))
    row = replace(rows_of(data.front)[0], candidate=Candidate({"conv1": GroupChoice(3, "l1")}))
    (heat,) = widths_figure(data, [row]).data
    assert list(heat.text[0]) == [3, *list(data.context.group_widths.values())[1:]]
