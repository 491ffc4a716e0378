"""Recurrent layers that the converter makes WHILE loops of, which its calibrator cannot run: found, and written out.

The converter fuses an LSTM layer of standard form into one operator (``prepare_composite_functions_tf.cc`` of
TensorFlow). All other recurrent layers become loops, and the calibrator reads past the tensors of a loop's body: the
process dies. With ``unroll=True``, the same steps are operators in a row.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from edgeprune.errors import ConversionError, ModelError, VerificationError
from edgeprune.models.graph import View, flat
from edgeprune.models.rebuild import config_of, copy_layer, copy_weights, make_like, rebuild, with_layers
from edgeprune.models.types import Layer, Node, Tensor
from edgeprune.models.verify import check_same
from edgeprune.quantize.plan import RULES
from edgeprune.recipe.config import Mode

if TYPE_CHECKING:
    import tf_keras

# Written out, every step is some 20 operators: more steps make large files that are slow to convert. The number is a
# choice, not a measurement.
MAX_STEPS = 256

DYNAMIC = 'take a format without calibration, modes = ["dynamic"] under [quantize] of the recipe'
_LOOP_NODES = {"While", "StatelessWhile"}


@dataclasses.dataclass(frozen=True)
class Obstacle:
    """Why the steps of a loop cannot be written out, and what can be changed about the layer."""

    why: str
    fix: str


@dataclasses.dataclass(frozen=True)
class Loop:
    """A layer that becomes a WHILE loop.

    Attributes:
        layer: its name.
        kind: its class, with that of the layer that it wraps.
        steps: how often the loop runs; None where that is not known before it runs.
        obstacle: None where the steps can be written out.
    """

    layer: str
    kind: str
    steps: int | None
    obstacle: Obstacle | None = None


def loops(model: tf_keras.Model) -> list[Loop]:
    """The layers of a functional model that become WHILE loops, each once, in the order of the data."""
    view = View(model)
    found: dict[str, Loop] = {}
    for node in view.nodes:
        loop = None if node.is_input else _loop(node, view)
        if loop is not None and (node.layer.name not in found or loop.obstacle):
            found[node.layer.name] = loop
    return list(found.values())


def refuse_state(model: tf_keras.Model) -> None:
    """Refuse layers that keep a state from one call to the next: samples of data are independent.

    Raises:
        ConversionError: a layer is stateful.
    """
    stateful = [layer for layer in model.layers if any(part.stateful for part in recurrent_parts(layer))]
    if stateful:
        listed = ", ".join(f"{layer.name!r} ({type(layer).__name__})" for layer in stateful)
        raise ConversionError(
            f"The state of {listed} in {model.name!r} lasts from one call to the next (stateful=True), and the samples "
            "of the data are independent.",
            expected="layers that begin every sample with a state of zeros.",
            fix="build the layer with stateful=False; a state that shall outlast a sample is handed in and out "
            "(initial_state, return_state).",
        )


def preflight(model: tf_keras.Model, modes: Iterable[Mode]) -> str | None:
    """What will be done about the loops of a model in these number formats, in one line; None: nothing.

    Raises:
        ConversionError: a layer is stateful; or a format needs calibration, and a loop cannot be written out.
    """
    refuse_state(model)
    found = loops(model) if any(RULES[mode].samples for mode in modes) else []
    _refuse(found, model)
    return note(found) if found else None


def note(found: Sequence[Loop]) -> str:
    """One line about loops that are written out."""
    listed = ", ".join(f"{loop.layer} ({loop.kind}, {loop.steps} steps)" for loop in found)
    return f"where activation ranges are calibrated, loops are written out step by step: {listed}"


def without_loops(model: tf_keras.Model) -> tf_keras.Model:
    """The model with every loop written out, verified to compute the same; the model itself where it has none.

    Args:
        model: functional tf_keras model.

    Raises:
        ConversionError: a loop cannot be written out.
        VerificationError: the model with the steps written out computes something else.
    """
    found = loops(model)
    if not found:
        return model
    _refuse(found, model)
    looping = {loop.layer for loop in found}

    def make(layer: Layer) -> Layer:
        return _unrolled(layer) if layer.name in looping else copy_layer(layer)

    unrolled = rebuild(model, with_layers(make))
    copy_weights(model, unrolled)
    try:
        check_same(model, unrolled, f"the steps of {', '.join(sorted(looping))} are written out")
    except ModelError as error:
        raise VerificationError(error.what, expected=error.expected, fix=f"{DYNAMIC}; and please report it.") from error
    return unrolled


def _refuse(found: Iterable[Loop], model: tf_keras.Model) -> None:
    stuck = [(loop, loop.obstacle) for loop in found if loop.obstacle]
    if not stuck:
        return
    listed = "; ".join(f"{loop.layer!r} ({loop.kind}): {obstacle.why}" for loop, obstacle in stuck)
    fixes = "; or ".join(dict.fromkeys(obstacle.fix for _, obstacle in stuck))
    raise ConversionError(
        f"{model.name!r} has layers that become loops, for which TensorFlow's converter cannot calibrate activation "
        f"ranges, and whose steps cannot be written out. {listed}.",
        expected=f"LSTM layers that the converter fuses, or at most {MAX_STEPS} steps, a number that is fixed.",
        fix=f"{DYNAMIC}; or {fixes}.",
    )


def _loop(node: Node, view: View) -> Loop | None:
    import tf_keras

    layer = node.layer
    parts = recurrent_parts(layer)
    if not parts:
        return _unknown_loop(node)
    if all(_is_fused(part, node, view) for part in parts):
        return None
    kind = type(layer).__name__
    if parts[0] is not layer:
        kind += f" of {type(parts[0]).__name__}"
    axis = 2 if isinstance(layer, tf_keras.layers.TimeDistributed) else 1
    steps = node.keras_inputs[0].shape[0 if parts[0].time_major else axis]
    return Loop(layer.name, kind, steps, _obstacle(steps))


def _obstacle(steps: int | None) -> Obstacle | None:
    if steps is None:
        return Obstacle(
            "its number of steps is open", "give the input a fixed length (tf_keras.Input([length, features]))"
        )
    if steps > MAX_STEPS:
        return Obstacle(f"it has {steps:,} steps", "take shorter sequences, or average over steps before the layer")
    return None


def recurrent_parts(layer: Layer) -> list[Layer]:
    """The recurrent layers that a layer is or wraps."""
    import tf_keras

    if isinstance(layer, tf_keras.layers.Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    if isinstance(layer, tf_keras.layers.Wrapper):
        return recurrent_parts(layer.layer)
    return [layer] if isinstance(layer, tf_keras.layers.RNN) else []


def _is_fused(part: Layer, node: Node, view: View) -> bool:
    """Whether a layer becomes one operator, or operators in a row: no loop."""
    import tf_keras

    if part.unroll:
        return True
    if not isinstance(part, tf_keras.layers.LSTM) or not getattr(part, "_could_use_gpu_kernel", False):
        return False
    states = flat(node.outputs)[-2 * len(recurrent_parts(node.layer)) :] if part.return_state else []
    reads = any(view.readers(state) or view.is_end(state) for state in states)
    return not (part.stateful or reads or _is_masked(node))


def _is_masked(node: Node) -> bool:
    masks = [getattr(tensor, "_keras_mask", None) for tensor in node.keras_inputs]
    return any(mask is not None for mask in masks) or node.call_kwargs.get("mask") is not None


def _unknown_loop(node: Node) -> Loop | None:
    """A loop in a layer that holds code of the user's, which is found by tracing it."""
    layer = node.layer
    if _is_of_keras(layer) or not _traces_loop(node):
        return None
    return Loop(layer.name, type(layer).__name__, None, Obstacle("its code loops", "write it without a loop"))


