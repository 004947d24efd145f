from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from automl_prune.report.sensitivity import noise, render_sensitivity, sensitivity_figure, write_sensitivity
from automl_prune.sensitivity import Point, Sensitivity
from automl_prune.tasks import Metric, Score

ACCURACY = Metric("accuracy", higher_is_better=True, percent=True)
RESULT = Sensitivity(
    ACCURACY,
    "l1",
    (0.5, 0.75),
    {"a": 4, "<b>": 8},
    Score.of_proportion(900, 1000),
    tuple(
        Point(variant, group, keep, Score(0.9 - loss, 1000, 0.01))
        for variant, factor in (("plain", 1.0), ("reconstructed", 0.5))
        for group, keep, loss in (
            ("a", 2, 0.1 * factor),
            ("a", 1, 0.2 * factor),
            ("<b>", 4, 0.04 * factor),
            ("<b>", 2, 0),
        )
    ),
)


def test_the_heat_map_holds_drops_in_points_by_group_and_ratio() -> None:
    drawing = sensitivity_figure(RESULT, "plain")
    (heat,) = drawing.data
    assert [list(row) for row in heat.z] == [pytest.approx([10, 4]), pytest.approx([20, 0])]
    assert list(heat.x) == ["a", "&lt;b&gt;"]
    assert list(heat.y) == ["50.0 %", "75.0 %"]
    assert heat.colorbar.title.text == "drop [points]"
    assert "prune ratio" in drawing.layout.yaxis.title.text
    other = sensitivity_figure(RESULT, "reconstructed").data[0]
    assert (other.zmin, other.zmax) == (heat.zmin, heat.zmax) == (0, pytest.approx(20)), "one scale for all variants"


def test_the_csv_holds_every_number(tmp_path: Path) -> None:
    page = write_sensitivity(RESULT, tmp_path, "net")
    assert page.read_text() == render_sensitivity(RESULT, "net")
    frame = pd.read_csv(tmp_path / "sensitivity.csv")
    assert len(frame) == 8
    row = frame[(frame.variant == "plain") & (frame.group == "a") & (frame.prune_ratio == 0.75)].iloc[0]
    assert (row.kept, row.width, row.samples) == (1, 4, 1000)
    assert row["drop"] == pytest.approx(0.2)
    assert row.accuracy == pytest.approx(row.dense_accuracy - row["drop"])
    assert row.dense_standard_error == pytest.approx((0.9 * 0.1 / 1000) ** 0.5)


def test_the_page_says_what_is_noise_and_escapes_names() -> None:
    page = render_sensitivity(RESULT, "net")
    assert "90.00 ± 1.86 % (accuracy, 1,000 validation samples)" in noise(RESULT)
    assert "drops below that may be noise" in page
    assert "<b>" not in page.split("<script>")[0]
    assert "Pruned, reconstructed" in page
