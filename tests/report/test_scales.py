from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from automl_prune.report.scales import ScaleChange, histogram, render_scales, scales_figure, write_scales

CHANGE = ScaleChange(
    "net <b>",
    "norm of all weights that compute a channel",
    0.01,
    "before: initial weights",
    before={"conv1": (1.0, 0.5, 0.25), "conv2": (2.0, 0.0)},
    after={"conv1": (0.8, 0.0, 0.0), "conv2": (1.5, 0.0)},
)


def test_the_histogram_counts_every_channel_once_and_zeros_apart() -> None:
    lefts, before, after = histogram(CHANGE)
    assert sum(before) == sum(after) == CHANGE.channels == 5
    assert (before[0], after[0]) == (1, 3)
    assert CHANGE.zeros == 3
    values = np.array([0.8, 1.5])
    for left, count in zip(lefts[1:], after[1:], strict=True):
        assert count == int(((values >= left - 1e-9) & (values < left + 2.0 / 60 - 1e-9)).sum())


def test_the_figure_draws_these_counts_with_titles() -> None:
    drawing = scales_figure(CHANGE)
    _, before, after = histogram(CHANGE)
    assert [list(trace.y) for trace in drawing.data] == [before, after]
    assert CHANGE.what in drawing.layout.xaxis.title.text
    assert drawing.layout.yaxis.title.text == "channels"


def test_page_and_numbers_are_written(tmp_path: Path) -> None:
    write_scales(CHANGE, tmp_path / "w.scales.html")
    page = (tmp_path / "w.scales.html").read_text(encoding="utf-8")
    assert page == render_scales(CHANGE)
    assert "3 of 5 channels (60.0 %) are exactly zero" in page
    assert "net <b>" not in page
    assert "net &lt;b&gt;" in page
    numbers = json.loads((tmp_path / "w.scales.json").read_text())
    assert numbers["after"] == {"conv1": [0.8, 0.0, 0.0], "conv2": [1.5, 0.0]}
