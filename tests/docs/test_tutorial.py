from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Reader


@pytest.mark.pages
@pytest.mark.timeout(3000)
def test_the_tutorial_runs_from_images_to_an_onnx_file_that_classifies(tmp_path: Path) -> None:
    quick = ("search.trials=9", "evaluation.finetune_steps=4", "evaluation.finalists=1")
    printed = Reader(tmp_path, quick).follow(ROOT / "docs" / "tutorial.md")
    exported = [path.parent for path in (tmp_path / "runs/patterns/models").glob("*/manifest.json")]
    ratios = [json.loads((path / "manifest.json").read_text())["costs"]["macs"]["ratio"] for path in exported]
    assert ratios
    assert max(ratios) <= 0.5
    assert min(ratios) <= 0.45, "the model that was exported for another budget"
    classified = re.findall(r"^patterns/val/(\w+)/0\.png (\w+)$", printed, re.MULTILINE)
    assert len(classified) == 3
    assert sum(truth == said for truth, said in classified) >= 2
    assert re.search(r"^\d+ torch\.Size\(\[1, 3\]\)$", printed, re.MULTILINE)
