"""A model's card: what a click on its mark or its number shows. Plain values; the page's script lays them out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from automl_prune.candidate import Candidate
from automl_prune.evaluation.record import Evaluation
from automl_prune.factories import to_trust
from automl_prune.report.data import Missing, ReportData, TrialRow
from automl_prune.report.estimate import Estimate
from automl_prune.report.hover import keep
from automl_prune.report.measured import cost_beside_dense
from automl_prune.report.table import FrontRow, completed
from automl_prune.report.words import cost_label, factor, plus_minus
from automl_prune.study.record import TrialRecord


def cards(data: ReportData) -> dict[int, dict[str, Any]]:
    """The cards of all completed trials, by number."""
    finalists = {} if isinstance(data.finalists, Missing) else {row.trial: row for row in data.finalists}
    names = {name: index for index, name in enumerate(criteria_names(data))}
    return {
        row.trial.number: _card(data, row, finalists.get(row.trial.number), names)
        for row in data.trials
        if row.trial.evaluation is not None
    }


def shared(data: ReportData) -> dict[str, Any]:
    """What all cards need: groups with dense widths, criteria, the chosen trial, and how an export begins."""
    return {
        "groups": list(data.context.group_widths.items()),
        "criteria": criteria_names(data),
        "chosen": data.answer.row.trial if data.answer.row else None,
        "export": f"{model_command(data, 'export')} --trial ",
    }


def model_command(data: ReportData, name: str) -> str:
    """How a command begins that builds this study's model: it runs code of the packages that are to be trusted."""
    trust = (f"--trust {shlex.quote(package)}" for package in to_trust(data.context.config))
    return " ".join([f"automl-prune {name}", shlex.quote(str(data.run_dir)), *trust])


def criteria_names(data: ReportData) -> list[str]:
    """Every criterion that a completed trial used, in alphabetical order."""
    return sorted({c.criterion for _, e in completed(data.record) for c in e.candidate.choices.values()})


def loading(data: ReportData, trial: int) -> list[tuple[str, str]]:
    """How to use the files of an exported model: pairs of a purpose and a line of Python."""
    folder = data.run_dir / "models" / str(trial)
    model = data.context.config.get("model")
    factory = model.get("factory") if isinstance(model, Mapping) else None
    line = f"model = automl_prune.load_pruned({json.dumps(str(folder))}, factory())"
    return [
        (
            "Load it in Python, into the dense model's own factory",
            line + (f"  # factory: {factory}" if factory else ""),
        ),
        ("Run it without torch", f"session = onnxruntime.InferenceSession({json.dumps(str(folder / 'model.onnx'))})"),
    ]


def _card(data: ReportData, row: TrialRow, finalist: FrontRow | None, names: Mapping[str, int]) -> dict[str, Any]:
    evaluation, widths = row.trial.evaluation, data.context.group_widths
    if evaluation is None:
        raise ValueError(f"trial {row.trial.number} is {row.trial.state}; only a completed one has a card")
    status = row.status if finalist is None else f"finalist, {'on the front' if finalist.on_front else 'dominated'}"
    chosen = ", chosen" if data.answer.row is not None and data.answer.row.trial == row.trial.number else ""
    return {
        "about": f"{row.trial.origin}, {status}{chosen}",
        "facts": [*_facts(data, evaluation, finalist), ("criterion × groups", row.criteria), *_start(row.trial)],
        "kept": [keep(evaluation.candidate, name, dense) for name, dense in widths.items()],
        "criteria": _criteria(evaluation.candidate, widths, names),
        "exportable": bool(row.trial.feasible),
        **_files(data, row.trial),
    }


def _facts(data: ReportData, evaluation: Evaluation, finalist: FrontRow | None) -> list[tuple[str, str]]:
    """Scores at every rung and as a finalist, then costs."""
    metric = data.context.metric
    facts = [
        (f"{metric.name}, validation (rung {rung.rung})", plus_minus(metric, Estimate.of([rung.score])))
        for rung in evaluation.rungs
    ]
    if finalist is not None and finalist.test is not None:
        facts += [
            ("the same, as a finalist", plus_minus(metric, finalist.val)),
            (f"{metric.name}, test ({finalist.test.seeds} seeds)", plus_minus(metric, finalist.test)),
        ]
    costs = finalist.costs if finalist is not None else evaluation.costs
    facts += [(cost_label(name), cost_beside_dense(cost)) for name, cost in costs.items()]
    if finalist is not None and finalist.efficiency is not None:
        facts.append(("efficiency", factor(finalist.efficiency)))
    return facts


def _start(trial: TrialRecord) -> list[tuple[str, str]]:
    """What the widths were corrected from, where the search proposed them and had a choice."""
    allocation = trial.point.get("allocation")
    return [("widths corrected from", f"{allocation} ones")] if trial.origin == "search" and allocation else []


def _files(data: ReportData, trial: TrialRecord) -> dict[str, Any]:
    """Where the exported model lies and how to load it, or why there can be none."""
    if trial.number in data.exported:
        folder = data.run_dir / "models" / str(trial.number)
        note = f"Exported and verified: model.onnx, weights.safetensors, plan.json, manifest.json in {folder}."
        return {"note": note, "commands": loading(data, trial.number)}
    return {} if trial.feasible else {"note": "Over budget: it is never on the front and never exported."}


def _criteria(candidate: Candidate, groups: Mapping[str, int], names: Mapping[str, int]) -> int | list[int]:
    """The criterion of every group by its index, -1 where all channels are kept; one number where all are the same."""
    found = [names[candidate.choices[name].criterion] if name in candidate.choices else -1 for name in groups]
    return found[0] if len(set(found)) == 1 else found
