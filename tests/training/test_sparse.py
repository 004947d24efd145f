from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from automl_prune.candidate import Candidate, GroupChoice
from automl_prune.channels import ChannelGraph, ChannelGroup, Member, prune
from automl_prune.criteria import CriterionContext, bn_scale, l1, score_groups
from automl_prune.errors import CheckpointError, ConfigError, ModelError
from automl_prune.evaluation import Evaluator, Recipe, score
from automl_prune.models import resnet8
from automl_prune.seeding import generator, seeded
from automl_prune.tasks import Task
from automl_prune.training.baseline import Training, one_cycle, train
from automl_prune.training.sparse import ChannelLasso, Kind, Sparsity

CPU = torch.device("cpu")


class TwoTied(nn.Module):
    """Two layers that write the same three channels, as around a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3, bias=False), nn.Linear(2, 3, bias=False)

    @staticmethod
    def group() -> ChannelGroup:
        index = np.arange(3)[:, None]
        return ChannelGroup("a", 3, tuple(Member(f"{layer}.weight", 0, index, "producer") for layer in "ab"))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_training_ends_at_the_closed_form_of_the_group_lasso(momentum: float) -> None:
    """min 1/2 ||v - target||^2 + strength sqrt(2) ||v||: v = target max(0, 1 - strength sqrt(2) / ||target||)."""
    model, strength, rate = TwoTied(), 0.7, 0.1
    lasso = ChannelLasso(model, [TwoTied.group()], Sparsity("kernel", strength))
    parameters = dict(model.named_parameters())
    targets = {name: torch.randn(p.shape, generator=generator(name)) for name, p in parameters.items()}
    targets["a.weight"][1] *= 0.1
    targets["b.weight"][1] *= 0.1  # this channel is not worth its penalty
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum, nesterov=momentum > 0)
    for _ in range(200):
        optimizer.zero_grad()
        sum(
            ((parameters[name] - target).square().sum() / 2 for name, target in targets.items()), torch.zeros(())
        ).backward()
        optimizer.step()
        with torch.no_grad():
            lasso.shrink(parameters, rate / (1 - momentum))
    blocks = np.concatenate([target.double().numpy() for target in targets.values()], axis=1)
    norms = np.linalg.norm(blocks, axis=1, keepdims=True)
    expected = blocks * np.maximum(0, 1 - strength * np.sqrt(2) / norms)
    found = np.concatenate([p.detach().double().numpy() for p in parameters.values()], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found[1] == 0).all(), "exactly zero, not small"
    assert (found[[0, 2]] != 0).all()


def test_bn_is_the_l1_norm_where_one_layer_writes_and_joint_where_several_do(tiny_resnet: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in tiny_resnet.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(name)))
    graph = ChannelGraph.trace(tiny_resnet, (torch.zeros(2, 1, 8, 8),))
    lasso = ChannelLasso(tiny_resnet, graph.groups, Sparsity("bn", 0.5))
    before = {name: p.detach().clone().double().numpy() for name, p in tiny_resnet.named_parameters()}
    with torch.no_grad():
        lasso.shrink(dict(tiny_resnet.named_parameters()), 0.4)
    expected = dict(before)
    norms = {f"{name}.weight" for name, module in tiny_resnet.named_modules() if isinstance(module, nn.BatchNorm2d)}
    counts = set()
    for group in graph.groups:
        scales = sorted({member.parameter for member in group.members} & norms)
        counts.add(len(scales))
        if len(scales) == 1:
            value = before[scales[0]]
            expected[scales[0]] = np.sign(value) * np.maximum(np.abs(value) - 0.2, 0)
        else:
            size = np.sqrt(sum(before[name] ** 2 for name in scales))
            for name in scales:
                expected[name] = before[name] * np.maximum(0, 1 - 0.2 * np.sqrt(len(scales)) / size)
    assert 1 in counts
    assert max(counts) > 1
    for name, parameter in tiny_resnet.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), expected[name], atol=1e-6, err_msg=name)


def test_scales_are_what_the_criteria_see(tiny_resnet: nn.Module) -> None:
    graph = ChannelGraph.trace(tiny_resnet, (torch.zeros(2, 1, 8, 8),))
    lasso = ChannelLasso(tiny_resnet, graph.groups, Sparsity("bn", 1.0))
    scales = lasso.scales(dict(tiny_resnet.named_parameters()))
    assert list(scales) == list(graph.widths)
    for name, width in graph.widths.items():
        torch.testing.assert_close(scales[name], torch.ones(width), msg=name)  # torch starts every scale at 1


@pytest.fixture(scope="module")
def trained(digits_task: Task) -> dict[str, nn.Module]:
    """The same network trained plainly and with either penalty."""
    with seeded("sparse"):
        model = resnet8(num_classes=10, in_channels=1, width=8)
    graph = ChannelGraph.trace(model, digits_task.example_inputs)
    kinds: dict[str, Kind | None] = {"plain": None, "bn": "bn", "kernel": "kernel"}
    return {
        name: train(
            model,
            digits_task,
            Training(epochs=20),
            seed=0,
            device=CPU,
            regulariser=ChannelLasso(model, graph.groups, Sparsity(kind, 0.03 if kind == "bn" else 0.035))
            if kind
            else None,
        )
        for name, kind in kinds.items()
    }


def test_penalised_channels_are_exactly_zero_and_others_are_not(
    trained: dict[str, nn.Module], digits_task: Task
) -> None:
    graph = ChannelGraph.trace(trained["plain"], digits_task.example_inputs)
    for name, criterion in (("bn", bn_scale), ("kernel", l1)):
        scores = {
            k: torch.cat([criterion(CriterionContext.of(m), g) for g in graph.groups]) for k, m in trained.items()
        }
        channels = len(scores[name])
        assert 0.1 * channels < int((scores[name] == 0).sum()) < 0.9 * channels, name
        assert int((scores["plain"] == 0).sum()) == 0, name
        assert score(trained[name], digits_task, "test", CPU).value > 0.7, name


def test_cutting_silent_channels_changes_no_output(trained: dict[str, nn.Module], digits_task: Task) -> None:
    model = trained["kernel"]
    graph = ChannelGraph.trace(model, digits_task.example_inputs)
    context = CriterionContext.of(model)
    alive = {g.name: l1(context, g).nonzero().flatten().tolist() or [0] for g in graph.groups}
    small = prune(model, graph.plan(alive)).eval()
    images = torch.cat([digits_task.inputs(batch)[0] for batch in digits_task.batches("test")])
    with torch.no_grad():
        torch.testing.assert_close(small(images), model(images), rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("kind", "criterion"), [("bn", "bn_scale"), ("kernel", "l1")])
def test_sparse_trained_models_lose_less_when_they_are_pruned(
    trained: dict[str, nn.Module], digits_task: Task, kind: str, criterion: str
) -> None:
    scores = {}
    for name in ("plain", kind):
        graph = ChannelGraph.trace(trained[name], digits_task.example_inputs)
        ranked = {criterion: score_groups(graph.groups, CriterionContext.of(trained[name]), criterion)}
        evaluator = Evaluator(trained[name], graph, digits_task, ranked, Recipe(256), CPU)
        half = Candidate({group: GroupChoice(width // 2, criterion) for group, width in graph.widths.items()})
        scores[name] = evaluator.evaluate(half, 0).score.value
    assert scores[kind] > scores["plain"] + 0.1, scores


class Stop(Exception):  # noqa: N818  # not an error
    """Stands for an interruption."""


def test_a_sparse_training_resumes_to_the_bit_and_refuses_another_penalty(
    digits_task: Task, tiny_resnet: nn.Module, tmp_path: Path
) -> None:
    graph = ChannelGraph.trace(tiny_resnet, digits_task.example_inputs)
    lasso = ChannelLasso(tiny_resnet, graph.groups, Sparsity("kernel", 0.05))
    recipe, path = Training(epochs=2), tmp_path / "training.safetensors"

    def stop(done: int, _: int) -> None:
        if done == 11:
            raise Stop

    reference = train(tiny_resnet, digits_task, recipe, seed=0, device=CPU, regulariser=lasso)
    with pytest.raises(Stop):
        train(tiny_resnet, digits_task, recipe, seed=0, device=CPU, regulariser=lasso, checkpoint=path, on_step=stop)
    for other in (None, ChannelLasso(tiny_resnet, graph.groups, Sparsity("kernel", 0.06))):
        with pytest.raises(CheckpointError, match="different regulariser"):
            train(tiny_resnet, digits_task, recipe, seed=0, device=CPU, regulariser=other, checkpoint=path)
    resumed = train(tiny_resnet, digits_task, recipe, seed=0, device=CPU, regulariser=lasso, checkpoint=path)
    assert all(
        torch.equal(a, b) for a, b in zip(reference.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    plain = train(tiny_resnet, digits_task, recipe, seed=0, device=CPU)
    assert not torch.equal(next(plain.parameters()), next(resumed.parameters()))


def test_what_cannot_be_penalised_is_told() -> None:
    layer = nn.Conv2d(1, 4, 3)
    model = nn.Sequential(layer, nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    graph = ChannelGraph.trace(model, (torch.zeros(2, 1, 8, 8),))
    with pytest.raises(ModelError, match="use --sparse kernel"):
        ChannelLasso(model, graph.groups, Sparsity("bn", 1e-3))
    lasso = ChannelLasso(model, graph.groups, Sparsity("kernel", 1e-3))
    assert layer.bias is not None
    rows = np.column_stack([layer.weight.detach().reshape(4, -1).numpy(), layer.bias.detach().numpy()])
    scales = lasso.scales(dict(model.named_parameters()))
    np.testing.assert_allclose(scales["0"].numpy(), np.linalg.norm(rows, axis=1), rtol=1e-5)
    with pytest.raises(ConfigError, match="did you mean 'kernel'"):
        Sparsity("kernels", 1e-3)  # type: ignore[arg-type]  # what a caller without types may do
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match=f"training.sparse.bn is {wrong}"):
            Sparsity("bn", wrong)


def test_reach_is_the_way_of_a_channel_without_gradient() -> None:
    recipe, strength, steps = Training(epochs=1, learning_rate=0.02, momentum=0.5), 0.1, 40
    model = TwoTied()
    lasso = ChannelLasso(model, [TwoTied.group()], Sparsity("kernel", strength))
    parameters = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    before = lasso.scales(parameters)["a"]
    for step in range(steps):
        lasso.shrink(parameters, one_cycle(step, steps, recipe.learning_rate, recipe.warmup) / (1 - recipe.momentum))
    way = (before - lasso.scales(parameters)["a"]).tolist()
    assert way == pytest.approx([Sparsity("kernel", strength).reach(recipe, steps)] * 3, rel=1e-4)
