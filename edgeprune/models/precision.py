"""A model that computes in half or double precision → the same in float32.

Mixed precision is for training on graphics cards: the weights are float32 already. Files for boards are made of
float32, and what is smaller is the business of quantization.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

from edgeprune.errors import ModelError
from edgeprune.models.graph import CallKey, flat, is_symbolic, ordered_nodes
from edgeprune.models.rebuild import config_of, copy_weights, make_like, rebuild
from edgeprune.models.types import Arguments, ConfigValue, Layer, Structure, Value
from edgeprune.models.verify import HALF_TOLERANCES, difference_of, refuse_random, tolerance

if TYPE_CHECKING:
    import tf_keras

_log = logging.getLogger(__name__)

FLOATS = ("float16", "bfloat16", "float32", "float64")
_POLICIES = {*FLOATS, "mixed_float16", "mixed_bfloat16"}


def in_float32(model: tf_keras.Model) -> tf_keras.Model:
    """The same model with every layer, weight, input and operation in float32.

    Args:
        model: flat functional tf_keras model.

    Returns:
        ``model`` itself if it computes in float32 already; else a new model, not compiled.

    Raises:
        ModelError: a layer computes in another precision whatever it is told, named; or the outputs differ.
    """
    others = _precisions(model)
    if not others:
        return model
    new = copy_in(model, "float32")
    for node in ordered_nodes(new):
        for tensor in flat(node.outputs):
            if tensor.dtype.name in FLOATS and tensor.dtype.name != "float32":
                raise _insists(node.layer, tensor.dtype.name)
    difference = difference_of(model, new)
    allowed = max(tolerance(model.layers), *(HALF_TOLERANCES.get(name, 0) for name in others))
    if not difference <= allowed:
        refuse_random(new, None, ModelError)
    if not difference <= allowed and others == ["float64"]:
        raise ModelError(
            f"The model {model.name!r} computes something else in float32 than in float64: its outputs differ by "
            f"{difference:.1e} of the largest.",
            expected=f"at most {allowed:.0e}",
            fix="build it in float32, and train it so.",
        )
    # Half precision overflows and cancels: by how much is for the user to see, and the baseline is measured anyway.
    doubt = "" if difference <= allowed else ", more than rounding explains: look at its accuracy"
    _log.warning(
        "The model computes in %s: rebuilt in float32, with its weights (outputs differ by %.1e of the largest%s).",
        " and ".join(others),
        difference,
        doubt,
    )
    return new


def copy_in(model: tf_keras.Model, dtype: str) -> tf_keras.Model:
    """A copy that computes in a floating type, weights included; constants and casts among the arguments, too."""
    import tensorflow as tf

    make = functools.cache(lambda layer: make_like(layer, config_in(config_of(layer), dtype)))

    def emit(layer: Layer, key: CallKey, args: tuple[Structure, ...], kwargs: Arguments) -> Structure:
        args, kwargs = tf.nest.map_structure(lambda value: value_in(value, dtype), (args, kwargs))
        return make(layer)(*args, **kwargs)

    copied = rebuild(model, emit, emit_input=lambda layer: make(layer).output)
    copy_weights(model, copied)
    return copied


def config_in(config: ConfigValue, dtype: str) -> ConfigValue:
    """A layer's configuration, and those within it, with every floating policy made ``dtype``."""
    if isinstance(config, list | tuple):
        return [config_in(item, dtype) for item in config]
    if not isinstance(config, dict):
        return config
    return {k: dtype if k == "dtype" and _policy(v) in _POLICIES else config_in(v, dtype) for k, v in config.items()}


def value_in(value: Value, dtype: str) -> Value:
    """A floating tensor, array, type or name of a type as ``dtype``; anything else as it is."""
    import tensorflow as tf

    if isinstance(value, str | tf.DType):
        return dtype if value in FLOATS or getattr(value, "is_floating", False) else value
    found = getattr(value, "dtype", None)
    if found is None or is_symbolic(value) or tf.as_dtype(found).name not in FLOATS:
        return value
    return tf.cast(value, dtype)


def _policy(value: ConfigValue) -> str | None:
    """The name of a policy in a configuration: a string, or the configuration of a Policy."""
    if isinstance(value, dict):
        value = (value.get("config") or {}).get("name")
    return value if isinstance(value, str) else None


def _precisions(model: tf_keras.Model) -> list[str]:
    """The precisions besides float32 that a model computes in, or has weights in."""
    found = dict.fromkeys(
        part.dtype_policy.name for layer in model.layers for part in layer._flatten_layers() if _computes(part)
    )
    found |= dict.fromkeys(tensor.dtype.name for node in ordered_nodes(model) for tensor in flat(node.outputs))
    return [name for name in found if name in _POLICIES and name != "float32" and f"mixed_{name}" not in found]


def _computes(layer: Layer) -> bool:
    # Operations have the policy of the day and take no notice of it: their outputs say what they compute in.
    return not type(layer).__name__.endswith("OpLambda")


def _insists(layer: Layer, dtype: str) -> ModelError:
    return ModelError(
        f"The layer {layer.name!r} ({type(layer).__name__}) computes in {dtype}, whatever precision it is given.",
        expected="a model that can be rebuilt in float32, as files for boards are",
        fix=f"take the cast to {dtype} out of its code, or let it cast to self.compute_dtype.",
    )
