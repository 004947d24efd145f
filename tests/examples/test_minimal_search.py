from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "minimal_search.py"


def test_the_example_finds_a_front_within_its_budget() -> None:
    done = subprocess.run([sys.executable, EXAMPLE, "--trials", "12", "--epochs", "4"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^ *(\d+|dense) +([\d.]+)% +([\d.]+) %$", done.stdout, re.MULTILINE)
    assert rows[-1][0] == "dense"
    *front, dense = [(float(macs), float(score)) for _, macs, score in rows]
    assert front == sorted(front)
    assert all(macs <= 30 and score > 50 for macs, score in front)
    assert dense[0] == 100
