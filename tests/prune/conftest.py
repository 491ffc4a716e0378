"""Models with random weights, random selections, and an oracle that is independent of the surgery."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import random_weights

from edgeprune._tensorflow import import_tf
from edgeprune.models.count import count
from edgeprune.models.graph import ordered_nodes
from edgeprune.prune.channels import analyse as walk
from edgeprune.prune.channels import surgery
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.channels.graph import Graph

# Units inside these layers are consumed inside them: zeroing tensors between layers cannot reach them.
OPAQUE_INSIDE = ("SimpleRNN", "GRU", "LSTM", "Bidirectional", "MultiHeadAttention")


@dataclasses.dataclass
class Checked:
    """A model that was pruned and found equal to the oracles."""

    model: Any
    graph: Graph
    keep: np.ndarray
    pruned: Any

    def group(self, name):
        return next(group for group in self.graph.groups if group.name == name)


class Layers:
    """All of ``tf_keras.layers``, and the ends that most test models have in common."""

    def __getattr__(self, name):
        import tf_keras

        return getattr(tf_keras.layers, name)

    def image(self, channels=3, size=4):
        return self.Input((size, size, channels))

    def stem(self, x, filters=8):
        return self.Conv2D(filters, 3, padding="same", name="stem")(x)

    def head(self, x):
        return self.Dense(3, name="head")(self.GlobalAveragePooling2D(name="pool")(x))

    def behind_stem(self, *layers):
        """Image → stem of 8 channels → layers → pooling and dense head."""
        inputs = self.image()
        x = self.stem(inputs)
        for layer in layers:
            x = layer(x)
        return inputs, self.head(x)


@pytest.fixture(scope="session")
def L():
    import_tf()
    return Layers()


@pytest.fixture(scope="session")
def randomize():
    return random_weights.randomize


@pytest.fixture(scope="session")
def random_keep():
    return _random_keep


@pytest.fixture(scope="session")
def check():
    """``check(model, seed=0, rate=0.4)``: random weights, random channels removed, both oracles and the counts hold.

    ``masked=False`` spares the oracle that the surgery has itself, ``count_macs=False`` that count.
    """
    return _check


@pytest.fixture(scope="session")
def check_case(L):
    """``check_case(build, groups)``: the model that ``build(layers)`` makes has these groups, and the oracles hold.

    ``groups``: ``name → (free units, names of the layers it reaches)``, or a part of the reason why it is frozen.
    Groups that are not named must be frozen as outputs of the model.
    """

    def run(build, groups, **options):
        import tensorflow as tf
        import tf_keras

        tf_keras.backend.clear_session()
        tf.random.set_seed(0)
        made = build(L)
        found = _check(made if isinstance(made, tf_keras.Model) else tf_keras.Model(*made), **options)
        assert _summary(found.graph, groups) == groups
        return found

    return run


def _summary(graph, groups):
    """What the graph says about the groups, in the words of the expectation."""
    found = {}
    for group in graph.groups:
        wanted = groups.get(group.name, "output of the model")
        if group.frozen:
            reason = wanted if isinstance(wanted, str) and wanted in group.frozen else group.frozen
            if group.name in groups or reason != "output of the model":
                found[group.name] = reason
        else:
            reached = " ".join(sorted({member.layer for member in group.members}))
            found[group.name] = (group.size - len(group.reasons), reached)
    return found


@pytest.fixture(scope="session")
def tflite_outputs():
    """``tflite_outputs(model, inputs)``: outputs of the converted model for the first sample, in the model's order."""

    def run(model, inputs):
        import tensorflow as tf
        from ai_edge_litert.interpreter import Interpreter

        from edgeprune.convert.converter import convert
        from edgeprune.quantize.plan import QuantizationPlan

        content = convert(model, QuantizationPlan("float32", "float", needs_samples=False))
        runner = Interpreter(model_content=content).get_signature_runner("serving_default")
        flat = [np.asarray(value)[:1] for value in tf.nest.flatten(inputs)]
        found = runner(**dict(zip(model.input_names, flat, strict=True)))
        return [found[name] for name in model.output_names]

    return run