def _is_of_keras(layer: Layer) -> bool:
    """Whether a layer, with what it wraps, holds no code of anybody else."""
    import tf_keras

    own = type(layer).__module__.startswith("tf_keras.") and type(layer).__name__ != "Lambda"
    return own and (not isinstance(layer, tf_keras.layers.Wrapper) or _is_of_keras(layer.layer))


def _traces_loop(node: Node) -> bool:
    import tensorflow as tf
    import tf_keras

    def spec(tensor: Tensor) -> Any:
        return tf.TensorSpec([1, *tensor.shape[1:]], tensor.dtype)

    inputs = list({id(tensor): tensor for tensor in node.keras_inputs}.values())
    call = tf_keras.Model(inputs, flat(node.outputs))
    graph = tf.function(lambda *x: call(list(x), training=False)).get_concrete_function(*map(spec, inputs)).graph
    graph_def = graph.as_graph_def()
    bodies = (function.node_def for function in graph_def.library.function)
    return any(operation.op in _LOOP_NODES for nodes in (graph_def.node, *bodies) for operation in nodes)


def _unrolled(layer: Layer) -> Layer:
    """A layer with the weights' shapes and outputs of ``layer``, whose steps are operators in a row."""
    import tf_keras

    if isinstance(layer, tf_keras.layers.Bidirectional):
        forward, backward = _unrolled(layer.forward_layer), _unrolled(layer.backward_layer)
        for part in (forward, backward):  # Bidirectional puts the direction before the name
            part._name = part.name.partition("_")[2]
        return type(layer)(forward, backward_layer=backward, merge_mode=layer.merge_mode, name=layer.name)
    if isinstance(layer, tf_keras.layers.Wrapper):
        return type(layer)(_unrolled(layer.layer), name=layer.name)
    config = {**config_of(layer), "unroll": True}
    if _is_convolutional(layer):
        unrolled: Layer = _convolutional(type(layer)).from_config(config)
        return unrolled
    return make_like(layer, config)


def _is_convolutional(layer: Layer) -> bool:
    from tf_keras.src.layers.rnn.base_conv_rnn import ConvRNN

    return isinstance(layer, ConvRNN)


@functools.cache
def _convolutional(base: Any) -> Any:
    """The class of a ConvLSTM layer whose steps are written out, which Keras' own refuse to do."""
    import tf_keras

    class Unrolled(base):
        def __init__(self, *args: Any, unroll: bool, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.unroll = unroll

        def call(self, inputs: Any, mask: Any = None, training: Any = None, initial_state: Any = None) -> Any:
            inputs, initial_state, constants = self._process_inputs(inputs, initial_state, None)
            last, outputs, states = tf_keras.backend.rnn(
                lambda x, states: self.cell(x, states, training=training),
                inputs,
                initial_state,
                go_backwards=self.go_backwards,
                mask=mask,
                constants=constants,
                unroll=True,
                zero_output_for_mask=self.zero_output_for_mask,
            )
            output = outputs if self.return_sequences else last
            return [output, *states] if self.return_state else output

    Unrolled.__name__ = base.__name__
    return Unrolled
