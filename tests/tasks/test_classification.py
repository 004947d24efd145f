from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_prune.errors import DataError
from automl_prune.tasks import Task, move
from automl_prune.tasks.classification import Classification, stratified_holdout


def test_both_kinds_of_task_satisfy_the_protocol(digits_task: Classification, regression_task: Task) -> None:
    for task in (digits_task, regression_task):
        assert isinstance(task, Task)
        assert task.example_inputs[0].shape == (2, 1, 8, 8)
        batch = next(iter(task.batches("train", shuffle=0)))
        outputs = torch.randn(len(task.inputs(batch)[0]), 10 if task is digits_task else 2, requires_grad=True)
        loss = task.loss(outputs, batch)
        assert loss.shape == ()
        assert loss.requires_grad
        assert task.distillation_loss(outputs, outputs.detach()).item() == pytest.approx(0, abs=1e-6)
        assert task.distillation_loss(outputs, outputs.detach() + torch.randn_like(outputs)).item() > 0


def test_loss_and_distillation_match_their_formulas(digits_task: Classification) -> None:
    random = torch.Generator().manual_seed(0)
    logits, teacher = torch.randn(2, 5, 10, generator=random).double()
    labels = torch.tensor([0, 3, 9, 3, 1])
    expected = -sum(float(logits[i].log_softmax(0)[label]) for i, label in enumerate(labels)) / 5
    assert digits_task.loss(logits, (None, labels)).item() == pytest.approx(expected)
    soft, hard = (logits / 4).softmax(1), (teacher / 4).softmax(1)
    divergence = sum(float(p * math.log(p / q)) for p, q in zip(hard.flatten(), soft.flatten(), strict=True)) / 5
    assert digits_task.distillation_loss(logits, teacher).item() == pytest.approx(16 * divergence)


def test_score_counts_hits_and_gives_the_binomial_error(digits_task: Classification) -> None:
    batches = list(digits_task.batches("val"))
    right = [(torch.nn.functional.one_hot(labels, 10).float(), (images, labels)) for images, labels in batches]
    assert digits_task.score(right).value == 1
    assert digits_task.score(right).samples == 128
    always_three = [(torch.eye(10)[torch.full_like(labels, 3)], (images, labels)) for images, labels in batches]
    threes = sum(int((labels == 3).sum()) for _, labels in batches)
    score = digits_task.score(iter(always_three))
    assert score.value == threes / 128
    assert score.standard_error == pytest.approx(math.sqrt(score.value * (1 - score.value) / 128))
    labels = torch.cat([labels for _, labels in batches])
    assert score.right is not None
    assert score.right.tolist() == (labels == 3).double().tolist(), "in the split's order"
    with pytest.raises(DataError, match="no samples"):
        digits_task.score([])


def test_label_smoothing_is_used_and_checked(digits_task: Classification) -> None:
    smooth = Classification("digits", digits_task.images, label_smoothing=0.1)
    batch = (None, torch.tensor([0]))
    logits = torch.tensor([[20.0] + [0.0] * 9])
    assert smooth.loss(logits, batch).item() == pytest.approx(0.1 * 0.9 * 20, rel=1e-3)
    with pytest.raises(DataError, match=r"1\.5"):
        Classification("digits", digits_task.images, label_smoothing=1.5)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=80), st.data())
def test_holdout_is_disjoint_complete_and_stratified(labels: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(labels) - 1))
    tensor = torch.tensor(labels)
    kept, held = stratified_holdout(tensor, count, seed=3)
    assert sorted(kept.tolist() + held.tolist()) == list(range(len(labels)))
    assert len(held) == count
    for label in set(labels):
        share = labels.count(label) * count / len(labels)
        assert abs(int((tensor[held] == label).sum()) - share) < 1
    again = stratified_holdout(tensor, count, seed=3)
    assert torch.equal(again[1], held)


def test_holdout_depends_on_the_seed_and_refuses_impossible_sizes() -> None:
    labels = torch.arange(100) % 4
    assert not torch.equal(stratified_holdout(labels, 20, seed=0)[1], stratified_holdout(labels, 20, seed=1)[1])
    for count in (0, 100, 101):
        with pytest.raises(DataError, match=f"hold out {count} of 100"):
            stratified_holdout(labels, count, seed=0)


class Pair(NamedTuple):
    image: torch.Tensor
    label: int


def test_move_keeps_the_form_of_a_batch() -> None:
    batch = {"a": torch.zeros(1), "b": (torch.ones(2), [torch.ones(1)]), "c": "text", "d": Pair(torch.ones(1), 3)}
    moved = move(batch, torch.device("meta"))
    assert moved["a"].device.type == moved["b"][1][0].device.type == "meta"
    assert isinstance(moved["b"], tuple)
    assert moved["c"] == "text"
    assert (moved["d"].image.device.type, moved["d"].label) == ("meta", 3)
