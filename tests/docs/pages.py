"""Code in Markdown pages: what it is, and running it as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_OVERRIDABLE = ("search", "train", "one-shot", "sensitivity", "progressive", "sparsify", "profile")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file it is to be written to (if any), its text."""

    language: str
    file: str | None
    text: str


def blocks(page: Path) -> Iterator[Block]:
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield Block(match[1], match[2], match[3])


def indented_commands(page: Path) -> Iterator[str]:
    """Commands in blocks indented by four spaces, README's way."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"^    ((?:automl-prune|make|python) .*?)(?:  +#.*)?$", text, re.MULTILINE)


class Reader:
    """Follows a page in a folder of its own; ``automl-prune`` and ``python`` are those of this environment.

    Args:
        folder: Where files are written and commands run.
        sets: Overrides (``a.b=value``) that every command with a configuration gets, to make it short.
    """

    def __init__(self, folder: Path, sets: tuple[str, ...] = ()) -> None:
        self._folder = folder
        programs = folder / ".bin"
        programs.mkdir(parents=True)
        overrides = " ".join(f"--set '{value}'" for value in sets)
        self._write(programs / "python", f'exec {sys.executable} "$@"\n')
        self._write(
            programs / "automl-prune",
            f'case "$1" in\n{"|".join(_OVERRIDABLE)}) exec {sys.executable} -m automl_prune "$@" {overrides} ;;\n'
            f'*) exec {sys.executable} -m automl_prune "$@" ;;\nesac\n',
        )
        path = os.pathsep.join((str(programs), os.environ["PATH"]))
        self._environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "140"}

    def run(self, command: str) -> str:
        """What a shell command prints; it must succeed."""
        done = subprocess.run(
            ["bash", "-euc", command], cwd=self._folder, env=self._environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def follow(self, page: Path) -> str:
        """Write every block with a title to its file, run every block of shell; returns what was printed."""
        printed = []
        for block in blocks(page):
            if block.file:
                (self._folder / block.file).parent.mkdir(parents=True, exist_ok=True)
                (self._folder / block.file).write_text(block.text, encoding="utf-8")
            elif block.language == "bash":
                printed.append(self.run(block.text))
        return "\n".join(printed)

    def _write(self, path: Path, script: str) -> None:
        path.write_text("#!/usr/bin/env bash\n" + script)
        path.chmod(0o755)
