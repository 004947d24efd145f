"""What every channel group costs when it alone is pruned, where ``automl-prune sensitivity`` has measured it."""

from __future__ import annotations

import shlex

import plotly.graph_objects as go

from automl_prune.files import load_tensors, tensors_digest
from automl_prune.report.data import ReportData
from automl_prune.report.markup import figure, missing
from automl_prune.report.sensitivity import noise, sensitivity_figure
from automl_prune.report.words import percent, plural, signed
from automl_prune.sensitivity import Sensitivity, stored
from automl_prune.study.directory import RunDirectory


def render(data: ReportData) -> str:
    """A heat map per criterion and repair."""
    found = analyses(data)
    if not found:
        config = shlex.quote(str(data.run_dir / "config.yaml"))
        return missing(
            "No analysis of this model lies in the run directory; to make one: "
            f"automl-prune sensitivity {config} --run-dir {shlex.quote(str(data.run_dir))}"
        )
    parts = []
    for number, (result, variant) in enumerate(found):
        if result.widths:
            drawing = sensitivity_figure(result, variant)
            parts.append(figure(f"figure-sensitivity-{number}", drawing, _caption(data, result, variant), wide=True))
        else:
            parts.append(missing(f"The analysis by {result.criterion}, {variant}, has finished no group yet."))
    return "\n".join(parts)


def figures(data: ReportData) -> dict[str, go.Figure]:
    """The heat maps."""
    return {
        f"sensitivity_{number}": sensitivity_figure(result, variant)
        for number, (result, variant) in enumerate(analyses(data))
        if result.widths
    }


def analyses(data: ReportData) -> list[tuple[Sensitivity, str]]:
    """The stored analyses of the study's dense model, each with the name of its variant."""
    directory = RunDirectory(data.run_dir)
    if not (directory.sensitivity.is_dir() and directory.baseline.is_file()):
        return []
    tensors, _ = load_tensors(directory.baseline)
    widths = {name: width for name, width in data.context.group_widths.items() if width > 1}
    return [
        (result, variant)
        for result in stored(directory.sensitivity, tensors_digest(tensors), widths)
        for variant in result.variants
    ]


def _caption(data: ReportData, result: Sensitivity, variant: str) -> str:
    metric, ratio = result.metric, max(result.ratios)
    drops = {group: by_ratio[ratio] for group, by_ratio in result.drops(variant).items()}
    worst = max(drops, key=lambda group: drops[group])
    least = min(drops, key=lambda group: drops[group])
    unit = " points" if metric.percent else ""
    groups = sum(width > 1 for width in data.context.group_widths.values())
    words = (
        f"Drop of {metric.name} when one group alone is pruned by {result.criterion}, {variant}, nothing trained. "
        f"With {percent(ratio)} removed, {worst} loses most ({signed(metric, drops[worst])}{unit}) and {least} least "
        f"({signed(metric, drops[least])}{unit}). {noise(result)}"
    )
    if len(result.widths) < groups:
        words += f" The analysis is unfinished: {len(result.widths)} of {plural(groups, 'group')} are measured."
    return words
