"""The layer at fault where native code dies on a model: the first without which it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeprune.models.graph import View, flat, is_symbolic
from edgeprune.models.types import Layer, Node

if TYPE_CHECKING:
    import tf_keras

# A crash that takes longer to find is reported without its layer.
LIMIT_S = 120.0


def layer_at_fault(model: tf_keras.Model, dies: Callable[[tf_keras.Model], bool]) -> Layer | None:
    """Bisect the calls of a model, in the order of the data.

    Args:
        model: functional; ``dies`` is true of it.
        dies: whether the beginning of the model, with some of its inputs, is fatal, too.

    Returns:
        The layer whose call ends the shortest beginning that is fatal; None, if that takes too long to find.
    """
    view = View(model)
    calls = [node for node in view.nodes if not node.is_input]
    deadline = time.monotonic() + LIMIT_S
    alive, dead = 0, len(calls)  # numbers of calls at the beginning
    while dead - alive > 1:
        if time.monotonic() > deadline:
            return None
        middle = (alive + dead) // 2
        if dies(_beginning(view, calls[:middle])):
            dead = middle
        else:
            alive = middle
    return calls[dead - 1].layer if calls else None


def _beginning(view: View, calls: list[Node]) -> tf_keras.Model:
    """The model of the first calls: its outputs are what none of them reads."""
    import tf_keras

    kept = {id(node) for node in calls}
    tensors = [tensor for node in calls for tensor in flat(node.outputs) if is_symbolic(tensor)]
    ends = [
        tensor
        for tensor in tensors
        if view.is_end(tensor) or not any(id(reader) in kept for reader in view.readers(tensor))
    ]
    read = {id(tensor) for node in calls for tensor in node.keras_inputs}
    inputs = [tensor for tensor in view.model.inputs if id(tensor) in read]
    return tf_keras.Model(inputs, ends, name=view.model.name)
