from __future__ import annotations

from automl_prune.text_plot import Axis, Series, scatter

X, Y = Axis("cost", lambda value: f"{value:.2f}"), Axis("score", lambda value: f"{value:.1f}")


def test_points_lie_where_they_belong_and_later_series_cover_earlier_ones() -> None:
    dots, rings = Series("·", "rest", [(0, 0), (1, 1), (0.5, 0.5)]), Series("o", "best", [(1, 1)])
    text = scatter([dots, rings], X, Y, width=60, height=11)
    lines = text.splitlines()
    plane = {(line.index(mark), row) for row, line in enumerate(lines[1:12]) for mark in "·o" if mark in line}
    assert len(plane) == 3
    (left, bottom), (middle, centre), (right, top) = sorted(plane)
    assert (bottom, centre, top) == (10, 5, 0)
    assert middle - left == right - middle
    assert lines[0].strip() == "score"
    assert lines[-1].strip() == "· rest   o best"
    assert lines[-2].split() == ["-0.04", "cost", "1.04"]
    assert all(len(line) <= 60 for line in lines)


def test_one_point_is_drawn_and_none_is_no_plot() -> None:
    assert scatter([Series("x", "a", [(3.0, 3.0)])], X, Y, width=40, height=5).count("x") == 2  # and in the legend
    assert scatter([Series("x", "a", [])], X, Y, width=40, height=5) == ""


def test_a_series_without_points_is_not_in_the_legend() -> None:
    assert "none" not in scatter([Series("x", "a", [(0, 0)]), Series("o", "none", [])], X, Y, width=40, height=5)
