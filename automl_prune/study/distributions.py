"""The search space as Optuna's distributions, and stored trials with the parameters that belong to them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from automl_prune.space import FloatParameter, Parameter
from automl_prune.study.codec import POINT, violations_of


class Distributions(dict[str, BaseDistribution]):
    """What Optuna samples from, by parameter name; never changed, so that it need not be copied with every trial."""

    def __deepcopy__(self, memo: object) -> Distributions:
        return self


def distributions(parameters: Iterable[Parameter]) -> Distributions:
    """The search space of parameters, in the order given."""
    return Distributions(
        {
            parameter.name: FloatDistribution(parameter.low, parameter.high)
            if isinstance(parameter, FloatParameter)
            else CategoricalDistribution(parameter.choices)
            for parameter in parameters
        }
    )


def space_of(identity: Mapping[str, Any]) -> Distributions:
    """The search space in a stored study's identity, as ``distributions`` gives it."""
    return Distributions(
        {
            name: CategoricalDistribution(given["choices"]) if "choices" in given else FloatDistribution(**given)
            for name, given in identity["space"].items()
        }
    )


def with_parameters(
    trial: FrozenTrial,
    state: OptunaState,
    space: Distributions,
    attributes: Mapping[str, Any],
    bounds: Container[str] | None = None,
) -> FrozenTrial:
    """A stored trial as Optuna's samplers and its dashboard see one: parameters and, when complete, constraints.

    Args:
        trial: As it is stored.
        state: The state it is to have.
        space: Distributions of its point.
        attributes: The user attributes it is to have.
        bounds: The budgets whose constraints it is to have; None for all.
    """
    complete = state == OptunaState.COMPLETE
    shown = FrozenTrial(
        number=trial.number,
        state=state,
        value=None,
        values=trial.values if complete else None,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete if state.is_finished() else None,
        params=dict(trial.user_attrs[POINT]),
        distributions=space,
        user_attrs=dict(attributes),
        system_attrs={},
        intermediate_values={},
        trial_id=trial._trial_id,
    )
    for metric, excess in violations_of(trial).items() if complete else ():
        if bounds is None or metric in bounds:
            shown.set_constraint(metric, excess)
    return shown
