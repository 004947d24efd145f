"""Proof by comparison: a pruned model must compute what the dense one does with the removed channels silenced."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from automl_prune.channels.graph import ChannelGraph
from automl_prune.channels.plan import Plan
from automl_prune.channels.surgery import prune
from automl_prune.channels.trace import output_tensors
from automl_prune.errors import PlanError
from automl_prune.seeding import generator

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Largest accepted difference by precision, relative to the largest output of the silenced dense model. Double
precision is the rule: there, even channels with little influence on the output show when they are mixed up."""

DRAWS = 2
"""Random halves that all groups must survive together."""


def prove(
    model: nn.Module,
    graph: ChannelGraph,
    example_inputs: tuple[torch.Tensor, ...],
    on_step: Callable[[int, int], None] | None = None,
) -> ChannelGraph:
    """Prune random halves of all groups and keep the graph if the results are right; else find who is wrong.

    Only when the groups fail together are they tried alone and then joined one at a time.

    Args:
        model: Not changed.
        graph: Traced on the model.
        example_inputs: Positional inputs on the model's device.
        on_step: Called with (proofs done, proofs expected now).

    Returns:
        The graph; groups that broke the model are moved to ``skipped`` with what went wrong.
    """
    work, sample = _in_double(model, example_inputs)
    failures = []
    for draw in range(DRAWS):
        failures.append(_failure(work, graph.plan(_half(graph, graph.widths, draw)), sample))
        if on_step:
            on_step(draw + 1, DRAWS)
    if not any(failures):
        return graph
    protected: dict[str, str] = {}
    for done, group in enumerate(graph.groups):
        draws = [_failure(work, graph.plan(_half(graph, [group.name], draw)), sample) for draw in range(DRAWS)]
        if reason := next(filter(None, draws), None):
            protected[group.name] = reason
        if on_step:
            on_step(done + 1, len(graph.groups))
    graph = graph.without(protected)
    if any(_failure(work, graph.plan(_half(graph, graph.widths, draw)), sample) for draw in range(DRAWS)):
        graph = graph.without(_find_conflicts(work, graph, sample))
    return graph


def _in_double(
    model: nn.Module, example_inputs: tuple[torch.Tensor, ...]
) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A copy in evaluation mode and one sample in double precision; in single where an operator has no double."""
    work = copy.deepcopy(model).eval().double()
    sample = tuple(t[:1].double() if t.is_floating_point() else t[:1] for t in example_inputs)
    try:
        with torch.no_grad():
            work(*sample)
    except RuntimeError:
        return copy.deepcopy(model).eval(), tuple(t[:1] for t in example_inputs)
    return work, sample


def proof_error(model: nn.Module, plan: Plan, example_inputs: tuple[torch.Tensor, ...]) -> float:
    """Relative difference between the pruned model and the dense one with the removed channels silenced.

    Args:
        model: The dense model; its weights are changed during the call and put back.
        plan: What to remove.
        example_inputs: Positional inputs on the model's device.

    Returns:
        Largest absolute difference over all outputs, divided by the largest absolute silenced output.

    Raises:
        PlanError: The pruned model does not run, or its outputs have other shapes.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        pruned = prune(model, plan)
        with torch.no_grad():
            with silenced(model, plan):
                expected = output_tensors(model(*example_inputs))
            try:
                actual = output_tensors(pruned(*example_inputs))
            except Exception as problem:  # user code may raise anything on the new shapes
                raise PlanError(f"the pruned model does not run ({type(problem).__name__}: {problem})") from problem
    finally:
        for module, training in modes:
            module.training = training
    if [t.shape for t in actual] != [t.shape for t in expected]:
        raise PlanError(f"the output's shape would change to {[tuple(t.shape) for t in actual]}")
    scale = max((float(t.abs().max()) for t in expected if t.numel()), default=0.0)
    pairs = zip(actual, expected, strict=True)
    error = max((float((a - e).abs().max()) for a, e in pairs if a.numel()), default=0.0)
    return error / scale if scale > 0 else error


@contextmanager
def silenced(model: nn.Module, plan: Plan) -> Iterator[None]:
    """The dense model as if the removed channels did not exist: every weight that reads one is zero.

    Groups that no parameter reads (they meet other activations only) are silenced where they are produced.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    saved: dict[str, torch.Tensor] = {}
    try:
        for group in plan.graph.groups:
            gone = sorted(set(range(group.width)) - set(plan.kept[group.name]))
            if not gone:
                continue
            members = list(group.with_role("consumer")) or list(group.members)
            for member in members:
                tensor = tensors[member.parameter].data
                saved.setdefault(member.parameter, tensor.clone())
                positions = torch.from_numpy(member.index[gone].reshape(-1)).to(tensor.device)
                tensor.index_fill_(member.axis, positions, 0)
        yield
    finally:
        for name, tensor in saved.items():
            tensors[name].data.copy_(tensor)


def _half(graph: ChannelGraph, names: Iterable[str], draw: int) -> dict[str, Sequence[int]]:
    """Half of the channels of some groups, drawn at random so that no regular pattern hides a wrong index."""
    kept: dict[str, Sequence[int]] = {}
    for name in names:
        width = graph[name].width
        order = torch.randperm(width, generator=generator("proof", name, draw))
        kept[name] = order[: max(1, width // 2)].tolist()
    return kept


def _failure(model: nn.Module, plan: Plan, sample: tuple[torch.Tensor, ...]) -> str | None:
    """Why the plan is wrong on this model, or None."""
    try:
        error = proof_error(model, plan, sample)
    except PlanError as problem:
        return f"proof failed: {problem}; look for a size written as a number in the model's forward"
    precision = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    if error <= TOLERANCE.get(precision, TOLERANCE[torch.float32]):
        return None
    return f"proof failed: the pruned model differs from the silenced dense one by {error:.1e} (relative)"


def _find_conflicts(model: nn.Module, graph: ChannelGraph, sample: tuple[torch.Tensor, ...]) -> Mapping[str, str]:
    """Groups that are right alone but break the model together: added one at a time, the breaking ones named."""
    protected: dict[str, str] = {}
    accepted: list[str] = []
    for group in graph.groups:
        failure = _failure(model, graph.plan(_half(graph, [*accepted, group.name], 0)), sample)
        if failure:
            protected[group.name] = f"together with other groups, {failure}"
        else:
            accepted.append(group.name)
    return protected
