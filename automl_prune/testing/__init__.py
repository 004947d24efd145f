"""Contract suites: what every implementation of a plug-in has to satisfy, ours and third parties'.

A package that adds a criterion runs ``check_criterion("mine", mine)`` in its own tests, one that adds a strategy
``check_strategy("mine", "front")``. A broken contract raises ``AssertionError`` that says which one.
"""

from automl_prune.testing.criterion import check_criterion
from automl_prune.testing.strategy import check_improvement, check_strategy

__all__ = ["check_criterion", "check_improvement", "check_strategy"]
