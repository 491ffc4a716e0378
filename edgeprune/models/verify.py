"""Verify that two models compute the same: random inputs, and the largest difference of the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.errors import EdgepruneError, ModelError
from edgeprune.models.graph import flat, is_graph, ordered_nodes, symbol_of
from edgeprune.models.types import Layer, Structure, Tensor, Value

if TYPE_CHECKING:
    import tf_keras

# A model must equal what it was made from up to this, relative to the largest value of each output. Sums in another
# order are rounded differently: about as many digits are lost in each number format.
TOLERANCE = 1e-4
HALF_TOLERANCES = {"float16": 3e-2, "bfloat16": 1e-1}
# Layers that look a number up: what is fed into them are small whole numbers, whatever its type.
_LOOKUPS = {"Embedding", "CategoryEncoding", "IntegerLookup", "Hashing"}
# Layers and operations that move numbers about, or change their type (a Lambda may): behind them, the input itself is
# looked up.
_MOVES = {
    *("Reshape", "Flatten", "Permute", "RepeatVector", "Concatenate", "Cropping1D", "Cropping2D", "ZeroPadding1D"),
    *("ZeroPadding2D", "Lambda", "Dropout", "SpatialDropout1D", "SlicingOpLambda"),
    *("cast", "identity", "stop_gradient", "reshape", "squeeze", "expand_dims", "transpose", "concat", "stack"),
    *("unstack", "split", "slice", "strided_slice", "tile", "repeat", "reverse", "roll", "pad", "broadcast_to"),
}
# Outputs are compared in parts of this many values, as float64 would need twice the memory of a large one.
_BLOCK = 1 << 20
# Large enough for every architecture of keras.applications.
_UNKNOWN_IMAGE_SIZE, _UNKNOWN_LENGTH = 96, 32


def random_inputs(model: tf_keras.Model, seed: int = 0, samples: int = 2) -> list[np.ndarray]:
    """A few samples for each input of a functional model, in the order of ``model.inputs``.

    The first sample is normally distributed, the others uniform between 0 and 1, where logarithms and roots are
    defined. Whole numbers are 0 or 1; those that a layer looks up are below 8 and within its range. Where the model
    begins with a Rescaling, all are multiplied by what it divides by: 255 for pixels. Unknown axes get
    96 positions in images and 32 elsewhere. Where one input has a batch of fixed size, all get that many samples.
    """
    generator = np.random.default_rng(seed)
    samples = next((tensor.shape[0] for tensor in model.inputs if tensor.shape[0]), samples)
    return [_draw(tensor, _consumers(tensor, model), generator, samples) for tensor in model.inputs]


def is_looked_up(tensor: Tensor, model: tf_keras.Model) -> bool:
    """Whether an input holds numbers that a layer looks up, such as those of words, whatever its type."""
    return any(type(layer).__name__ in _LOOKUPS for layer in _consumers(tensor, model))


def _draw(tensor: Tensor, consumers: Sequence[Layer], generator: np.random.Generator, samples: int) -> np.ndarray:
    unknown = _UNKNOWN_IMAGE_SIZE if len(tensor.shape) == 4 else _UNKNOWN_LENGTH
    shape = [samples, *(size or unknown for size in tensor.shape[1:])]
    values: np.ndarray
    ranges = [_range(layer) for layer in consumers if type(layer).__name__ in _LOOKUPS]
    if ranges or not tensor.dtype.is_floating:
        values = generator.integers(0, min(ranges, default=2), shape)
    else:
        values = generator.normal(0, 1, shape)
        values[1:] = generator.uniform(0, 1, values[1:].shape)
        values /= next((layer.scale for layer in consumers if _divides(layer)), 1.0)
    return values.astype(tensor.dtype.as_numpy_dtype)


def _range(layer: Layer) -> int:
    """Whole numbers below this are within the table of a layer that looks them up."""
    return min(8, getattr(layer, "input_dim", None) or getattr(layer, "num_tokens", None) or 8)


def _consumers(tensor: Tensor, model: tf_keras.Model) -> list[Layer]:
    """The layers that an input reaches as it is, also behind layers that only move it, and in models and wrappers."""
    consumers: list[Layer] = []
    reached = {id(tensor)}
    for node in ordered_nodes(model):
        places = [place for place, given in enumerate(node.keras_inputs) if id(given) in reached]
        if is_graph(node.layer):
            consumers += [layer for place in places for layer in _consumers(node.layer.inputs[place], node.layer)]
        elif places:
            consumers.append(getattr(node.layer, "layer", node.layer))
            if _moves(node.layer):
                reached |= set(map(id, flat(node.outputs)))
    return consumers


def _moves(layer: Layer) -> bool:
    return type(layer).__name__ in _MOVES or symbol_of(layer) in _MOVES


def _divides(layer: Layer) -> bool:
    return type(layer).__name__ == "Rescaling" and np.ndim(layer.scale) == 0 and 0 < layer.scale < 1


def tolerance(layers: Sequence[Layer]) -> float:
    """The relative difference that is allowed between models of layers of these number formats."""
    return max(HALF_TOLERANCES.get(layer.compute_dtype, TOLERANCE) for layer in layers)


def largest_difference(expected: Sequence[Value], actual: Sequence[Value]) -> float:
    """The largest difference of any output, relative to that output's largest value; infinite where shapes differ.

    Values that are not finite must be the same in both.
    """
    worst = 0.0
    for one, other in zip(map(np.asarray, expected), map(np.asarray, actual), strict=True):
        if one.shape != other.shape:
            return float("inf")
        scale, largest = 1e-6, 0.0
        for start in range(0, one.size, _BLOCK):
            a, b = (array.reshape(-1)[start : start + _BLOCK].astype(np.float64) for array in (one, other))
            finite = np.isfinite(a)
            if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
                return float("inf")
            scale = max(scale, float(np.abs(a[finite]).max(initial=0.0)))
            largest = max(largest, float(np.abs(a[finite] - b[finite]).max(initial=0.0)))
        worst = max(worst, largest / scale)
    return worst


def refuse_random(
    model: tf_keras.Model, inputs: Structure | None, error: type[EdgepruneError], otherwise: str = ""
) -> None:
    """Raise where the model draws random numbers in inference: a comparison with it says nothing.

    Args:
        model: flat.
        inputs: on which the comparison failed; None: those of :func:`random_inputs`.
        otherwise: what else than changing the model can be done.
    """
    import tensorflow as tf

    values = [tf.constant(x) for x in random_inputs(model)] if inputs is None else flat(inputs)
    name = None if has_channels_first(model) else _random_layer(model, values)
    if name is not None:
        raise error(
            f"The layer {name!r} draws random numbers in inference, so that {model.name!r} cannot be verified: called "
            "twice on the same inputs, it computes something else.",
            expected="a model that computes the same whenever it is called with training=False",
            fix=f"call the layer without training=True, or let it draw in training only{otherwise}.",
        )


def _random_layer(model: tf_keras.Model, inputs: list[Value]) -> str | None:
    """The first layer that computes something else when it is called again on the same inputs."""
    import tensorflow as tf

    values = dict(zip(map(id, model.inputs), inputs, strict=True))

    def value_of(argument: Value) -> Value:
        return values.get(id(argument), argument)

    for node in ordered_nodes(model):
        if node.is_input:
            continue
        args, kwargs = tf.nest.map_structure(value_of, (node.call_args, node.call_kwargs))
        outputs = []
        for _ in range(2):
            if node.layer.stateful and hasattr(node.layer, "reset_states"):
                node.layer.reset_states()
            outputs.append(flat(node.layer(*args, **kwargs)))
        if largest_difference(*outputs) > tolerance([node.layer]):
            return str(node.layer.name)
        values.update(zip(map(id, flat(node.outputs)), outputs[0], strict=True))
    return None


def check_same(model: tf_keras.Model, new: tf_keras.Model, once: str) -> None:
    """Raise a ModelError unless both compute the same on random inputs; ``once`` says what was done to get ``new``."""
    difference, allowed = difference_of(model, new), tolerance(new.layers)
    if not difference <= allowed:
        refuse_random(new, None, ModelError)
        raise ModelError(
            f"The model {model.name!r} computes something else once {once}: its outputs differ by {difference:.1e} of "
            "the largest.",
            expected=f"at most {allowed:.0e}",
            fix="build it as a functional model, out of layers only; and please report it.",
        )


def difference_of(model: tf_keras.Model, new: tf_keras.Model) -> float:
    """The largest difference of two models on random inputs (:func:`largest_difference`)."""
    import tensorflow as tf

    inputs = tf.nest.pack_sequence_as(new._nested_inputs, [tf.constant(x) for x in random_inputs(new)])
    return largest_difference(outputs_of(model, inputs), outputs_of(new, inputs))


def outputs_of(model: tf_keras.Model, inputs: Structure) -> list[Value]:
    """The flat outputs of a model in inference.

    TensorFlow has no kernels for convolutions with the channels first on a CPU; XLA, which compiles some, has.
    """
    import tensorflow as tf

    def call(inputs: Structure) -> list[Value]:
        return flat(model(inputs, training=False))

    return tf.function(call, jit_compile=True)(inputs) if has_channels_first(model) else call(inputs)


def has_channels_first(model: tf_keras.Model) -> bool:
    """Whether a layer of a model, or one within its layers, has the channels before the positions."""
    return any(getattr(layer, "data_format", None) == "channels_first" for layer in model._flatten_layers())
