"""Remove units from a model: ``(graph, removed units) -> new model``. Nothing given is changed.

The oracle is :func:`mask`: the model as it was, in which the removed channels are zeroed where they are consumed.
"""

from __future__ import annotations

import copy
import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import VerificationError
from edgeprune.models.compiled import compile_like
from edgeprune.models.graph import CallKey, flat, is_symbolic
from edgeprune.models.rebuild import config_of, copy_layer, make_like, rebuild
from edgeprune.models.types import Layer
from edgeprune.models.verify import largest_difference, refuse_random, tolerance
from edgeprune.models.verify import random_inputs as flat_random_inputs
from edgeprune.prune.channels.graph import Edit, Graph, Path
from edgeprune.prune.channels.masking import ChannelMask
from edgeprune.prune.channels.units import Vector

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.prune.channels.graph import LayerPlan


def remove(graph: Graph, keep: np.ndarray) -> tf_keras.Model:
    """A new model with only the units in ``keep`` (bool [units]); weights are sliced, everything else stays.

    Loss and metrics stay, too; the optimizer starts anew.
    """

    def make_layer(layer: Layer) -> Layer:
        plan = graph.layers[layer.name]
        if all(keep[vector].all() for vector in plan.sizes.values()):
            return copy_layer(layer)
        config = copy.deepcopy(config_of(layer))
        _forget_initial_values(config)
        # All sizes: one that the config leaves open may follow from one that changes.
        for path, vector in plan.sizes.items():
            _set(config, path, graph.count(vector, keep))
        return make_like(layer, config)

    make = functools.cache(make_layer)

    def emit(layer: Layer, key: CallKey, args: Any, kwargs: Any) -> Any:
        structure: list[Any] = [list(args), dict(kwargs)]
        for edit in graph.edits.get(key, []):
            # A count may be written in another way, such as a bound that counts from the end: it is always set.
            if edit.kind == "count" or not keep[edit.vector].all():
                _apply(structure, edit, keep)
        return make(layer)(*structure[0], **structure[1])

    pruned = rebuild(graph.model, emit)
    new_layers = {layer.name: layer for layer in pruned.layers}
    for layer in graph.model.layers:
        new_layers[layer.name].set_weights(_sliced(layer, graph.layers[layer.name], keep))
    compile_like(pruned, graph.model)
    return pruned


def mask(graph: Graph, keep: np.ndarray) -> tf_keras.Model:
    """The oracle: the same architecture, with the units that are not in ``keep`` zeroed where they are consumed.

    Zeroing a consumer's weights for a channel is zeroing the channel at its input. Calls that sum over channels without
    weights get a :class:`~edgeprune.prune.channels.masking.ChannelMask` in front.
    """

    make = functools.cache(copy_layer)

    def emit(layer: Layer, key: CallKey, args: Any, kwargs: Any) -> Any:
        args, kwargs = _mask_inputs(key, (args, kwargs), graph.masks.get(key, []), keep)
        return make(layer)(*args, **kwargs)

    masked = rebuild(graph.model, emit)
    new_layers = {layer.name: layer for layer in masked.layers}
    for layer in graph.model.layers:
        weights = layer.get_weights()
        for binding in graph.layers[layer.name].bindings:
            if binding.role in ("consumed", "matched"):
                shape = [1] * weights[binding.weight].ndim
                shape[binding.axis] = -1
                weights[binding.weight] = weights[binding.weight] * keep[binding.vector].reshape(shape)
        new_layers[layer.name].set_weights(weights)
    return masked


def verify(pruned: tf_keras.Model, masked: tf_keras.Model, seed: int = 0) -> float:
    """Compare the pruned model with the oracle on random inputs, in inference mode.

    Returns:
        The largest difference of any output, relative to that output's largest value.

    Raises:
        VerificationError: it is more than :func:`edgeprune.models.verify.tolerance`, or an output is not a number in
            one of the models only; or the model draws random numbers.
    """
    inputs = random_inputs(masked, seed)
    otherwise = "; or prune with verify = false (--no-verify)"
    return compare(masked(inputs, training=False), pruned(inputs, training=False), masked, inputs, otherwise)


