"""How each ATen operator moves labels. An operator without a rule protects what it touches, and is named."""

import torch

from automl_prune.channels.provenance import Provenance
from automl_prune.channels.rules import across, contraction, movement
from automl_prune.channels.rules.call import Call, Rule, not_followed, rule, rule_of, unknown
from automl_prune.channels.rules.contraction import ATTENTION
from automl_prune.channels.rules.pointwise import made_from_sizes, pointwise


def apply_rule(provenance: Provenance, call: Call) -> None:
    """Label what an operator returned, tying and protecting on the way; a rule that raises is as good as none."""
    if not call.tensors:
        function: Rule = made_from_sizes
    else:
        tagged = torch.Tag.pointwise in call.func.tags
        function = rule_of(call.func) or (pointwise if tagged else unknown)
    try:
        function(provenance, call)
    except Exception as error:  # the rule may be a user's, and a call of a form that it does not know
        not_followed(provenance, call, f"the rule of {call.name} failed: {type(error).__name__}: {error}")


__all__ = ["ATTENTION", "Call", "Rule", "across", "apply_rule", "contraction", "movement", "rule"]
