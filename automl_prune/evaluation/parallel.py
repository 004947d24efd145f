"""One fine-tuning on several devices: a process for each, joined to data parallelism by Lightning Fabric.

Every process runs the same ``finetune`` on its part of every batch, and gradients are averaged over them, so the
weights are those that one process would get from the whole batch, up to rounding. Two exceptions: the masks of
dropout, and BatchNorm on the CPU, which normalises each part by itself; on CUDA it sees the whole batch
(SyncBatchNorm, which PyTorch has for accelerators alone). Every process reads whole batches, so that they are the
same batches in the same order: data must be read quickly enough for that.

Fabric rather than Accelerate: it joins processes that are there already (those of torchrun, or ours), brings mixed
precision with it, and does not ask for a client of a model hub.
"""

from __future__ import annotations

import copy
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from automl_prune.checkpoints import Checkpoint
from automl_prune.errors import AutomlPruneError, ConfigError, EvaluationError, Interrupted
from automl_prune.evaluation.finetune import FineTuning, finetune
from automl_prune.evaluation.memory import within_memory
from automl_prune.evaluation.teacher import Teacher
from automl_prune.files import load_tensors, save_tensors
from automl_prune.interruption import interrupts_deferred
from automl_prune.launchers import threads_each
from automl_prune.tasks.base import Batch, Task

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_LOG_LEVEL = "TORCH_CPP_LOG_LEVEL"
_GRACE = 10.0
"""Seconds that the other processes have to end when one has failed."""


@dataclass(frozen=True, slots=True)
class _Job:
    """What every process is given; pickled, and tensors on the CPU."""

    devices: tuple[torch.device, ...]
    model: nn.Module
    task: Task
    recipe: FineTuning
    seed: int
    teacher: nn.Module | None
    checkpoint: Checkpoint | None
    every: float
    weights: Path
    port: int


def check_devices(devices: Sequence[str], precision: str) -> tuple[torch.device, ...]:
    """The devices of a common fine-tuning, if they are here and can work together.

    Raises:
        ConfigError: They cannot, or Lightning Fabric is not installed.
    """
    try:
        places = tuple(torch.device(name) for name in devices)
    except RuntimeError as error:
        raise ConfigError(f"finalist_devices are {list(devices)}: {error}") from None
    kinds = {place.type for place in places}
    if places and kinds != {"cpu"} and (kinds != {"cuda"} or len(set(places)) < len(places)):
        raise ConfigError(
            f"finalist_devices are {list(devices)}; give CUDA devices, each once, e.g. [cuda:0, cuda:1], or [cpu, cpu]"
        )
    here = torch.cuda.device_count() if kinds == {"cuda"} else 0
    missing = [str(place) for place in places if place.type == "cuda" and not 0 <= (place.index or 0) < here]
    if missing:
        raise ConfigError(f"finalist_devices names {missing[0]}; this machine has {here} CUDA devices")
    if (len(places) > 1 or precision != "32-true") and find_spec("lightning_fabric") is None:
        raise ConfigError(
            "fine-tuning on several devices or in mixed precision needs Lightning Fabric: "
            "pip install 'automl-prune[multigpu]'"
        )
    return places


def finetune_on(
    devices: Sequence[torch.device],
    model: nn.Module,
    task: Task,
    recipe: FineTuning,
    *,
    seed: int,
    teacher: nn.Module | None = None,
    checkpoint: Checkpoint | None = None,
    every: float = 60.0,
    on_step: Callable[[int, int], None] | None = None,
) -> nn.Module:
    """``finetune`` in a process for each device; model and task must be picklable, as they are sent there.

    Args:
        devices: As ``check_devices`` gives them.
        model: Its weights change.
        task: As of ``finetune``, like all that follows.
        recipe: Likewise.
        seed: Likewise.
        teacher: The dense model.
        checkpoint: May have been written by another number of devices.
        every: Likewise.
        on_step: Likewise.

    Raises:
        EvaluationError: What ``finetune`` raises, or a process has died.
        ConfigError: Model or task cannot be pickled.
    """
    with tempfile.TemporaryDirectory(prefix="automl-prune-") as folder:
        weights = Path(folder) / "weights.safetensors"
        sent = copy.deepcopy(model).cpu(), None if teacher is None else copy.deepcopy(teacher).cpu()
        job = _Job(tuple(devices), sent[0], task, recipe, seed, sent[1], checkpoint, every, weights, _free_port())
        _run(job, on_step)
        tensors, _ = load_tensors(weights)
    model.load_state_dict(tensors)
    return model.eval()


def _run(job: _Job, on_step: Callable[[int, int], None] | None) -> None:
    """Start a process for each device and wait for them; a request to stop is passed on, and has its effect after."""
    words: Any = torch.multiprocessing.get_context("spawn").SimpleQueue()
    failure: AutomlPruneError | None = None

    def listen() -> None:
        nonlocal failure
        while not words.empty():
            word = words.get()
            if isinstance(word, AutomlPruneError):
                failure = failure or word
            elif on_step is not None:
                on_step(*word)

    with interrupts_deferred() as asked_to_stop:
        processes = _start(job, words)
        told = False
        try:
            while not processes.join(timeout=0.1, grace_period=_GRACE):
                listen()
                if asked_to_stop() and not told:
                    told = True
                    for process in processes.processes:
                        process.terminate()
            listen()
        except (ProcessExitedException, ProcessRaisedException) as error:
            listen()
            where = ", ".join(map(str, job.devices))
            last = str(error).strip().splitlines()[-1]
            raise failure or EvaluationError(f"fine-tuning on {where} failed: {last}") from None
        finally:
            for process in processes.processes:
                if process.is_alive():
                    process.kill()