@pytest.fixture(scope="session")
def train_step():
    """``train_step(model)``: one step of gradient descent on random data; every trainable weight gets a gradient."""

    def step(model):
        import tensorflow as tf

        inputs = surgery.random_inputs(model, 1)
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_mean(tf.square(tf.cast(y, tf.float32))) for y in _flat(model(inputs, True))])
        weights = model.trainable_variables
        gradients = tape.gradient(loss, weights)
        assert all(gradient is not None for gradient in gradients)
        before = [weight.numpy() for weight in weights]
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.assign_sub(1e-3 * tf.convert_to_tensor(gradient))
        assert any(not np.array_equal(a, b.numpy()) for a, b in zip(before, weights, strict=True))

    return step


def _flat(structure):
    import tensorflow as tf

    return tf.nest.flatten(structure)


def _random_keep(graph, seed=0, rate=0.4, protected=()):
    """Remove about ``rate`` of the free units of every group; something stays wherever something has to."""
    random = np.random.default_rng(seed)
    keep = np.ones(len(graph.units), bool)
    for group in graph.groups:
        free = [unit for number, unit in enumerate(group.units) if number not in group.reasons]
        if free and not set(group.layers) & set(protected):
            gone = random.choice(free, min(max(round(rate * len(free)), 1), group.size - 1), replace=False)
            keep[gone] = False
    for vector in graph.nonempty:
        if len(vector) and not keep[vector].any():
            keep[vector[0]] = True
    return keep


def _check(model, seed=0, rate=0.4, count_macs=True, masked=True):
    random_weights.randomize(model, seed)
    before = [weight.numpy() for weight in model.weights]
    graph = analyse(model)
    keep = _random_keep(graph, seed, rate)
    pruned = surgery.remove(graph, keep)
    if masked:
        surgery.verify(pruned, surgery.mask(graph, keep), seed)
    _check_independently(model, graph, keep, pruned, seed)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    assert [layer.name for layer in pruned.layers] == [layer.name for layer in model.layers]
    assert pruned.output_names == model.output_names
    assert pruned.input_names == model.input_names
    assert graph.count_params(keep) == pruned.count_params()
    if count_macs:
        assert round(graph.count_macs(keep)) == count(pruned).macs
        assert round(graph.count_macs(np.ones_like(keep))) == count(model).macs
    return Checked(model, graph, keep, pruned)


def _check_independently(model, graph, keep, pruned, seed):
    """Run the original with removed positions zeroed in every tensor between its layers."""
    opaque = [layer.name for layer in model.layers if type(layer).__name__ in OPAQUE_INSIDE]
    if opaque:
        keep = _random_keep(graph, seed, 0.4, opaque)
        pruned = surgery.remove(graph, keep)
    inputs = surgery.random_inputs(model, seed)
    expected = _zeroed_outputs(model, graph, keep, inputs)
    found = _flat(pruned(inputs, training=False))
    for a, b in zip(expected, found, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.isfinite(a).all()
        tolerance = 1e-4 if all(layer.compute_dtype != "float16" for layer in model.layers) else 3e-2
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance * np.abs(a).max())


def _zeroed_outputs(model, graph, keep, inputs):
    import tensorflow as tf

    values = dict(zip(map(id, model.inputs), _flat(inputs), strict=True))
    found = _recorded_axes(model)
    for node in ordered_nodes(model):
        if node.is_input:
            continue
        args, kwargs = tf.nest.map_structure(lambda v: values.get(id(v), v), (node.call_args, node.call_kwargs))
        outputs = _flat(node.layer(*args, **kwargs))
        for tensor, value, axes in zip(_flat(node.outputs), outputs, found[id(node)], strict=True):
            values[id(tensor)] = _zeroed(value, [None if v is None else keep[graph.units.find(v)] for v in axes])
    return [values[id(tensor)] for tensor in model.outputs]


def _recorded_axes(model):
    """The axes of every call's outputs, as the rules gave them."""
    recorded, original = {}, walk.apply_rule
    try:
        walk.apply_rule = lambda call: recorded.setdefault(id(call.node), original(call))
        analyse(model)
    finally:
        walk.apply_rule = original
    return recorded


def _zeroed(value, stays):
    import tensorflow as tf

    mask = getattr(value, "_keras_mask", None)
    for axis, keep in enumerate(stays, 1):
        if keep is not None and not keep.all():
            shape = [1] * len(value.shape)
            shape[axis] = -1
            value = tf.where(tf.reshape(tf.constant(keep), shape), value, tf.zeros([], value.dtype))
    if mask is not None:
        value._keras_mask = mask
    return value
