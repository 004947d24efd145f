"""Where workers run: in processes of this machine, or wherever a cluster's engine places them."""

from __future__ import annotations

from automl_prune.launchers.base import Launcher, Say, cores, threads_each
from automl_prune.launchers.processes import LocalProcesses
from automl_prune.launchers.ray import RayTasks

__all__ = ["Launcher", "LocalProcesses", "RayTasks", "Say", "cores", "threads_each"]
