"""From results to verdicts, a summary and a markdown table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Result = Mapping[str, Any]
Results = Mapping[tuple[str, str], Result]

EXACT = 1e-8
"""Largest relative difference in double precision that counts as none."""

RIGHT = ("exact", "exact, statistics frozen", "exact, recomputed")
TOOLS = ("ours", "torch-pruning")


def verdict(result: Result | None) -> str:
    """One phrase for what became of a model; the first thing that went wrong decides."""
    if result is None:
        return "not measured"
    if not result.get("pruned"):
        return result["status"] if result["status"] != "done" else "crash"
    if not result.get("groups"):
        return "all protected"
    if result.get("forward") is not True:
        return "broken: forward" if "forward" in result else result["status"]
    oracle = result.get("oracle")
    if not isinstance(oracle, Mapping):
        return "broken: other operators" if oracle else result["status"]
    right = _right(oracle)
    own = result.get("own_widths", 0.0)
    if right is None or isinstance(own, str) or not own <= EXACT:  # NaN too
        return "differs"
    if result.get("backward") is not True:
        return "broken: training" if "backward" in result else result["status"]
    return right


def _right(oracle: Mapping[str, float]) -> str | None:
    errors = (oracle.get(name, float("inf")) for name in ("error", "frozen_error", "recomputed_error"))
    return next((name for name, error in zip(RIGHT, errors, strict=True) if error <= EXACT), None)


def summary(results: Results) -> dict[str, Any]:
    """Counts over all models, by tool, and the goals of the benchmark."""
    models = sorted({model for model, _ in results})
    found: dict[str, Any] = {"models": len(models)}
    for tool in TOOLS:
        rows = {model: results[model, tool] for model in models if (model, tool) in results}
        if rows:
            verdicts = Counter(verdict(row) for row in rows.values())
            right = sum(verdicts[name] for name in RIGHT)
            found[tool] = {
                "measured": len(rows),
                "verdicts": dict(verdicts.most_common()),
                "right": right,
                "right_share": right / len(rows),
            }
    ours = {model: results[model, "ours"] for model in models if (model, "ours") in results}
    convolutional = [row for row in ours.values() if row.get("kind") == "cnn" and "conv_share" in row]
    wide = [row for row in convolutional if row["conv_share"] >= 0.8]
    found["cnn"] = {"measured": len(convolutional), "at_least_80_percent": len(wide)}
    found["narrower"] = [model for model in models if _narrower(ours.get(model), results.get((model, TOOLS[1])))]
    for step in ("reload", "deepcopy", "costs", "onnx"):
        done = [row[step] for row in ours.values() if step in row]
        found[step] = {"tried": len(done), "equal": sum(value is True for value in done)}
    return found


def _narrower(ours: Result | None, peer: Result | None) -> bool:
    """Whether the peer is right and cuts layers with more channels than we do, by a hundredth of all or more."""
    if ours is None or peer is None or verdict(peer) not in RIGHT:
        return False
    if verdict(ours) not in RIGHT:
        return True
    return bool(peer["cut_share"] - ours["cut_share"] > 0.01)


def sentence(found: Mapping[str, Any]) -> str:
    """The summary in words."""
    parts = [f"{found['models']} models."]
    for tool in TOOLS:
        if tool in found:
            one = found[tool]
            share = 100 * one["right_share"]
            others = ", ".join(f"{n} {name}" for name, n in one["verdicts"].items())
            title = "automl-prune" if tool == "ours" else "Torch-Pruning"
            parts.append(f"{title}: {one['right']} of {one['measured']} ({share:.1f} %) pruned and right ({others}).")
    if TOOLS[1] in found:
        parts.append(
            f"Torch-Pruning is right and cuts more layers than ours: {', '.join(found['narrower']) or 'nowhere'}."
        )
    cnn = found["cnn"]
    parts.append(
        f"At least 80 % of the convolution channels prunable: {cnn['at_least_80_percent']} of {cnn['measured']} CNNs."
    )
    equal = [
        f"{name} {found[name]['equal']}/{found[name]['tried']}" for name in ("reload", "deepcopy", "costs", "onnx")
    ]
    parts.append(f"Equal after {', '.join(equal)}.")
    return " ".join(parts)


Column = tuple[str, Callable[[Result], str]]


def markdown(results: Results, notes: Sequence[str]) -> str:
    """The table and the summary; columns of a tool that was not measured are left out."""
    found = summary(results)
    with_peer = "torch-pruning" in found
    names = [title for title, _ in _OURS] + ([f"TP {title}" for title, _ in _PEER] if with_peer else [])
    lines = ["# Coverage", "", sentence(found), ""]
    lines += [*(f"- {note}" for note in notes), ""]
    if not with_peer:
        lines += ["Torch-Pruning was not installed, so its columns are left out.", ""]
    lines += ["| model | kind | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 2)]
    for model in sorted({model for model, _ in results}, key=lambda name: (not name.startswith("torchvision"), name)):
        ours, peer = results.get((model, "ours")), results.get((model, "torch-pruning"))
        cells = [model, str((ours or peer or {}).get("kind", ""))]
        cells += [column(ours) if ours else "" for _, column in _OURS]
        cells += [column(peer) if peer else "" for _, column in _PEER] if with_peer else []
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    lines += ["", "## What is protected or failed", ""]
    for (model, tool), result in sorted(results.items()):
        lines += _remarks(model, tool, result)
    return "\n".join(lines) + "\n"


def _remarks(model: str, tool: str, result: Result) -> list[str]:
    said = [f"{result['status']} in {result.get('stage', 'start')}"] if result["status"] != "done" else []
    said += [str(result["error"])] if "error" in result else []
    said += [f"{s}: {result[s]}" for s in _STEPS if isinstance(result.get(s), str)]
    said += [reason for reason in result.get("skipped", ()) if not reason.endswith("they are the model's output")]
    return [f"- {model}, {tool}: " + "; ".join(said)] if said else []


_STEPS = ("forward", "backward", "reload", "deepcopy", "costs", "proof_error", "own_widths", "oracle", "onnx")


def _percent(key: str) -> Callable[[Result], str]:
    return lambda result: f"{100 * result[key]:.0f} %" if key in result else ""


def _mark(key: str) -> Callable[[Result], str]:
    return lambda result: {True: "yes", None: ""}.get(result.get(key), "**no**")


def _number(key: str) -> Callable[[Result], str]:
    return lambda result: f"{result[key]:.0e}" if isinstance(result.get(key), float) else ""


def _oracle(result: Result) -> str:
    oracle = result.get("oracle")
    if not isinstance(oracle, Mapping):
        return ""
    names = ("error", "frozen_error", "recomputed_error")
    return ", ".join(f"{oracle[name]:.0e}" for name in names if name in oracle)


def _sensitivity(result: Result) -> str:
    oracle = result.get("oracle")
    return f"{oracle['sensitivity']:.1e}" if isinstance(oracle, Mapping) else ""


def _seconds(key: str) -> Callable[[Result], str]:
    return lambda result: f"{result[f'{key}_seconds']['processor']:.2f}" if f"{key}_seconds" in result else ""


def _left(result: Result) -> str:
    return f"{100 * result['params_left'] / result['params']:.0f} %" if "params_left" in result else ""


_OURS: tuple[Column, ...] = (
    ("verdict", verdict), ("channels", _percent("share")), ("conv channels", _percent("conv_share")),
    ("cut", _percent("cut_share")), ("groups", lambda result: str(result.get("groups", ""))), ("params left", _left),
    ("train", _mark("backward")), ("reload", _mark("reload")), ("copy", _mark("deepcopy")), ("costs", _mark("costs")),
    ("ONNX", _mark("onnx")), ("proof error", _number("proof_error")), ("own widths", _number("own_widths")),
    ("oracle", _oracle),
    ("sensitivity", _sensitivity), ("trace s", _seconds("trace")), ("proof s", _seconds("proof")),
    ("apply s", _seconds("apply")),
)  # fmt: skip
_PEER: tuple[Column, ...] = (
    ("verdict", verdict), ("cut", _percent("cut_share")), ("params left", _left), ("oracle", _oracle),
    ("trace s", _seconds("trace")), ("prune s", _seconds("apply")),
)  # fmt: skip
