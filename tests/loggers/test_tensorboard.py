from __future__ import annotations

import sys
from pathlib import Path

import pytest

from automl_prune.errors import ConfigError
from automl_prune.loggers import logged
from automl_prune.view import Silent
from tests.loggers.synthetic import NUMBERS, RECORD, SHUFFLED, check, play, play_end

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read_back(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], dict[str, list[tuple[int, str]]]]:
    """(scalars, texts) by name, each a list of (step, value), as TensorBoard reads them."""
    everything = event_accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    everything.Reload()
    scalars = {name: [(e.step, e.value) for e in everything.Scalars(name)] for name in everything.Tags()["scalars"]}
    texts = {
        name.removesuffix("/text_summary"): [
            (e.step, e.tensor_proto.string_val[0].decode()) for e in everything.Tensors(name)
        ]
        for name in everything.Tags()["tensors"]
    }
    return scalars, texts


def test_a_search_is_read_back_by_tensorboard_whatever_order_its_trials_end_in(tmp_path: Path) -> None:
    with logged(Silent(), [f"tensorboard:{tmp_path / 'tb'}"], tmp_path / "run") as view:
        play(view, SHUFFLED)
        play_end(view, tmp_path / "run")
    scalars, texts = read_back(tmp_path / "tb" / "run")
    check(scalars)
    assert "strategy: tpe" in texts["config"][0][1]
    assert "15618368" in texts["budget"][0][1]
    assert "torch" in texts["environment"][0][1]
    assert texts["trial/origin"] == [(t.number, t.origin) for t in RECORD.trials if t.origin != "search"]
    assert "automl-prune" in texts["summary"][0][1]


def test_a_resumed_search_is_read_back_as_one(tmp_path: Path) -> None:
    for order, earlier in ((NUMBERS[:7], ()), (NUMBERS[7:12], NUMBERS[:7]), (NUMBERS[12:], NUMBERS[:12])):
        with logged(Silent(), [f"tensorboard:{tmp_path / 'tb'}"], tmp_path / "run") as view:
            play(view, order, earlier=earlier)
            if len(order) + len(earlier) == 30:
                play_end(view, tmp_path / "run")
    check(read_back(tmp_path / "tb" / "run")[0])


def test_without_the_extra_the_message_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with (
        pytest.raises(ConfigError, match=r"pip install 'automl-prune\[tensorboard\]'"),
        logged(Silent(), ["tensorboard:tb"], tmp_path),
    ):
        pass
