"""Stages of a network: runs of groups whose channels are computed at one resolution."""

from __future__ import annotations

from automl_prune.channels import ChannelGraph


def stages_of(graph: ChannelGraph) -> dict[str, str]:
    """The stage of every group, ``stage1``, ``stage2``, ... in network order, a stage for each resolution.

    The resolution of a layer is how often its weights are used for one sample: its multiply-accumulates over its
    parameters. A group's is that of the layer it is named after; without one it belongs to the stage before it.
    """
    weights = {term.name.removesuffix(".weight"): term.coefficient for term in graph.parameter_terms}
    resolutions = {term.name: term.coefficient // weights[term.name] for term in graph.terms if term.name in weights}
    found: dict[str, str] = {}
    names: dict[int, str] = {}
    resolution = next((resolutions[name] for name in graph.widths if name in resolutions), 0)
    for group in graph.widths:
        resolution = resolutions.get(group, resolution)
        found[group] = names.setdefault(resolution, f"stage{len(names) + 1}")
    return found
