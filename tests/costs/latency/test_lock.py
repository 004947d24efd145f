"""The lock of a device: exclusive between processes, and released by the system when its holder is killed."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from automl_prune.costs.latency import Fingerprint, exclusive

HERE = Fingerprint("onnxruntime 1.0", "CPUExecutionProvider", "a processor", 2, 1, 1, "wall time")


def _hold(folder: str, held: Event) -> None:
    import tempfile

    tempfile.tempdir = folder
    with exclusive(HERE):
        held.set()
        time.sleep(600)


def test_measurements_of_different_kinds_take_turns_on_one_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for place in (HERE, replace(HERE, threads=2), replace(HERE, runtime="torch 2", batch_size=8)):
        with exclusive(place):
            pass
    assert len(list(tmp_path.rglob("*.lock"))) == 1
    with exclusive(replace(HERE, device="another")):
        pass
    assert len(list(tmp_path.rglob("*.lock"))) == 2


def test_a_killed_holder_frees_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), held))
    process.start()
    try:
        assert held.wait(120)
        entered = context.Event()
        waiter = context.Process(target=_hold, args=(str(tmp_path), entered))
        waiter.start()
        try:
            assert not entered.wait(3)
            process.kill()
            assert entered.wait(120)
        finally:
            waiter.kill()
            waiter.join()
    finally:
        process.kill()
        process.join()
    with exclusive(HERE):
        pass
