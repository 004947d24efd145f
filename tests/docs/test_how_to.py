from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Reader


@pytest.mark.pages
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ("data", "protected: fc (10 channels)"),
        ("criterion", "parameters"),
        ("latency", "all that is no layer"),
        ("resume", "6 of 6 trials finished"),
    ],
)
def test_a_how_to_runs_as_it_is_written(page: str, shown: str, tmp_path: Path) -> None:
    assert shown in Reader(tmp_path).follow(ROOT / "docs" / "how-to" / f"{page}.md")
