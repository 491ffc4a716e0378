"""How units pass through each layer and operation: the tables enter their rules when they are imported."""

from edgeprune.prune.channels.rules import attention, basic, elementwise, ops, recurrent, shape
from edgeprune.prune.channels.rules.registry import apply_rule, register

__all__ = ["apply_rule", "attention", "basic", "elementwise", "ops", "recurrent", "register", "shape"]
