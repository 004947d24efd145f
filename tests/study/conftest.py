"""The tests of this room share a synthetic search, which also runs as a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:  # pytest's importlib mode leaves it out, and tests/ is no package
    sys.path.insert(0, str(ROOT))
