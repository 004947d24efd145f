"""Fine-tuning with the dense model as teacher: processor seconds per step of a first and of a second candidate.

    OMP_NUM_THREADS=1 nice python experiments/benchmarks/finetune_cost.py

Candidates of one study share a ``Teacher``, which answers a batch it knows from memory. Both trainings give the same
bits. Writes ``results/finetune_cost.json``.
"""

from __future__ import annotations

import argparse
import copy
import time

from one_shot import HERE, Bench

from automl_prune.budget import Budget
from automl_prune.compression import choose_widths
from automl_prune.evaluation import FineTuning, Recipe, Teacher, finetune
from automl_prune.files import tensors_digest, write_json
from automl_prune.projection import Projector
from automl_prune.session import environment
from automl_prune.space import Space

RESULTS = HERE / "results" / "finetune_cost.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fashion_mnist_resnet20", help="a folder of experiments/ with weights")
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    bench = Bench(arguments.model)
    evaluator = bench.evaluator(["l1"], 0, Recipe())
    rows = []
    for share in (0.5, 0.25):
        projector = Projector(
            bench.graph, Space(criteria=("l1",)), Budget(macs=share).limits(bench.graph.dense_costs), evaluator.scores
        )
        small = evaluator.compress(evaluator.plan(choose_widths(projector, "l1", "uniform")))
        teacher, seconds, digests = Teacher(bench.model), [], set()
        for _ in range(2):
            start = time.process_time()
            trained = finetune(
                copy.deepcopy(small), bench.task, FineTuning(arguments.steps), seed=0, device=bench.device,
                teacher=teacher,
            )  # fmt: skip
            seconds.append((time.process_time() - start) / arguments.steps)
            digests.add(tensors_digest(trained.state_dict()))
        assert len(digests) == 1, "the second training gave other weights"
        rows.append({"macs": share, "first": seconds[0], "second": seconds[1], "ratio": seconds[0] / seconds[1]})
        print(f"{share:.0%} of the MACs: {seconds[0]:.3f} s, then {seconds[1]:.3f} s a step: {rows[-1]['ratio']:.2f}x")
    write_json(RESULTS, {"model": arguments.model, "rows": rows, "environment": environment(bench.device)})


if __name__ == "__main__":
    main()
