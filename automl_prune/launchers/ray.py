"""Workers as tasks of a Ray cluster, which places them by the cores and GPUs they declare, and tries them again."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from automl_prune.errors import AutomlPruneError, StudyError
from automl_prune.launchers.base import Launcher, Say

RETRIES = 5
"""How often Ray starts a worker again whose process or machine has died."""


@dataclass(frozen=True, slots=True)
class RayTasks:
    """Workers on a Ray cluster. A worker with a GPU sees that one alone and calls it ``cuda``.

    Attributes:
        count: How many, at least 1.
        address: Of the cluster, e.g. ``auto`` or ``ray://head:10001``; None starts Ray on this machine.
        cpus: Cores of each worker; Ray bounds its threads by them.
        gpus: GPUs of each worker; a fraction shares one.
        grace: Seconds that workers have to hand back their trials before they are killed.
    """

    count: int
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    grace: float = 10.0

    def describe(self) -> str:
        """E.g. ``16 workers as Ray tasks with 4 CPUs and 1 GPU each on auto``."""
        gpus = f" and {self.gpus:g} GPU{'' if self.gpus == 1 else 's'}" if self.gpus else ""
        cpus = f"{self.cpus:g} CPU{'' if self.cpus == 1 else 's'}"
        where = self.address or "this machine"
        return f"{self.count} worker{'' if self.count == 1 else 's'} as Ray tasks with {cpus}{gpus} each on {where}"

    def run(self, function: str, arguments: Mapping[str, Any], say: Say, tick: Callable[[], object]) -> None:
        """See ``Launcher.run``; what workers say goes to Ray's own logs."""
        ray = _ray()
        ours = not ray.is_initialized()
        if ours:
            ray.init(address=self.address, include_dashboard=False, log_to_driver=False)
        try:
            options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": RETRIES, "max_calls": 1}
            task = ray.remote(**options)(task_of_a_worker)
            pending = [task.remote(function, {**arguments, "number": n, "device": None}) for n in range(self.count)]
            try:
                while pending:
                    done, pending = ray.wait(pending, timeout=2)
                    for told in ray.get(done):
                        if told is not None:
                            raise StudyError(told)
                    tick()
            finally:
                self._cancel(ray, pending)
        except ray.exceptions.RayError as error:
            raise StudyError(f"a worker on Ray failed for good: {str(error).splitlines()[-1]}") from error
        finally:
            if ours:
                ray.shutdown()

    def _cancel(self, ray: Any, pending: list[Any]) -> None:
        """Interrupt the tasks as Ctrl-C would, and kill those that do not end in time."""
        for reference in pending:
            ray.cancel(reference, force=False)
        if pending:
            _, late = ray.wait(pending, num_returns=len(pending), timeout=self.grace)
            for reference in late:
                ray.cancel(reference, force=True)


def task_of_a_worker(function: str, arguments: Mapping[str, Any]) -> str | None:
    """What Ray runs: nothing is returned when all went well, else the message of an error that concerns everyone."""
    try:
        pkgutil.resolve_name(function)(**arguments, say=print)
    except (AutomlPruneError, OSError) as error:
        return str(error)
    return None


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise StudyError("--launcher ray needs Ray; install it with: pip install 'automl-prune[ray]'") from error
    return ray


_proof: Launcher = RayTasks(1)  # the type checker proves that it is one
