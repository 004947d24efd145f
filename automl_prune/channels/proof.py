"""Proof by comparison: a pruned model must compute what the dense one does without the removed channels, and train."""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from automl_prune.channels.graph import ChannelGraph
from automl_prune.channels.plan import Plan
from automl_prune.channels.provenance import is_framework, short_path
from automl_prune.channels.reference import silenced_outputs
from automl_prune.channels.surgery import prune
from automl_prune.channels.trace import copied, output_tensors
from automl_prune.errors import PlanError
from automl_prune.seeding import generator, seeded

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Largest accepted difference by precision, relative to the largest output of the silenced dense model. Double
precision is the rule: there, even channels with little influence on the output show when they are mixed up."""

DRAWS = 2
"""Parts that all groups must survive together; even, so that every channel is removed in some of them."""

OnStep = Callable[[int, int], None]

Failure = Callable[[Iterable[str]], str | None]
"""What goes wrong when some groups are pruned; None when nothing does."""


def prove(
    model: nn.Module,
    graph: ChannelGraph,
    example_inputs: tuple[torch.Tensor, ...],
    on_step: OnStep | None = None,
) -> ChannelGraph:
    """Prune random parts of all groups and keep the graph if the results are right; else find who is wrong.

    The comparison is made on a copy in double precision, with random scales and shifts in place of the trained
    ones, so that no channel is without influence (a fresh norm, a residual branch that starts at zero).

    Args:
        model: Not changed.
        graph: Traced on the model.
        example_inputs: Positional inputs on the model's device.
        on_step: Called with (proofs done, proofs expected now).

    Returns:
        The graph; groups that broke the model are moved to ``skipped`` with what went wrong.
    """
    bench = _Bench(*_generic(model, example_inputs))
    names = list(graph.widths)
    done = 0

    def failure(tried: Iterable[str]) -> str | None:
        nonlocal done
        done += 1
        if on_step:
            on_step(done, max(done, 1 if done == 1 else 2 * len(names)))
        return bench.failure(graph, tried)

    protected: dict[str, str] = {}
    while reason := failure(rest := [name for name in names if name not in protected]):
        if not protected and (own := failure([])):
            protected = dict.fromkeys(names, f"with nothing removed, {own}; is its forward pass random?")
            break
        found = _at_fault(rest, reason, failure)
        for name, problem in {**found, **_alike(found, rest, failure)}.items():
            guessless = graph.without_attributes(name)
            if guessless.attributes != graph.attributes and not bench.failure(guessless, [name]):
                graph = guessless  # a number that looked like a size was another
            else:
                protected[name] = problem
    graph = _without_mere_numbers(graph.without(protected) if protected else graph, bench)
    if on_step:
        on_step(done, done)
    return graph


def _without_mere_numbers(graph: ChannelGraph, bench: _Bench) -> ChannelGraph:
    """The graph without attributes that the model is right without: they equal a width, and mean something else."""
    for kind in dict.fromkeys((_kind(attribute.module), attribute.name) for attribute in graph.attributes):
        fewer = tuple(a for a in graph.attributes if (_kind(a.module), a.name) != kind)
        without = replace(graph, attributes=fewer)
        if not bench.failure(without, graph.widths):
            graph = without
    return graph


def _kind(name: str) -> str:
    """What names have in common that differ in numbers alone."""
    return re.sub(r"\d+", "0", name)


def _alike(found: Collection[str], names: Iterable[str], failure: Failure) -> dict[str, str]:
    """Groups that break the model and are named like those found: what one block does wrong, its other blocks do too.

    Names are alike when they differ in numbers alone.
    """
    kinds = {_kind(name) for name in found}
    problems = {name: failure([name]) for name in names if _kind(name) in kinds and name not in found}
    return {name: problem for name, problem in problems.items() if problem}


def _at_fault(names: Sequence[str], reason: str, failure: Failure) -> dict[str, str]:
    """One group that breaks the model, by bisection of a set that breaks it for the ``reason`` given."""
    while len(names) > 1:
        middle = len(names) // 2
        for half in (names[:middle], names[middle:]):
            if problem := failure(half):
                names, reason = half, problem
                break
        else:
            return _conflict(names, reason, failure)
    return {names[0]: reason}


def _conflict(names: Sequence[str], reason: str, failure: Failure) -> dict[str, str]:
    """The first group that breaks the model together with those before it, each half being right alone."""
    right, wrong = len(names) // 2, len(names)  # so many of the first are right, so many are wrong
    while wrong - right > 1:
        middle = (right + wrong) // 2
        problem = failure(names[:middle])
        right, wrong, reason = (right, middle, problem) if problem else (middle, wrong, reason)
    return {names[wrong - 1]: f"together with other groups: {reason}"}


def proof_error(model: nn.Module, plan: Plan, example_inputs: tuple[torch.Tensor, ...]) -> float:
    """Relative difference between the pruned model and the dense one without the removed channels.

    Args:
        model: The dense model; its weights are changed during the call and put back.
        plan: What to remove.
        example_inputs: Positional inputs on the model's device.

    Returns:
        Largest absolute difference over all outputs, divided by the largest finite absolute silenced output. Infinities
        that agree in sign and place differ by nothing, nor do single NaNs; those that do not agree give infinity or
        NaN, and so does an output of NaNs alone, which proves nothing. Booleans count as 0 and 1.

    Raises:
        PlanError: The pruned model does not run, or its outputs have other shapes.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        pruned = prune(model, plan)
        try:
            expected = [tensor.clone() for tensor in output_tensors(silenced_outputs(model, plan, example_inputs))]
        except Exception as problem:
            raise PlanError(f"no model to compare with can be made{_told(problem)}") from problem
        try:
            with torch.no_grad():
                actual = output_tensors(pruned(*example_inputs))
        except Exception as problem:  # user code may raise anything on the new shapes
            raise PlanError(f"the pruned model does not run{_told(problem)}") from problem
    finally:
        for module, training in modes:
            module.training = training
    if [t.shape for t in actual] != [t.shape for t in expected]:
        raise PlanError(f"the output's shape would change to {[tuple(t.shape) for t in actual]}")
    expected, actual = _numbers(expected), _numbers(actual)
    scale = max((float(t[t.isfinite()].abs().max()) for t in expected if t.isfinite().any()), default=0.0)
    differences = [_difference(a, e) for a, e in zip(actual, expected, strict=True) if e.numel()]
    error = next((d for d in differences if not math.isfinite(d)), max(differences, default=0.0))
    return error / scale if scale > 0 else error


