"""From a meter to a latency predictor: measured once, kept for whoever resumes or joins the study."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from automl_prune.channels import ChannelGraph
from automl_prune.channels.group import Role
from automl_prune.costs import Cost, cost_metrics
from automl_prune.costs.latency import Fingerprint, LatencyMeasurement
from automl_prune.costs.layer_regression import Layer, Sample
from automl_prune.costs.predictor import LatencyPredictor, load_predictor, save_predictor
from automl_prune.costs.sampling import diverse_widths
from automl_prune.errors import BudgetError, CheckpointError
from automl_prune.files import read_sealed, write_sealed
from automl_prune.view import View

SAMPLES = 48
"""Models that are measured to fit a predictor."""

Widths = Mapping[str, int]


class Meter(Protocol):
    """What measures candidates of one dense model."""

    fingerprint: Fingerprint

    @property
    def reference(self) -> float:
        """Seconds of the dense model, which every measured ratio is multiplied by."""
        ...

    def quick(self) -> Meter:
        """A meter of the same model and reference that is less precise and faster."""
        ...

    def cost(self, widths: Widths) -> Cost:
        """The measured latency of the model of some widths, in seconds."""
        ...

    def measure_export(self, file: bytes, model: nn.Module) -> LatencyMeasurement:
        """The measured latency of an exported model, given as an ONNX file and as the same module."""
        ...

    def profile(self, widths: Widths) -> Mapping[str, float]:
        """Seconds by weight of the layers, all the rest under another name."""
        ...


def layers_of(graph: ChannelGraph) -> tuple[Layer, ...]:
    """The convolutions and matrix products of a model whose weights can be named, for a predictor."""
    macs: dict[str, int] = defaultdict(int)
    for term in graph.terms:
        macs[term.name] += term.at(graph.widths)
    roles = {(m.parameter, m.axis): m.role for group in graph.groups for m in group.members}
    return tuple(
        Layer(
            name,
            graph.axis_length(name, read),
            graph.axis_length(name, 1 - read),
            max(1, macs[name.rpartition(".")[0]] // math.prod(shape)),
        )
        for name, shape in graph.shapes.items()
        if len(shape) > 1 and name.rpartition(".")[0] in macs
        for read in [_reading_axis(roles, name)]
    )


def _reading_axis(roles: Mapping[tuple[str, int], Role], name: str) -> int:
    """The axis of a weight that reads channels: 1, or 0 in a transposed convolution or a product ``x @ weight``."""
    first, second = roles.get((name, 0)), roles.get((name, 1))
    return 0 if second != "consumer" and (first == "consumer" or second == "producer") else 1


def predictor_of(
    make_meter: Callable[[float | None], Meter],
    graph: ChannelGraph,
    lowest: Sequence[int],
    *,
    model: str,
    path: Path | None,
    seed: int,
    view: View,
    count: int = SAMPLES,
) -> tuple[Meter, LatencyPredictor]:
    """A meter, and the predictor kept in ``path`` or a new one; measuring can be interrupted and goes on.

    Args:
        make_meter: Makes the meter, given the dense model's seconds where they are known.
        graph: Its groups.
        lowest: Least width of every group.
        model: Digest of the dense model.
        path: Where predictor and measurements are kept; stale or damaged ones are made anew. None keeps nothing.
        seed: Of the widths that are measured.
        view: Where progress goes.
        count: How many models to measure.
    """
    meter = make_meter(None)
    machine = meter.fingerprint.to_json()
    identity = {"model": model, "groups": graph.digest, "machine": machine, "seed": seed, "count": count}
    found = load_predictor(path, identity) if path is not None else None
    if found is not None:
        meter = make_meter(found.dense)
    else:
        notes = _Notes(path.with_suffix(".samples.json") if path is not None else None, identity)
        reference, samples = notes.read()
        meter = make_meter(reference) if reference is not None else meter
        wanted = diverse_widths(lowest, tuple(graph.widths.values()), count, seed)
        _measure(meter, tuple(graph.widths), wanted, samples, notes, view)
        measured = [samples[widths] for widths in wanted]
        found = LatencyPredictor.fit(tuple(graph.widths), layers_of(graph), measured, dense=meter.reference)
        if path is not None:
            save_predictor(path, found, identity)
        notes.drop()
    view.say(
        f"Latency is predicted with a {found.error.describe()}; candidates aim below its bound by that error, and "
        "every one is measured"
    )
    return meter, found


def aim_within(
    bound: float, predictor: LatencyPredictor, meter: Meter, fastest: Sequence[tuple[int, ...]], view: View
) -> tuple[float, LatencyPredictor]:
    """The predicted latency to aim at, so that what is found measures within a bound, and the predictor to keep.

    Below the bound by the predictor's mean error, else every second candidate at the bound would measure above it.
    Where no prediction is as low, that is no reason to refuse the bound: the fastest models are measured first, and
    the bound is moved by how far the prediction of the fastest is off. What was measured is noted in the predictor,
    for whoever resumes or joins must aim at the same.

    Args:
        bound: Seconds.
        predictor: As it was fitted.
        meter: Measures.
        fastest: Widths that may be fastest, in the order of the predictor's groups; empty checks nothing.
        view: Where progress goes.

    Raises:
        BudgetError: None of the fastest measures within the bound.
    """
    aim = bound / (1 + predictor.error.mape)
    if not fastest or min(predictor.evaluate(widths) for widths in fastest) <= aim:
        return aim, predictor
    new = [widths for widths in dict.fromkeys(fastest) if widths not in predictor.known]
    if new:
        with view.stage("Measuring the fastest models") as stage:
            measured = dict(predictor.known)
            for number, widths in enumerate(new):
                measured[widths] = meter.cost(dict(zip(predictor.groups, widths, strict=True))).value
                stage(number + 1, len(new))
        predictor = replace(predictor, known=measured)
    best = min(fastest, key=lambda widths: predictor.known[widths])
    seconds, predicted, show = predictor.known[best], predictor.evaluate(best), cost_metrics["latency"].show
    if seconds > bound:
        raise BudgetError(
            f"budget latency <= {show(bound)} cannot be reached: the fastest models of the search space and the other "
            f"budgets were measured, and the best takes {show(seconds)}, {seconds / predictor.dense:.1%} of dense; "
            "raise it, or let groups be narrower (min_width, max_prune_ratio, round_to, exclude)"
        )
    view.say(
        f"The fastest models were measured, because they were predicted to take longer than allowed: {show(seconds)} "
        f"where {show(predicted)} was predicted"
    )
    return max(predicted, aim * predicted / seconds), predictor


def _measure(
    meter: Meter,
    groups: tuple[str, ...],
    wanted: Sequence[tuple[int, ...]],
    samples: dict[tuple[int, ...], Sample],
    notes: _Notes,
    view: View,
) -> None:
    """Add what is wanted to the samples, and note it after every model."""
    with view.stage("Measuring latency") as stage:
        quick = meter.quick()
        for number, widths in enumerate(wanted):
            if widths not in samples:
                named = dict(zip(groups, widths, strict=True))
                samples[widths] = Sample(widths, quick.cost(named).value, dict(quick.profile(named)))
                notes.write(meter.reference, samples)
            stage(number + 1, len(wanted))


@dataclass(frozen=True, slots=True)
class _Notes:
    """What has been measured so far, for a session that goes on after an interruption.

    Attributes:
        path: Where; None keeps nothing.
        identity: What is measured; notes of anything else are not read.
    """

    path: Path | None
    identity: Mapping[str, Any]

    def read(self) -> tuple[float | None, dict[tuple[int, ...], Sample]]:
        """The dense model's seconds, and the measurements by widths; None and nothing where there are none."""
        if self.path is None or not self.path.is_file():
            return None, {}
        try:
            value = read_sealed(self.path)
            if value["identity"] != self.identity:
                return None, {}
            rows = [Sample(tuple(row["widths"]), row["seconds"], row["layers"]) for row in value["samples"]]
            return float(value["reference"]), {row.widths: row for row in rows}
        except (CheckpointError, KeyError, TypeError):
            return None, {}

    def write(self, reference: float, samples: Mapping[tuple[int, ...], Sample]) -> None:
        """Replace the notes."""
        if self.path is not None:
            rows = [asdict(sample) for sample in samples.values()]
            write_sealed(self.path, {"identity": dict(self.identity), "reference": reference, "samples": rows})

    def drop(self) -> None:
        """Remove them."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
