"""What the dense model costs, and what of it can be pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from automl_prune.channels import ChannelGraph
from automl_prune.config import Config, load_weights
from automl_prune.session import choose_device, trace_and_prove
from automl_prune.view import Silent, View


@dataclass(frozen=True, slots=True)
class Profile:
    """The dense model's structure and costs."""

    graph: ChannelGraph
    reachable: Mapping[str, tuple[float, float]]

    def explain(self) -> str:
        """Tables for people."""
        lines = [self.graph.plan({}).explain(), ""]
        for metric, (least, _) in self.reachable.items():
            lines.append(f"reachable with the search space: {metric} from {least / self.graph.dense_costs[metric]:.1%}")
        lines += [
            f"recomputed from what is left: {', '.join(g.mixes)} over {g.name}" for g in self.graph.groups if g.mixes
        ]
        lines += [f"protected: {s.name} ({s.width} channels): {s.reason}" for s in self.graph.skipped]
        return "\n".join(lines)


def profile(config: Config, view: View | None = None) -> Profile:
    """Trace and prove the configured model and say what it costs; its weights are not needed."""
    task, model = config.build_task(), config.build_model()
    weights = config.model.weights
    if weights and Path(weights).is_file():
        load_weights(model, Path(weights))
    device = choose_device(config.device)
    graph = trace_and_prove(model.to(device), task, device, view or Silent())
    limits = config.load_space().limits(graph.groups)
    low, high = ({name: getattr(limit, end) for name, limit in limits.items()} for end in ("low", "high"))
    return Profile(graph, {n: (float(p.at(low)), float(p.at(high))) for n, p in graph.cost_models.items()})
