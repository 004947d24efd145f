"""Bayesian optimisation with a Gaussian process for each objective."""

from __future__ import annotations

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler

from automl_prune.study.strategies.base import strategies


@strategies.register("gp")
def gp(seed: int) -> BaseSampler:
    """Expected hypervolume improvement (Daulton et al. 2020, arXiv:2006.05078, section 3), Matérn kernels.

    A proposal takes a third of a second, and more the more trials there are: for evaluations that take much longer.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # A score is no smooth function of a point (widths are rounded), which a noise term allows for.
        return GPSampler(seed=seed, n_startup_trials=10, warn_independent_sampling=False)
