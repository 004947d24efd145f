"""Tree-structured Parzen estimators over all parameters together."""

from __future__ import annotations

from optuna.samplers import BaseSampler, TPESampler

from automl_prune.study.strategies.base import strategies


@strategies.register("tpe")
def tpe(seed: int) -> BaseSampler:
    """Bergstra et al. 2011, "Algorithms for hyper-parameter optimization", section 4; multivariate, multi-objective."""
    # multivariate: univariate TPE, Optuna's default with two objectives, was worse than random in 40 dimensions.
    # n_startup_trials: baselines count, so that with some ten of them hardly a trial is spent on chance alone.
    return TPESampler(seed=seed, multivariate=True, n_startup_trials=10)
