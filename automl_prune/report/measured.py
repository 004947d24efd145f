"""Measured latencies: where exported models have theirs, and what a reader must be told beside the number."""

from __future__ import annotations

from automl_prune.costs import Cost
from automl_prune.costs.latency import cost_of
from automl_prune.errors import CheckpointError
from automl_prune.export.bundle import MANIFEST
from automl_prune.files import read_json
from automl_prune.report.words import cost_value, percent
from automl_prune.study.directory import RunDirectory

SLOWER = "slower than dense"
NO_FASTER = "no faster than dense"
NOISY = "noisy"


def exported_latencies(directory: RunDirectory) -> dict[int, Cost]:
    """The latencies of a run directory's exported models, by trial; a model without a measurement is left out.

    Raises:
        CheckpointError: A manifest is damaged, or of another version of this package.
    """
    found = {}
    for trial, folder in directory.exported():
        manifest = read_json(folder / MANIFEST)
        if "latency" not in manifest:
            continue
        try:
            found[trial] = cost_of(manifest["latency"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the latency in {folder / MANIFEST} was written by another version, or changed ({error!r}); remove "
                f"{folder} and export the trial again"
            ) from error
    return found


def remarks(cost: Cost) -> list[str]:
    """What a measured latency must not be read without: not below the dense model's, or noisy; of other costs nothing.

    A model is slower when the whole 95 % interval is above the dense model's latency, and no faster when a part is.
    """
    if cost.metric != "latency":
        return []
    low, high = cost.interval or (cost.value, cost.value)
    found = [SLOWER] if low > cost.dense else [NO_FASTER] if high >= cost.dense else []
    return [*found, *([NOISY] if cost.noisy else [])]


def cost_beside_dense(cost: Cost) -> str:
    """A cost, its fraction of the dense model's and its remarks: ``2.1 ms (104.0 %, slower than dense)``."""
    return f"{cost_value(cost.metric, cost.value)} ({', '.join([percent(cost.ratio), *remarks(cost)])})"


def latency_sentence(cost: Cost, limit: float | None = None) -> str:
    """An exported model's latency in words, with what to do where it is over budget, slower than dense or noisy.

    Args:
        cost: The latency, measured.
        limit: Seconds that the budget allows.
    """
    low, high = (end / cost.dense for end in cost.interval or (cost.value, cost.value))
    text = (
        f"Latency: {cost_value('latency', cost.value)}, {cost.ratio:.1%} of the dense model's "
        f"(95 % interval {low:.1%} to {high:.1%})"
    )
    if cost.noisy:
        text += f"; {NOISY}: {cost.noisy}"
    if limit is not None and cost.value > limit:
        text += (
            f"; over the budget of {cost_value('latency', limit)}, which the candidate kept when it was searched: ask "
            "for a little less, or delete its folder and export it again on a quiet machine"
        )
    for remark in remarks(cost):
        if remark != NOISY:
            text += f"; {remark}: bound latency in the budget, or set round_to: auto in the search space"
    return text
