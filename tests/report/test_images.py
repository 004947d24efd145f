from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import plotly.io
import pytest

from automl_prune.errors import ReportError
from automl_prune.report import images
from automl_prune.report.data import collect
from automl_prune.report.images import FORMATS, SCALE, WIDTH, static_figures, write_figures
from automl_prune.study.record import StudyRecord

MakeRecord = Callable[..., StudyRecord]


# The dev extra brings Kaleido, but the browser that it drives is no Python package: `make test` cannot bring one.
@pytest.mark.skipif(importlib.util.find_spec("kaleido") is None, reason="kaleido is not installed (extra figures)")
@pytest.mark.skipif(not (shutil.which("chromium") or shutil.which("google-chrome")), reason="no Chromium is installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:kaleido", "ignore::ResourceWarning")  # its event loop
def test_figures_are_drawn_as_svg_and_png(
    make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = dict(list(static_figures(collect(make_record(), tmp_path)))[:2])
    monkeypatch.setattr(images, "static_figures", lambda data: two.items())
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "old.svg").write_text("of an earlier call")
    files = write_figures(make_record(), tmp_path / "figures")
    assert sorted(files) == sorted((tmp_path / "figures").iterdir()), "nothing of an earlier call is left"
    assert len(files) == len(FORMATS) * len(two)
    svg, png = files[:2]
    texts = "".join(ElementTree.parse(svg).getroot().itertext())
    assert "test accuracy [%] (higher is better)" in texts
    assert png.read_bytes()[16:20] == (WIDTH * SCALE).to_bytes(4, "big"), "the PNG's width"


def test_every_section_with_a_figure_gives_it(make_record: MakeRecord, tmp_path: Path) -> None:
    found = dict(static_figures(collect(make_record(trials=60), tmp_path)))
    assert {"front_finalists_macs", "front_search_params", "widths", "criteria", "history", "importance"} <= set(found)
    assert {"workers", "rungs_0_1"} <= set(found)
    for figure in found.values():
        assert figure.layout.paper_bgcolor == "#ffffff"
        assert "selected" not in {trace.name for trace in figure.data}
    assert dict(static_figures(collect(make_record(trials=0, finalists=0), tmp_path))) == {}


def test_what_is_missing_is_named_and_nothing_is_half_written(
    make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ReportError, match="no completed trial"):
        write_figures(make_record(trials=0, finalists=0), tmp_path / "figures")

    def no_browser(*_: object, **__: object) -> None:
        raise RuntimeError("Kaleido requires Google Chrome to be installed.\nmore")

    monkeypatch.setattr(plotly.io, "write_images", no_browser)
    with pytest.raises(ReportError, match="install chromium") as raised:
        write_figures(make_record(trials=12), tmp_path / "figures")
    assert "more" not in str(raised.value)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ReportError, match=r"automl-prune\[figures\]"):
        write_figures(make_record(trials=12), tmp_path / "figures")
    assert list(tmp_path.iterdir()) == []