def _numbers(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors that can be subtracted: whole numbers and booleans in double precision."""
    return [t if t.is_floating_point() or t.is_complex() else t.double() for t in tensors]


def _difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest absolute difference; equal infinities and single NaNs count 0 (see ``proof_error``)."""
    if expected.isnan().all():
        return math.nan
    same = (actual == expected) | (actual.isnan() & expected.isnan())
    return float((actual - expected).abs().masked_fill(same, 0).max())


def _told(problem: BaseException) -> str:
    """What an exception says, and the innermost line of the user's code it came from."""
    lines = [f for f in traceback.extract_tb(problem.__traceback__) if not is_framework(f.filename)]
    where = f" at {short_path(lines[-1].filename)}:{lines[-1].lineno}" if lines else ""
    return f"{where} ({type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''})"


@dataclass(frozen=True)
class _Bench:
    """A model whose plans are tried: ``failure`` says what is wrong with cutting some groups."""

    model: nn.Module
    inputs: tuple[torch.Tensor, ...]

    def failure(self, graph: ChannelGraph, names: Iterable[str]) -> str | None:
        """Why random parts of these groups give a wrong model, or None."""
        names = list(names)
        sample = tuple(tensor[:1] for tensor in self.inputs)
        precision = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)
        try:
            for draw in range(DRAWS):
                plan = graph.plan(random_part(graph, names, draw))
                difference = proof_error(self.model, plan, sample)
                if not difference <= TOLERANCE.get(precision, TOLERANCE[torch.float32]):
                    return (
                        f"proof failed: the pruned model differs from the dense one without these channels by "
                        f"{difference:.1e} (relative); the forward pass counts them in a way that tensors do not show"
                    )
            problem = _training_problem(prune(self.model, plan), self.inputs)
            if problem is not None and self._dense_trains:
                raise PlanError(f"the pruned model does not train{_told(problem)}")
        except PlanError as error:
            return f"proof failed: {error}; take the size from a tensor's shape instead of a number"
        return None

    @cached_property
    def _dense_trains(self) -> bool:
        return _training_problem(copied(self.model), self.inputs) is None


def _training_problem(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Exception | None:
    """What goes wrong in a training step's forward and backward pass; branches that only run then must fit too."""
    model.train()
    try:
        with seeded("proof"), torch.enable_grad():
            outputs = [t for t in output_tensors(model(*inputs)) if t.requires_grad]
            if outputs:
                torch.autograd.backward([t.abs().sum() for t in outputs])
    except Exception as problem:  # user code may raise anything on the new shapes
        return problem
    return None


def random_part(graph: ChannelGraph, names: Iterable[str], draw: int) -> dict[str, list[int]]:
    """A quarter to three quarters of the channels of some groups, drawn at random.

    Neither a regular pattern hides a wrong index, nor one ratio for all a coupling between groups (a width that the
    forward pass divides another by), nor a channel that is always there a wrong place for it: an odd draw keeps what
    the draw before it removes. Two channels are kept at least where a group has four, as one alone has no order.

    Args:
        graph: Holds the groups.
        names: Groups to cut; a group of one channel keeps it.
        draw: Number of the draw; equal numbers give equal parts.
    """
    pair, other = divmod(draw, 2)
    kept = {}
    for name in names:
        width, random = graph[name].width, generator("proof", name, 2 * pair)
        share = 0.25 + 0.5 * torch.rand((), generator=random).item()
        first = max(1, min(2, width // 2), int(share * width))
        order = torch.randperm(width, generator=random).tolist()
        kept[name] = order[first:] if other and width > 1 else order[:first]
    return kept


def _generic(model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A copy in general position and two random samples, in double precision (single where one is lacking)."""
    work = copied(model)
    with seeded("proof"), torch.no_grad():
        for parameter in work.parameters():
            if parameter.is_floating_point() and (parameter.dim() < 2 or not parameter.any()):
                parameter.add_(torch.rand_like(parameter) * 0.5 + 0.25)
        pair = tuple(_noisy(torch.cat([tensor[:1], tensor[:1]])) for tensor in example_inputs)
        double = tuple(tensor.double() if tensor.is_floating_point() else tensor for tensor in pair)
        try:
            _settle(work.double(), double)
        except RuntimeError:
            return _settle(work.float(), pair), pair
    return work, double


def _noisy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor + torch.randn_like(tensor) if tensor.is_floating_point() else tensor


def _settle(model: nn.Module, inputs: Sequence[torch.Tensor]) -> nn.Module:
    """Running statistics as the inputs make them, so that no signal dies or explodes; then evaluation mode."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 1.0
    model.train()(*inputs)
    return model.eval()
