"""Files and directories are whole or absent, whatever happens while they are made; and what is left is swept."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from automl_prune.errors import CheckpointError, Interrupted
from automl_prune.files import atomic_path, load_tensors, published, save_tensors, sweep, write_json, write_text
from tests.study import processes
from tests.study.processes import kill, wait_for_end, wait_until


def full_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full once so many bytes are written through a text or binary file."""

    def write_text(self: Path, text: str, encoding: str) -> None:
        with self.open("w", encoding=encoding) as file:
            file.write(text[:count])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_text)


def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "front.json"
    write_json(path, {"old": 1})
    before = path.read_bytes()
    full_after(3, monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"new": 2})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_failure_after_the_content_leaves_the_old_file(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"a": torch.ones(3)})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os if failing == "fsync" else Path, failing, full)
    with pytest.raises(OSError, match="No space left"):
        save_tensors(path, {"a": torch.zeros(3)})
    assert torch.equal(load_tensors(path)[0]["a"], torch.ones(3))
    assert list(tmp_path.iterdir()) == [path]


def test_one_damaged_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    shared = torch.ones(3)
    save_tensors(path, {"a": shared, "b": shared, "c": shared[:2]}, {"by": "test"})
    tensors, metadata = load_tensors(path)
    assert metadata == {"by": "test"}
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"a": [1] * 3, "b": [1] * 3, "c": [1] * 2}
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_tensors(path)


def test_a_published_directory_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "17"

    def write(text: str, *, fail: bool = False) -> None:
        with published(target) as work:
            (work / "a").write_text(text)
            if fail:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write("half", fail=True)
    assert list(tmp_path.iterdir()) == []
    write("one")
    with pytest.raises(KeyboardInterrupt):
        write("half", fail=True)
    assert (target / "a").read_text() == "one"
    write("two")
    assert (target / "a").read_text() == "two"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("fault", [OSError("disk full"), Interrupted("stopped by SIGTERM"), KeyboardInterrupt("stop")])
def test_the_older_directory_comes_back_when_it_cannot_be_replaced(
    fault: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "17"
    target.mkdir()
    (target / "a").write_text("one")
    rename = Path.rename

    def failing(self: Path, destination: Path) -> Path:
        if self.name == "new":
            raise fault
        return rename(self, destination)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(type(fault), match=r"disk full|stop"), published(target) as work:
        (work / "a").write_text("two")
    assert (target / "a").read_text() == "one"
    assert list(tmp_path.iterdir()) == [target]


def stop_while_making(directory: Path, kind: str) -> None:
    """Write one file or directory, and stop in the middle."""
    with atomic_path(directory / "file") if kind == "file" else published(directory / "17") as temporary:
        (temporary if kind == "file" else temporary / "a").write_text("half", encoding="utf-8")
        os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_a_killed_process_was_making_is_swept_and_nothing_else(kind: str, tmp_path: Path) -> None:
    write_text(tmp_path / ".user.tmp", "a file of somebody else's")
    maker = processes.start(stop_while_making, tmp_path, kind)
    wait_until(lambda: any(tmp_path.glob(".*.tmp/file")) or any(tmp_path.glob(".*.tmp/new/a")), maker)
    sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2, "its process still lives"
    kill(maker)
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".user.tmp"]
    sweep(tmp_path / "absent")


def die_while_replacing(directory: Path) -> None:
    """Be killed when the old directory is away and the new one not there yet."""
    rename = Path.rename

    def dying(self: Path, target: Path) -> Path:
        if self.name == "new":
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)

    Path.rename = dying  # type: ignore[assignment,method-assign]  # the process is this function's own
    with published(directory / "17") as new:
        (new / "a").write_text("two", encoding="utf-8")


def test_directory_that_was_to_be_replaced_comes_back(tmp_path: Path) -> None:
    with published(tmp_path / "17") as new:
        (new / "a").write_text("one", encoding="utf-8")
    wait_for_end(processes.start(die_while_replacing, tmp_path), -signal.SIGKILL)
    assert not (tmp_path / "17").exists()
    sweep(tmp_path)
    assert (tmp_path / "17" / "a").read_text(encoding="utf-8") == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["17"]


def test_place_that_was_swept_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    swept: list[int] = []

    def late(descriptor: int, kind: int) -> None:
        if not swept:
            swept.append(1)
            sweep(tmp_path)
        lock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    write_text(tmp_path / "file", "whole")
    assert swept
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_files_are_readable_by_whom_the_process_lets_read(tmp_path: Path) -> None:
    code = (
        "import os, pathlib; os.umask(0o077); from automl_prune.files import write_text; "
        "write_text(pathlib.Path('x'), 'secret')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600
    write_text(tmp_path / "y", "plain")
    (tmp_path / "z").write_text("plain")
    assert (tmp_path / "y").stat().st_mode == (tmp_path / "z").stat().st_mode
