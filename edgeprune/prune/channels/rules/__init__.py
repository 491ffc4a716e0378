"""How units pass through each layer and operation: the tables enter their rules when they are imported.

What a rule of one's own needs (see :func:`register_rule`) can be imported from here.
"""

from edgeprune.prune.channels.call import Call
from edgeprune.prune.channels.graph import Axes
from edgeprune.prune.channels.rules import attention, basic, elementwise, ops, recurrent, shape
from edgeprune.prune.channels.rules.axes import channel_axis, freeze_others, length, like_output, replace_axis
from edgeprune.prune.channels.rules.basic import check_activation
from edgeprune.prune.channels.rules.registry import apply_rule, opaque, register_rule

__all__ = [
    "Axes",
    "Call",
    "apply_rule",
    "attention",
    "basic",
    "channel_axis",
    "check_activation",
    "elementwise",
    "freeze_others",
    "length",
    "like_output",
    "opaque",
    "ops",
    "recurrent",
    "register_rule",
    "replace_axis",
    "shape",
]
