"""Results as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from automl_prune.comparison import Comparison, score_of
from automl_prune.compression import DENSE, Compressed
from automl_prune.costs import Cost
from automl_prune.report.estimate import Estimate
from automl_prune.report.measured import remarks
from automl_prune.report.sensitivity import noise
from automl_prune.report.table import FrontRow, shown_costs
from automl_prune.report.words import ABSENT, cost_full, factor, percent, plus_minus, signed
from automl_prune.sensitivity import Sensitivity
from automl_prune.study.record import StudyContext
from automl_prune.tasks import Metric
from automl_prune.training.unstructured import Sparsified


def compressed_as_table(result: Compressed) -> Table:
    """A one-shot result beside the dense model and plain pruning, for people."""
    metric = result.metric
    table = Table(caption="± half the 95 % interval", caption_justify="left")
    table.add_column("model")
    for name in next(iter(result.rows.values())).costs:
        table.add_column(f"{name} (of dense)", justify="right")
    for split in ("validation", "test"):
        table.add_column(f"{split} {metric.name}", justify="right")
    for label, row in result.rows.items():
        costs = [f"{cost_full(cost.metric, cost.value)} ({cost.ratio:.1%})" for cost in row.costs.values()]
        latency = row.costs.get("latency")
        said = remarks(latency) if latency is not None and label != DENSE else []
        table.add_row(
            ", ".join([label, *said]),
            *costs,
            *(plus_minus(metric, Estimate.of([value])) for value in (row.val, row.test)),
        )
    return table


def front_as_table(rows: Sequence[FrontRow], context: StudyContext, title: str, *, narrow: bool = False) -> Table:
    """The front for people: costs and fractions of dense, scores with the half-width of their 95 % interval.

    Args:
        rows: Of the front.
        context: Of the study.
        title: Above the table.
        narrow: Show costs as fractions alone, which fits 80 columns.
    """
    metric, names = context.metric, front_costs(rows, context, narrow=narrow)
    timed = any(row.latency is not None for row in rows)
    caption = "± half the 95 % interval" + ("; costs as fractions of the dense model's" if narrow else "")
    if timed:
        caption += "; efficiency: latency speed-up / MACs speed-up"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    if narrow:
        table.box, table.pad_edge, table.collapse_padding = SIMPLE_HEAD, False, True
    table.add_column("trial", no_wrap=True)
    table.add_column("origin", overflow="fold")
    for name in names:
        table.add_column(name if narrow else f"{name} (of dense)", justify="right", no_wrap=True)
    if timed:
        table.add_column("effi-\nciency" if narrow else "efficiency", justify="right", no_wrap=True)
    for split in ("validation", "test"):  # on two lines: what must not be broken is the numbers
        table.add_column(f"{split}\n{metric.name}", justify="right", no_wrap=True)
    for row in rows:
        costs = [_cost(row.costs.get(name), narrow=narrow) for name in names]
        costs += [factor(row.efficiency)] if timed else []
        scores = [plus_minus(metric, row.val), plus_minus(metric, row.test) if row.test else "not measured"]
        origin = ", ".join([row.origin, *(remarks(row.latency) if row.latency is not None else [])])
        table.add_row(f"{row.trial}{' knee' if row.knee else ''}", origin, *costs, *scores)
    dense = {name: Cost(name, value, value) for name, value in context.dense_costs.items()}
    costs = [_cost(dense.get(name), narrow=narrow) for name in names] + ([""] if timed else [])
    scores = [plus_minus(metric, Estimate.of([score])) for score in (context.dense_val, context.dense_test)]
    table.add_section()
    table.add_row("dense", "", *costs, *scores)
    return table


def front_costs(rows: Sequence[FrontRow], context: StudyContext, *, narrow: bool) -> list[str]:
    """The costs that a table of a front has room for: MACs, bounded and measured ones, and parameters if not narrow."""
    wanted = {"macs", "latency", *context.limits, *([] if narrow else ["params"])}
    return [name for name in shown_costs(context, rows) if name in wanted]


def _cost(cost: Cost | None, *, narrow: bool) -> str:
    if cost is None:
        return ABSENT
    return percent(cost.ratio) if narrow else f"{cost_full(cost.metric, cost.value)} ({cost.ratio:.1%})"


def comparison_tables(result: Comparison) -> Iterator[Table]:
    """Two studies as wholes, then their best models under the same budgets."""
    records = [study.record for study in result.studies]
    table = Table()
    table.add_column("")
    for study in result.studies:
        table.add_column(study.label, justify="right")
    dense = [plus_minus(result.metric, Estimate.of([r.context.dense_test])) for r in records]
    finished = [f"{sum(t.state in ('complete', 'failed') for t in r.trials)} of {r.requested}" for r in records]
    table.add_row("trials finished", *finished)
    table.add_row("finalists", *(str(len(r.finalists)) for r in records))
    table.add_row(f"dense {result.cost}", *(cost_full(result.cost, value) for value in result.dense))
    table.add_row(f"dense test {result.metric.name}", *dense)
    if result.volumes:
        table.add_row("hypervolume of the front", *(f"{volume:.3f}" for volume in result.volumes))
    yield table
    split = "test" if result.stage == "finalists" else "validation"
    table = Table(title=f"Best model by {result.cost}, {split} {result.metric.name}", title_justify="left")
    table.add_column("at most", justify="right")
    for study in result.studies:
        table.add_column(study.label, justify="right")
    table.add_column("gain (95 % interval)", justify="right")
    for level in result.levels:
        cells = ["none" if row is None else plus_minus(result.metric, score_of(row)) for row in level.rows]
        table.add_row(cost_full(result.cost, level.limit), *cells, _gain(result.metric, level.gain, level.significant))
    yield table


def _gain(metric: Metric, gain: Estimate | None, significant: bool) -> str:
    if gain is None:
        return ""
    if gain.interval is None:
        return signed(metric, gain.value)
    low, high = gain.interval
    return (
        f"{signed(metric, gain.value)} ({signed(metric, low)} to {signed(metric, high)}){' *' if significant else ''}"
    )


def sparsified_tables(result: Sparsified, metric: Metric) -> Iterator[Table]:
    """Scores by stage, zeros by layer, and file sizes of a masked model."""
    table = Table(title="Scores", title_justify="left", caption="± half the 95 % interval", caption_justify="left")
    table.add_column("model")
    for split in ("validation", "test"):
        table.add_column(f"{split} {metric.name}", justify="right")
    for stage in result.stages:
        table.add_row(stage.name, *(plus_minus(metric, Estimate.of([score])) for score in (stage.val, stage.test)))
    yield table
    table = Table(title="Zeros", title_justify="left")
    table.add_column("layer")
    for head in ("weights", "zeros", "share"):
        table.add_column(head, justify="right")
    for layer in result.layers:
        table.add_row(layer.layer, f"{layer.weights:,}", f"{layer.zeros:,}", f"{layer.share:.1%}")
    table.add_section()
    whole = result.parameters
    table.add_row(whole.layer, f"{whole.weights:,}", f"{whole.zeros:,}", f"{whole.share:.1%}")
    yield table
    table = Table(title="Weights file", title_justify="left")
    table.add_column("model")
    for head in ("bytes", "bytes after zlib", "MACs per sample"):
        table.add_column(head, justify="right")
    for name, size, macs in zip(("dense", "sparse"), (result.dense, result.sparse), result.macs, strict=True):
        table.add_row(name, f"{size.plain:,}", f"{size.compressed:,}", f"{macs:,}")
    yield table


def sensitivity_tables(result: Sensitivity) -> Iterator[Table]:
    """The drop of every group at every prune ratio, a table per variant."""
    unit = " in points" if result.metric.percent else ""  # no brackets: they are rich's markup
    for variant in result.variants:
        title = f"Drop of {result.metric.name}{unit}, pruned by {result.criterion}, {variant}"
        table = Table(title=title, title_justify="left", caption=noise(result), caption_justify="left")
        table.add_column("group")
        table.add_column("channels", justify="right")
        for ratio in result.ratios:
            table.add_column(f"{percent(ratio)} removed", justify="right")
        for group, drops in result.drops(variant).items():
            cells = (signed(result.metric, drop) for drop in drops.values())
            table.add_row(group, str(result.widths[group]), *cells)
        yield table
