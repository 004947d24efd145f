"""Numbers as people read them: units, signs and a true minus, the same everywhere in the report."""

from __future__ import annotations

from automl_prune.costs.base import cost_metrics
from automl_prune.report.estimate import Estimate
from automl_prune.tasks.base import Metric

ABSENT = "–"
"""Shown where a value was not measured; never a zero."""

_SUFFIXES = (("G", 1e9), ("M", 1e6), ("k", 1e3))


def short(value: float) -> str:
    """Three or four significant digits with an SI suffix, e.g. ``20.4 M``."""
    for suffix, factor in _SUFFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.3g} {suffix}"
    return f"{value:.4g}"


def is_count(name: str) -> bool:
    """Whether a cost is a number of things, which is written in full where there is room."""
    return name not in cost_metrics or cost_metrics[name].counted


def cost_value(name: str, value: float) -> str:
    """A cost's value, with its unit where that is no count: ``20.4 M`` (multiply-accumulates), ``4.25 ms``."""
    return short(value) if is_count(name) else cost_metrics[name].show(value)


def cost_full(name: str, value: float) -> str:
    """A count with all its digits; another cost like ``cost_value``."""
    return f"{value:,.0f}" if is_count(name) else cost_value(name, value)


def cost_quantity(name: str, value: float) -> str:
    """A cost's value with its unit, e.g. ``20.4 M MACs`` or ``4.25 ms``."""
    return f"{short(value)} {cost_unit(name)}".rstrip() if is_count(name) else cost_value(name, value)


def cost_title(name: str) -> str:
    """A cost metric in words, for axes and table heads."""
    return cost_metrics[name].title if name in cost_metrics else name


def cost_unit(name: str) -> str:
    """A cost metric's unit; empty when it is not a registered one."""
    return cost_metrics[name].unit if name in cost_metrics else ""


def cost_label(name: str) -> str:
    """What a cost is called in running text: ``MACs``, ``parameters``, or its own name."""
    return cost_unit(name) if name in ("macs", "params") else name


def percent(ratio: float) -> str:
    """A ratio in per cent with one decimal."""
    return f"{100 * ratio:.1f} %"


def factor(value: float | None) -> str:
    """A plain ratio with two decimals; a dash where it is not known."""
    return ABSENT if value is None else f"{value:.2f}"


def signed(metric: Metric, difference: float) -> str:
    """A difference of two scores with its sign, without its unit."""
    text = f"{100 * difference:+.2f}" if metric.percent else f"{difference:+.3g}"
    return "0" if float(text) == 0 else text.replace("-", "−")


def comparison(metric: Metric, gain: Estimate, other: str) -> str:
    """A difference in words, e.g. ``0.42 points worse than trial 3 (95 % interval −0.92 to +0.08)``.

    Args:
        metric: What was compared.
        gain: The difference, turned so that positive is better; its interval is shown with that sign.
        other: What it was compared with.
    """
    if signed(metric, gain.value) == "0":
        words = f"the same as {other}"
    else:
        size = signed(metric, abs(gain.value)).removeprefix("+") + (" points" if metric.percent else "")
        words = f"{size} {'better' if gain.value > 0 else 'worse'} than {other}"
    interval = signed_interval(metric, gain)
    if not interval:
        return words
    return f"{words} ({interval}{'' if metric.higher_is_better else ', positive is better'})"


def signed_interval(metric: Metric, difference: Estimate) -> str:
    """The 95 % interval of a difference, e.g. ``95 % interval −0.10 to +0.92``; empty when there is none."""
    if difference.interval is None:
        return ""
    low, high = difference.interval
    return f"95 % interval {signed(metric, low)} to {signed(metric, high)}"


def plus_minus(metric: Metric, estimate: Estimate) -> str:
    """A score with half its 95 % interval, where there is one."""
    if estimate.margin is None:
        return metric.show(estimate.value)
    margin = f"{100 * estimate.margin:.2f}" if metric.percent else f"{estimate.margin:.2g}"
    return f"{metric.show(estimate.value).removesuffix(' %')} ± {margin}" + (" %" if metric.percent else "")


def duration(seconds: float) -> str:
    """Seconds in the unit people would choose."""
    if seconds < 120:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def plural(count: int, noun: str) -> str:
    """A count with its noun, e.g. ``1 trial`` or ``3 trials``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
