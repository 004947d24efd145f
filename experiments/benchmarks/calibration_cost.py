"""What statistics cost: seconds and peak memory of calibration, of a criterion's order and of one reconstruction.

    OMP_NUM_THREADS=2 python experiments/benchmarks/calibration_cost.py resnet20
    OMP_NUM_THREADS=2 python experiments/benchmarks/calibration_cost.py resnet50

Weights and images are random: neither matters to the cost. ResNet-20 reads 28 x 28 pixels, torchvision's ResNet-50
224 x 224 in batches of 16. Each run is a process of its own, whose peak resident memory is the kernel's count; results
go to ``results/calibration_cost.json``.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from automl_prune.calibration import CalibrationSettings, collect
from automl_prune.calibration.store import load, save
from automl_prune.channels import ChannelGraph, prune
from automl_prune.criteria import CriterionContext, score_groups
from automl_prune.evaluation import reconstruct
from automl_prune.files import read_json, write_json
from automl_prune.models import resnet20
from automl_prune.seeding import generator, seeded
from automl_prune.session import environment
from automl_prune.tasks import Score, Task
from automl_prune.tasks.classification import ACCURACY

RESULTS = Path(__file__).parent / "results" / "calibration_cost.json"


def _resnet50() -> nn.Module:
    from torchvision.models import resnet50

    model: nn.Module = resnet50(weights=None)
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "resnet20": (lambda: resnet20(num_classes=10, in_channels=1), (1, 28, 28), 128),
    "resnet50": (_resnet50, (3, 224, 224), 16),
}


@dataclass(frozen=True)
class RandomImages:
    """As many random images as are asked for, made batch by batch."""

    shape: tuple[int, ...]
    batch_size: int
    samples: int
    name: ClassVar[str] = "random images"
    metric: ClassVar[Any] = ACCURACY
    preprocessing: ClassVar[Any] = None
    digest: ClassVar[str] = "random"

    @property
    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        return (torch.randn(2, *self.shape, generator=generator("example")),)

    def batches(self, split: str, *, shuffle: int | None = None, augment: bool = False) -> Any:
        return self

    def __len__(self) -> int:
        return (self.samples + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[Any]:
        for number in range(len(self)):
            random = generator("images", number)
            images = torch.randn(self.batch_size, *self.shape, generator=random)
            yield images, torch.randint(10, (self.batch_size,), generator=random)

    def inputs(self, batch: Any) -> tuple[torch.Tensor, ...]:
        return (batch[0],)

    def loss(self, outputs: Any, batch: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs, batch[1])

    def distillation_loss(self, outputs: Any, teacher_outputs: Any) -> torch.Tensor:
        return torch.nn.functional.mse_loss(outputs, teacher_outputs)

    def score(self, predictions: Any) -> Score:
        hits = [(outputs.argmax(1) == batch[1]).sum().item() for outputs, batch in predictions]
        return Score.of_proportion(int(sum(hits)), len(self) * self.batch_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("--criterion", default="obs")
    parser.add_argument("--samples", type=int, default=1024)
    arguments = parser.parse_args()
    measured = _measure(arguments.model, arguments.criterion, arguments.samples)
    document = read_json(RESULTS) if RESULTS.is_file() else {}
    document[f"{arguments.model}, {arguments.criterion}, {arguments.samples} samples"] = measured
    write_json(RESULTS, document)
    print(measured)


def _measure(name: str, criterion: str, samples: int) -> dict[str, Any]:
    build, shape, batch_size = MODELS[name]
    with seeded("calibration cost"):
        model = build().eval()
    task: Task = RandomImages(shape, batch_size, samples)
    device, seconds, processor, memory = torch.device("cpu"), {}, {}, {}
    marks = [("start", time.perf_counter(), time.process_time())]

    def mark(step: str) -> None:
        marks.append((step, time.perf_counter(), time.process_time()))
        seconds[step] = round(marks[-1][1] - marks[-2][1], 2)
        processor[step] = round(marks[-1][2] - marks[-2][2], 2)
        memory[step] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"{step}: {seconds[step]} s ({processor[step]} s of processor time), peak {memory[step]} MiB", flush=True)

    graph = ChannelGraph.trace(model, task.example_inputs)
    mark("trace")
    calibration = collect(model, task, CalibrationSettings(samples=samples), device=device)
    mark("calibrate")
    path = Path("runs") / "benchmarks" / f"{name}.calibration.safetensors"
    save(calibration, path)
    mark("save")
    del calibration
    calibration = load(path)
    mark("load")
    scores = score_groups(graph.groups, CriterionContext.of(model, 0, calibration), criterion)
    mark(f"order by {criterion}")
    plan = graph.plan({name: torch.topk(s, -(-len(s) // 2)).indices.tolist() for name, s in scores.items()})
    small = prune(model, plan)
    mark("prune")
    reconstruct(small, model, plan, calibration)
    mark("reconstruct")
    size = path.stat().st_size
    path.unlink()
    return {
        "seconds": seconds,
        "processor_seconds": processor,
        "peak_mib_so_far": memory,
        "file_mib": size // 2**20,
        "environment": environment(device),
    }


if __name__ == "__main__":
    main()
