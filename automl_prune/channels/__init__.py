"""Channel groups: found by provenance, planned, cut and proved."""

from automl_prune.channels.graph import ChannelGraph
from automl_prune.channels.group import ChannelGroup, Member, Skipped
from automl_prune.channels.plan import Plan
from automl_prune.channels.proof import proof_error, prove
from automl_prune.channels.provenance import Labels, Provenance
from automl_prune.channels.rules import Call, rule
from automl_prune.channels.surgery import prune, slice_model

__all__ = [
    "Call", "ChannelGraph", "ChannelGroup", "Labels", "Member", "Plan", "Provenance", "Skipped", "proof_error",
    "prove", "prune", "rule", "slice_model",
]  # fmt: skip
