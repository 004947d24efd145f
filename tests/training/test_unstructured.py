from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from automl_prune.errors import ConfigError, ModelError
from automl_prune.evaluation import FineTuning, finetune
from automl_prune.tasks import Task
from automl_prune.training.unstructured import FileSize, Masking, all_zeros, masked, permanent, zeros

CPU = torch.device("cpu")
HERE = __name__
METHODS = ("random", "l1", "ln_structured", "global", f"{HERE}:odd_ones", f"{HERE}:OddOnes")


class OddOnes(torch_prune.BasePruningMethod):
    """A user's method: every second weight."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: float) -> None:
        self.amount = amount

    def compute_mask(self, t: torch.Tensor, default_mask: torch.Tensor) -> torch.Tensor:
        mask = default_mask.clone()
        mask.view(-1)[1::2] = 0
        return mask


def odd_ones(module: nn.Module, name: str, amount: float) -> None:
    mask = torch.ones_like(module.get_parameter(name))
    mask.view(-1)[1::2] = 0
    torch_prune.custom_from_mask(module, name, mask)


def nothing(module: nn.Module, name: str, amount: float) -> None:
    pass


def failing(module: nn.Module, name: str, amount: float) -> None:
    raise RuntimeError("no luck")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_the_model_alone_and_zeros_in_a_plain_copy(tiny_resnet: nn.Module, method: str) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_resnet.state_dict().items()}
    final = permanent(tiny_resnet, masked(tiny_resnet, Masking(0.5, method)))
    after = final.state_dict()
    assert list(after) == list(before), "no masks, no renamed parameters"
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny_resnet.state_dict().items())
    assert all(torch.equal(after[n][after[n] != 0], before[n][after[n] != 0]) for n in before), "kept values are kept"
    found = zeros(final)
    assert 0.45 < sum(layer.zeros for layer in found) / sum(layer.weights for layer in found) < 0.55
    assert all_zeros(final).zeros >= sum(layer.zeros for layer in found)


def test_l1_takes_the_smallest_of_each_layer_and_global_those_of_all(tiny_resnet: nn.Module) -> None:
    local = permanent(tiny_resnet, masked(tiny_resnet, Masking(0.7, "l1")))
    for layer in zeros(local):
        weight = tiny_resnet.get_parameter(f"{layer.layer}.weight").detach().abs().flatten().numpy()
        smallest = set(np.argsort(weight)[: round(0.7 * len(weight))].tolist())
        kept = local.get_parameter(f"{layer.layer}.weight").detach().flatten().numpy()
        assert set(np.flatnonzero(kept == 0).tolist()) == smallest, layer.layer
    names = [f"{layer.layer}.weight" for layer in zeros(tiny_resnet)]
    whole = permanent(tiny_resnet, masked(tiny_resnet, Masking(0.7, "global")))
    sizes = np.concatenate([tiny_resnet.get_parameter(name).detach().abs().flatten().numpy() for name in names])
    kept = np.concatenate([whole.get_parameter(name).detach().flatten().numpy() for name in names])
    assert set(np.flatnonzero(kept == 0).tolist()) == set(np.argsort(sizes)[: round(0.7 * len(sizes))].tolist())
    assert len({round(layer.share, 3) for layer in zeros(whole)}) > 3


def test_ln_structured_takes_whole_filters_of_least_norm(tiny_resnet: nn.Module) -> None:
    final = permanent(tiny_resnet, masked(tiny_resnet, Masking(0.5, "ln_structured", ("layer1.0.conv1",))))
    norms = tiny_resnet.get_parameter("layer1.0.conv1.weight").detach().flatten(1).square().sum(1)
    gone = (final.get_parameter("layer1.0.conv1.weight") == 0).flatten(1).all(1)
    assert set(gone.nonzero().flatten().tolist()) == set(norms.argsort()[: len(norms) // 2].tolist())
    assert sum(layer.zeros > 0 for layer in zeros(final)) == 1, "only the layer that was named"


def test_random_is_seeded(tiny_resnet: nn.Module) -> None:
    torch.rand(3)
    state = torch.random.get_rng_state()
    first, again, other = (
        permanent(tiny_resnet, masked(tiny_resnet, Masking(0.5, "random", seed=seed))) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [model.get_parameter("layer1.0.conv1.weight") for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_masks_survive_fine_tuning(tiny_resnet: nn.Module, digits_task: Task) -> None:
    model = masked(tiny_resnet, Masking(0.6, "global"))
    gone = {name: mask == 0 for name, mask in model.named_buffers() if name.endswith("_mask")}
    finetune(model, digits_task, FineTuning(6, 0.1, distillation=0), seed=0, device=CPU)
    final = permanent(tiny_resnet, model)
    assert gone
    for name, where in gone.items():
        weight = final.get_parameter(name.removesuffix("_mask"))
        assert bool((weight[where] == 0).all())
        assert bool((weight[~where] != 0).all())
        assert not torch.equal(weight, tiny_resnet.get_parameter(name.removesuffix("_mask")) * ~where), "it was trained"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"amount": 0.0}, "amount is 0.0"),
        ({"amount": 1.0}, "amount is 1.0"),
        ({"amount": float("nan")}, "amount is nan"),
        ({"method": "l2"}, "method 'l2' is unknown; did you mean 'l1'"),
        ({"layers": ("layer1.0.conv9",)}, r"no layer 'layer1.0.conv9'.*did you mean 'layer1.0.conv"),
        ({"layers": ("layer1.0.bn1",)}, "no layer 'layer1.0.bn1' has a weight that can be masked"),
        ({"method": "nowhere:f"}, "No module named 'nowhere'"),
        ({"method": f"{HERE}:nothing"}, "left no mask of zeros and ones on layer 'conv1'"),
        ({"method": f"{HERE}:failing"}, "failed on layer 'conv1': RuntimeError: no luck"),
    ],
)
def test_wrong_maskings_are_told(tiny_resnet: nn.Module, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        masked(tiny_resnet, Masking(**{"amount": 0.5, **wrong}))


def test_shared_weights_are_refused_unless_left_out() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model[1].weight = model[0].weight
    with pytest.raises(ModelError, match="layer '0' shares its weight"):
        masked(model, Masking(0.5))
    assert zeros(permanent(model, masked(model, Masking(0.5, layers=("2",)))), ("2",))[0].zeros == 4
    with pytest.raises(ModelError, match="nothing to mask"):
        masked(nn.Sequential(nn.BatchNorm2d(3)), Masking(0.5))


def test_sizes_are_those_of_the_file_and_of_gzip(tmp_path: Path) -> None:
    content = bytes(5000) + bytes(range(256)) * 3
    (tmp_path / "f").write_bytes(content)
    size = FileSize.of(tmp_path / "f")
    assert size.plain == len(content)
    assert abs(size.compressed - len(gzip.compress(content, 9))) <= 20  # gzip's header is larger than zlib's
