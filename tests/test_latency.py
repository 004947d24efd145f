"""What a latency predictor is told of a model's layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from automl_prune.channels import ChannelGraph
from automl_prune.costs.layer_regression import Layer
from automl_prune.latency import layers_of
from tests.channels.nets import INPUTS, Net, conv, head


def _layers(net: nn.Module) -> dict[str, Layer]:
    return {layer.name: layer for layer in layers_of(ChannelGraph.trace(net, INPUTS))}


def _widths(layer: Layer) -> tuple[Any, Any]:
    return tuple(axis.positions or axis.constant for axis in (layer.inputs, layer.outputs))  # type: ignore[return-value]  # of two


def test_transposed_convolutions_read_along_their_first_axis() -> None:
    transposed = [nn.ConvTranspose2d(*widths, 2, 2) for widths in ((3, 8), (8, 12), (12, 5))]
    layers = _layers(nn.Sequential(*transposed, conv(5, 4), head(4)))
    assert {name: _widths(layer) for name, layer in layers.items()} == {
        "0.weight": (3, {"0": 1}),
        "1.weight": ({"0": 1}, {"1": 1}),
        "2.weight": ({"1": 1}, {"2": 1}),
        "3.weight": ({"2": 1}, {"3": 1}),
        "4.2.weight": ({"3": 1}, 5),
    }
    assert layers["1.weight"].places == 16 * 16


def test_a_parameter_multiplied_from_the_right_reads_along_its_first_axis() -> None:
    def forward(m: Any, x: Any) -> Any:
        return m.head((m.a(x).permute(0, 2, 3, 1) @ m.w).permute(0, 3, 1, 2))

    net = Net(forward, a=conv(3, 8), head=head(10))
    net.w = nn.Parameter(torch.rand(8, 10))
    layers = _layers(net)
    reads, makes = _widths(layers["w"])
    assert reads == {"a": 1}
    assert makes == _widths(layers["head.2.weight"])[0]


def test_depthwise_and_grouped_convolutions_read_along_their_second_axis() -> None:
    layers = _layers(nn.Sequential(conv(3, 8), conv(8, 8, groups=8), conv(8, 12, groups=2), head(12)))
    assert {name: _widths(layer) for name, layer in layers.items()} == {
        "0.weight": (3, {"0": 2}),
        "1.weight": (1, {"0": 2}),
        "2.weight": ({"0": 1}, {"2": 2}),
        "3.2.weight": ({"2": 2}, 5),
    }
