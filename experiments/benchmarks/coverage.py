"""Which models can be pruned, and is the result right? automl-prune and Torch-Pruning on torchvision and timm.

    python -m venv .venv-coverage && .venv-coverage/bin/pip install -e ".[coverage]"
    . .venv-coverage/bin/activate
    python experiments/benchmarks/coverage.py                      # everything, hours; goes on where it stopped
    python experiments/benchmarks/coverage.py --only "timm/resnet*" --again

timm and Torch-Pruning belong to this benchmark alone, hence the environment of its own (to save 5 GB, install both with
--no-deps and put a .pth file into its site-packages that names another environment's); without them their models and
columns are left out. Each measurement is a process with a time and a memory limit and adds a line to
``runs/coverage/results.jsonl``; the table and ``coverage.json`` under ``experiments/benchmarks/results/`` are computed
from all lines.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import platform
import sys
import warnings
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from coverage_lib import ours, peer, table
from coverage_lib.models import catalogue
from coverage_lib.runs import Journal, Limits, measured

from automl_prune.files import write_json, write_text

HERE = Path(__file__).parent


def main() -> None:
    """Measure what is missing, then write the tables."""
    arguments = parsed()
    warnings.simplefilter("ignore")  # of timm and the exporters
    entries = catalogue()
    wanted = [name for name in entries if any(fnmatch.fnmatch(name, pattern) for pattern in arguments.only)]
    if not wanted:
        sys.exit(
            f"--only {' '.join(arguments.only)} matches none of the {len(entries)} models, e.g. {next(iter(entries))}"
        )
    tools = table.TOOLS if arguments.tool == "both" else (arguments.tool,)
    if peer.available() is None:
        tools = tuple(tool for tool in tools if tool == "ours")
    limits = Limits(arguments.timeout, int(arguments.memory * 2**30), arguments.threads)
    journal = Journal(arguments.journal)
    known = {} if arguments.again else journal.read()
    todo = [(name, tool) for name in wanted for tool in tools if (name, tool) not in known]
    for number, (name, tool) in enumerate([] if arguments.table else todo, 1):
        action = partial(ours.measure, onnx=not arguments.no_onnx) if tool == "ours" else peer.measure
        result = measured(partial(action, entries[name]), limits)
        result |= {"model": name, "tool": tool, "kind": entries[name].kind, "size": entries[name].size}
        journal.append(result)
        print(f"{number}/{len(todo)} {name} {tool}: {table.verdict(result)}, {result['seconds']} s", flush=True)
    results = {key: result for key, result in journal.read().items() if key[0] in entries}
    document = {
        "environment": environment(limits),
        "summary": table.summary(results),
        "results": sorted(results.values(), key=lambda result: (result["model"], result["tool"])),
    }
    write_json(arguments.out / "coverage.json", document)
    write_text(arguments.out / "coverage.md", table.markdown(results, notes(document["environment"])))
    print(table.sentence(document["summary"]))


def environment(limits: Limits) -> dict[str, Any]:
    """What the figures depend on."""
    versions = {}
    for package in ("automl-prune", "torch", "torchvision", "timm", "torch-pruning", "onnxruntime"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "versions": versions,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "threads": limits.threads,
        "timeout_seconds": limits.seconds,
    }


def notes(found: dict[str, Any]) -> list[str]:
    """What a reader of the table has to know."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items() if number)
    return [
        f"{versions}; {found['threads']} thread(s), at most {found['timeout_seconds']:.0f} s a model; seconds are of "
        "the processor.",
        "Random weights, made lively (norms, scales and embeddings redrawn, layers of unit output); every group cut to "
        "a random half.",
        "`exact`: the pruned model equals the dense one with every removed parameter element zero, in double precision "
        f"to {table.EXACT:g} of the largest output. `exact, statistics frozen`: equal when norms and reductions over "
        "channels use the dense model's statistics in both. `exact, recomputed`: equal when the dense model computes "
        "what looks across channels from those that are left. The same judge for both tools; its errors stand in this "
        "order.",
        "`own widths`: the proof error when every group is cut by another ratio than the others.",
        "`sensitivity`: by how much removing the channels changes the output; were it tiny, the comparison would be "
        "empty.",
        "`channels`, `conv channels`: prunable share of the output channels of convolutions and linear layers, and of "
        "convolutions. `cut`: share that sits in layers which lost channels, for both tools; `params left` can be less "
        "where a tool removes more than the half it was asked for.",
        "Torch-Pruning: `tp.pruner.BasePruner`, random importance, ratio 0.5, the model's output layers ignored.",
    ]


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["*"], help="patterns of names, e.g. 'timm/resnet*'")
    parser.add_argument("--again", action="store_true", help="measure also what has a result")
    parser.add_argument("--tool", default="both", choices=("both", *table.TOOLS))
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one model")
    parser.add_argument("--memory", type=float, default=10, help="GiB for one model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-onnx", action="store_true", help="leave the export out")
    parser.add_argument("--table", action="store_true", help="only write the tables again")
    parser.add_argument("--journal", type=Path, default=Path("runs/coverage/results.jsonl"))
    parser.add_argument("--out", type=Path, default=HERE / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