def _start(job: _Job, words: Any) -> Any:
    before = os.environ.get(_LOG_LEVEL)
    os.environ[_LOG_LEVEL] = "ERROR"  # DDP warns that it looked for unused parameters and found none
    try:
        return start_processes(_rank, (job, words), nprocs=len(job.devices), join=False, start_method="spawn")
    except (TypeError, AttributeError, ValueError) as error:  # what pickle raises
        raise ConfigError(
            f"the model or the data cannot be sent to the processes that fine-tune them ({error}); define their "
            "classes and functions at the top of a module, or leave out evaluation.finalist_devices"
        ) from error
    finally:
        if before is None:
            del os.environ[_LOG_LEVEL]
        else:
            os.environ[_LOG_LEVEL] = before


def _rank(number: int, job: _Job, words: Any) -> None:
    """The life of one process."""
    os.setsid()  # Ctrl-C reaches the parent alone, which tells the others
    signal.signal(signal.SIGTERM, _interrupt)
    torch.set_num_threads(threads_each(len(job.devices)))
    try:
        device = job.devices[number]
        with within_memory(device):
            _train(number, device, job, words)
    except KeyboardInterrupt:
        pass
    except AutomlPruneError as error:
        words.put(error)
        raise SystemExit(1) from error
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # its threads would abort a process that ends before them


def _train(number: int, device: torch.device, job: _Job, words: Any) -> None:
    ranks = FabricRanks(_fabric(number, job), number, len(job.devices))
    model = copy.deepcopy(job.model).to(device)  # what was sent lies in memory that all processes share
    if device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    trained = finetune(
        model,
        job.task,
        job.recipe,
        seed=job.seed,
        device=device,
        teacher=None if job.teacher is None else Teacher(job.teacher.to(device)),
        checkpoint=job.checkpoint,
        every=job.every,
        on_step=(lambda done, total: words.put((done, total))) if ranks.first else None,
        ranks=ranks,
    )
    if ranks.first:
        save_tensors(job.weights, trained.state_dict())


def _fabric(number: int, job: _Job) -> Fabric:
    """This process's Fabric, which finds the others as torchrun's processes find each other: by the environment."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)  # "Initializing distributed", for every process
    given = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": len(job.devices), "MASTER_PORT": job.port}
    os.environ.update({name: str(value) for name, value in given.items()} | {"MASTER_ADDR": "127.0.0.1"})
    cuda = job.devices[0].type == "cuda"
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=[place.index or 0 for place in job.devices] if cuda else len(job.devices),
        strategy=DDPStrategy(find_unused_parameters=True),  # auxiliary heads that the loss leaves out
        precision=job.recipe.precision,
        plugins=[TorchElasticEnvironment()],
    )
    fabric.launch()
    return fabric


class FabricRanks:
    """See ``Ranks``.

    Args:
        fabric: Launched.
        rank: This process among the others, from 0.
        size: How many they are.
    """

    def __init__(self, fabric: Fabric, rank: int, size: int) -> None:
        self._fabric, self._rank, self._size = fabric, rank, size
        self.first = rank == 0

    def join(self, model: nn.Module) -> nn.Module:
        """See ``Ranks.join``."""
        return self._fabric.setup_module(model)

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """Every so manieth sample; tensors are taken apart along their first dimension."""
        samples = _samples(batch)
        if samples < self._size:
            raise ConfigError(f"a batch of {samples} samples has no part for each of {self._size} devices; use fewer")
        part = _part(batch, self._rank, self._size)
        return part, _samples(part) * self._size / samples

    def backward(self, loss: torch.Tensor) -> None:
        """See ``Ranks.backward``."""
        self._fabric.backward(loss)

    def mean(self, value: torch.Tensor) -> float:
        """See ``Ranks.mean``."""
        mean = self._fabric.all_reduce(value.detach().clone(), reduce_op="mean")
        assert isinstance(mean, torch.Tensor)
        return mean.item()

    def any(self, flag: bool) -> bool:
        """See ``Ranks.any``."""
        return self.mean(torch.tensor(float(flag), device=self._fabric.device)) > 0


def _part(batch: Batch, rank: int, size: int) -> Batch:
    if isinstance(batch, torch.Tensor):
        return batch[rank::size] if batch.dim() else batch
    if isinstance(batch, Mapping):
        return {key: _part(value, rank, size) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(_part(value, rank, size) for value in batch)
    return batch


def _samples(batch: Batch) -> int:
    """Of the first tensor that has any."""
    if isinstance(batch, torch.Tensor):
        return len(batch) if batch.dim() else 0
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (tuple, list)) else ()
    return next((count for value in values if (count := _samples(value))), 0)


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted(f"stopped by {signal.Signals(number).name}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
