"""Verify the translation of a Keras 3 model: on random inputs and, if outputs differ, by layer and in float64."""

from __future__ import annotations

import logging
import math
import re
from typing import TYPE_CHECKING

from edgeprune.errors import ModelError
from edgeprune.models.graph import flat
from edgeprune.models.precision import config_in, copy_in, value_in
from edgeprune.models.types import AnyModel, Operation, Structure, Value
from edgeprune.models.verify import (
    TOLERANCE,
    largest_difference,
    outputs_of,
    random_inputs,
    refuse_random,
    tolerance,
)
from edgeprune.models.walk import Dialect, LayerCall, walk

if TYPE_CHECKING:
    import keras
    import tf_keras

_log = logging.getLogger(__name__)

# What every call became: (name, the tensors among its arguments, the tensors that stand for its outputs).
Results = list[tuple[str, list[Value], Structure]]


def check(model: keras.Model, graph: AnyModel, dialect: Dialect, translated: tf_keras.Model, results: Results) -> None:
    """Run both models on random inputs.

    Args:
        model, graph, dialect: the Keras 3 model, and how to walk through it.
        results: of that walk, in its order.

    Raises:
        ModelError: the outputs differ by more than rounding explains, with the first layer that differs; or the model
            draws random numbers.
    """
    import tensorflow as tf

    inputs = [tf.constant(value) for value in random_inputs(translated)]
    # A graph that was traced without values may still fail on them, in any operation's code, in any way.
    try:
        expected = model(tf.nest.pack_sequence_as(graph._inputs_struct, inputs), training=False)
    except Exception as error:
        raise _does_not_run(model, error) from error
    actual = outputs_of(translated, tf.nest.pack_sequence_as(translated._nested_inputs, inputs))
    difference, allowed = largest_difference(flat(expected), actual), tolerance(translated.layers)
    if difference <= allowed:
        return
    refuse_random(translated, inputs, ModelError)
    where = _first_difference(graph, dialect, results, inputs, allowed)
    # Deep models with untrained weights amplify rounding errors, which is no fault of the translation; a mask that is
    # lost between layers shows in no single layer, either. In double precision, only rounding errors disappear.
    if where is None and _difference_in_double(graph, dialect, translated, inputs) <= TOLERANCE:
        message = "%r amplifies rounding errors: its translation differs by %.1e of the largest output, not in float64."
        _log.warning(message, model.name, difference)
        return
    raise ModelError(
        f"The translation of {model.name!r} from Keras 3 to tf_keras computes something else: its outputs differ by "
        f"{difference:.1e} of the largest. {where or 'No layer differs by itself, so masks may be lost between them.'}",
        expected=f"at most {allowed:.0e}",
        fix=f"replace {'that layer' if where else 'what makes or passes masks'} by other layers, or build the model "
        "with tf_keras; and please report it.",
    )


def _does_not_run(model: keras.Model, error: Exception) -> ModelError:
    import keras

    said = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())[:300] or type(error).__name__
    return ModelError(
        f"Keras {keras.__version__} itself cannot run {model.name!r} on random inputs of its shapes: {said}",
        expected="a model that computes something",
        fix="try model.predict() in Python; what fails there has to be mended first.",
    )


def _first_difference(
    graph: AnyModel, dialect: Dialect, results: Results, inputs: list[Value], allowed: float
) -> str | None:
    """Run Keras 3 layer by layer, feed each translation the same inputs, and name the first that differs, if any."""
    import tf_keras

    remaining = iter(results)
    differing: list[str] = []

    def run(call: LayerCall) -> Structure:
        expected = call.operation(*call.args, **call.kwargs, **_inference(call.operation))
        name, arguments, result = next(remaining)
        values = [value for value in flat((call.args, call.kwargs)) if hasattr(value, "dtype")]
        if not differing and len(values) == len(arguments):
            difference = largest_difference(flat(expected), flat(tf_keras.Model(arguments, flat(result))(values)))
            if not difference <= allowed:
                differing.append(f"The first layer that differs is {name!r}, by {difference:.1e} on the same inputs.")
        return expected

    walk(dialect, graph, inputs, run)
    return differing[0] if differing else None


def _inference(operation: Operation) -> dict[str, bool]:
    return {"training": False} if getattr(operation, "_call_has_training_arg", False) else {}


def _difference_in_double(graph: AnyModel, dialect: Dialect, translated: tf_keras.Model, inputs: list[Value]) -> float:
    """The largest difference of the outputs of copies that compute in float64; infinite where such cannot be made."""
    import tensorflow as tf

    exact = [_doubled(value) for value in inputs]
    # Copying and running layers can fail in any layer's code, in any way; then rounding is not shown to be the cause.
    try:
        expected = walk(dialect, graph, exact, _run_in_double)
        actual = copy_in(translated, "float64")(
            tf.nest.pack_sequence_as(translated._nested_inputs, exact), training=False
        )
    except Exception:
        _log.debug("The models cannot be compared in double precision.", exc_info=True)
        return math.inf
    return largest_difference(flat(expected), flat(actual))


def _run_in_double(call: LayerCall) -> Structure:
    import keras
    import tensorflow as tf

    operation = call.operation
    args, kwargs = tf.nest.map_structure(_doubled, (call.args, call.kwargs))
    if isinstance(operation, keras.layers.Layer) and not isinstance(operation, keras.layers.Lambda):
        layer = _layer_in_double(operation)
        layer(*args, **kwargs, **_inference(layer))  # makes its weights
        layer.set_weights(operation.get_weights())
        operation = layer
    return tf.nest.map_structure(_doubled, operation(*args, **kwargs, **_inference(operation)))


def _doubled(value: Value) -> Value:
    return value_in(value, "float64")


def _layer_in_double(layer: Operation) -> Operation:
    """A new layer of Keras 3, without weights."""
    return type(layer).from_config(config_in(layer.get_config(), "float64"))