def compare(expected: Any, actual: Any, model: tf_keras.Model, inputs: Any, otherwise: str = "") -> float:
    """The largest difference of outputs from what the oracle says; see :func:`verify`.

    Args:
        model: whose number formats decide how much is allowed.
        inputs: of both.
        otherwise: what else can be done where the model draws random numbers.
    """
    worst = largest_difference(flat(expected), flat(actual))
    allowed = tolerance(model.layers)
    if worst > allowed:
        refuse_random(model, inputs, VerificationError, otherwise)
        raise VerificationError(
            f"The pruned model differs from the masked original by {worst:.1e} of the largest output.",
            expected=f"at most {allowed:.0e}.",
            fix="this is an error in edgeprune: please report the model; `protect` keeps layers out of pruning.",
        )
    return worst


def random_inputs(model: tf_keras.Model, seed: int, samples: int = 2) -> Any:
    """Random inputs (:func:`edgeprune.models.verify.random_inputs`) in the structure that the model takes."""
    import tensorflow as tf

    values = [tf.constant(value) for value in flat_random_inputs(model, seed, samples)]
    return tf.nest.pack_sequence_as(model._nested_inputs, values)


def _sliced(layer: Layer, plan: LayerPlan, keep: np.ndarray) -> list[np.ndarray]:
    weights = layer.get_weights()
    for binding in plan.bindings:
        stays = keep[binding.vector]
        if not stays.all():
            weights[binding.weight] = np.compress(stays, weights[binding.weight], axis=binding.axis)
    if plan.scale_queries is not None:
        stays = keep[plan.scale_queries]
        if not stays.all():
            factor = math.sqrt(stays.mean())
            queries = {id(weight) for weight in layer._query_dense.weights}
            weights = [
                value * factor if id(weight) in queries else value
                for value, weight in zip(weights, layer.weights, strict=True)
            ]
    return weights


def _forget_initial_values(config: Any) -> None:
    """Initializers that hold arrays do not fit other sizes, and the weights are set anyway."""
    entries = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in entries:
        if str(key).endswith("initializer") and isinstance(value, dict):
            if _holds_numbers(value.get("config")):
                config[key] = "zeros"
        else:
            _forget_initial_values(value)


def _holds_numbers(config: Any) -> bool:
    """Whether an array, or a list, is somewhere in a config."""
    return any(map(_holds_numbers, config.values())) if isinstance(config, dict) else np.ndim(config) > 0


def _set(structure: Any, path: Path, value: Any) -> None:
    for key in path[:-1]:
        if not isinstance(structure[key], dict | list):  # tuples and TensorShapes
            structure[key] = list(structure[key])
        structure = structure[key]
    structure[path[-1]] = value


def _apply(structure: Any, edit: Edit, keep: np.ndarray) -> None:
    """Change one constant among the call arguments ``[args, kwargs]``."""
    stays = keep[edit.vector]
    for key in edit.path[:-1]:
        value = structure[key]
        if hasattr(value, "shape"):  # an array or a tensor
            value = np.asarray(value).tolist()
        structure[key] = dict(value) if isinstance(value, dict) else list(value)
        structure = structure[key]
    key = edit.path[-1]
    if edit.kind == "count":
        structure[key] = int(stays.sum())
    else:
        structure[key] = np.compress(stays, np.asarray(structure[key]), axis=edit.axis)


def mask_name(layer: str, call_index: int, position: int, axis: int) -> str:
    """The name of the mask before a call of a layer: on ``axis`` of its input number ``position``."""
    return f"{layer}_{call_index}_{position}_{axis}_mask"


def _mask_inputs(key: CallKey, arguments: Any, rows: list[tuple[int, int, Vector]], keep: np.ndarray) -> Any:
    import tensorflow as tf

    values = tf.nest.flatten(arguments)
    tensors = [i for i, value in enumerate(values) if is_symbolic(value)]
    for position, axis, vector in rows:
        place = tensors[position]
        rank = len(values[place].shape) - 1
        label = mask_name(*key, position, axis)
        layer = ChannelMask(keep[vector].tolist(), axis % rank, name=label, autocast=False)  # of any type
        values[place] = layer(values[place])
    return tf.nest.pack_sequence_as(arguments, values)
