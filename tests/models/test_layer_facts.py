"""The table of layer facts, on real layers; and that whoever works by channel agrees with it."""

import numpy as np
import pytest

from edgeprune.convert.converter import convert
from edgeprune.models.layer_facts import LAYER_FACTS, along, facts_of, kernel_of, magnitudes
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.weights.kernels import STORED_BY_OUTPUT, kernels
from edgeprune.quantize.cluster import CLUSTERABLE
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.quantize.quantizers import round_kernel
from edgeprune.quantize.rules import KERNELS
from edgeprune.reconstruction.linear import product_of
from edgeprune.reconstruction.rounding import nearest
from edgeprune.tflite.flatbuffer import parse
from edgeprune.tflite.size import KERNEL_INPUTS, stored_source

CHANNELS = 6
# Their product is of another kernel than the one that facts are about.
SEPARABLE = ("SeparableConv1D", "SeparableConv2D")
# Case → (class, arguments, shape of the input); every layer makes six channels.
CASES = {
    "dense": ("Dense", {"units": 6}, (4,)),
    "dense on a sequence": ("Dense", {"units": 6}, (5, 4)),
    "one dimension": ("Conv1D", {"filters": 6, "kernel_size": 3}, (8, 4)),
    "two dimensions": ("Conv2D", {"filters": 6, "kernel_size": 3, "strides": 2}, (8, 8, 4)),
    "grouped": ("Conv2D", {"filters": 6, "kernel_size": 3, "groups": 2}, (8, 8, 4)),
    "three dimensions": ("Conv3D", {"filters": 6, "kernel_size": 2}, (4, 4, 4, 4)),
    "transposed, one dimension": ("Conv1DTranspose", {"filters": 6, "kernel_size": 3, "strides": 2}, (8, 4)),
    "transposed": ("Conv2DTranspose", {"filters": 6, "kernel_size": 3, "strides": 2}, (8, 8, 4)),
    "transposed, three dimensions": ("Conv3DTranspose", {"filters": 6, "kernel_size": 2}, (4, 4, 4, 4)),
    "depthwise, one dimension": ("DepthwiseConv1D", {"kernel_size": 3, "depth_multiplier": 2}, (8, 3)),
    "depthwise": ("DepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 2}, (8, 8, 3)),
    "depthwise of one filter each": ("DepthwiseConv2D", {"kernel_size": 3}, (8, 8, 6)),
    "separable, one dimension": ("SeparableConv1D", {"filters": 6, "kernel_size": 3, "depth_multiplier": 2}, (8, 4)),
    "separable": ("SeparableConv2D", {"filters": 6, "kernel_size": 3, "depth_multiplier": 2}, (8, 8, 4)),
}


@pytest.fixture(params=CASES)
def case(request):
    """A layer with a random kernel of very different channels, its facts, and a batch for it."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    name, arguments, shape = CASES[request.param]
    layer = getattr(tf_keras.layers, name)(name="layer", **arguments)
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    layer(x)
    facts = facts_of(layer)
    kernel = kernel_of(layer)
    kernel.assign(kernel * along(factors(CHANNELS), facts.channel_axes, kernel.shape))
    return layer, facts, x


def factors(count):
    return np.geomspace(1, 100, count).astype("float32")


def test_every_class_of_the_table_has_a_case():
    """A line of the table that no layer was built for would be a claim."""
    assert {name for name, *_ in CASES.values()} == set(LAYER_FACTS)


def test_channel_axes_and_input_axis_are_those_that_the_layer_computes_with(case):
    """A factor for each place along the axes is a factor of each output channel, or of each input channel."""
    layer, facts, x = case
    kernel, y = kernel_of(layer).numpy(), np.asarray(layer(x))
    kernel_of(layer).assign(kernel * along(factors(CHANNELS), facts.channel_axes, kernel.shape))
    np.testing.assert_allclose(layer(x), y * factors(CHANNELS), rtol=1e-3, atol=1e-3)
    if facts.input_axis is not None:
        read = factors(kernel.shape[facts.input_axis])
        kernel_of(layer).assign(kernel * along(read, (facts.input_axis,), kernel.shape))
        inputs = np.tile(read, getattr(layer, "groups", 1))
        np.testing.assert_allclose(layer(x), layer_with(layer, kernel)(x * inputs), rtol=1e-3, atol=1e-2)


def layer_with(layer, kernel):
    def call(x):
        kernel_of(layer).assign(kernel)
        return layer(x)

    return call


def test_depthwise_channels_are_made_from_one_input_channel(case):
    """Where the facts say so, and only there, five sixths of the channels do not see what goes into one of them."""
    layer, facts, x = case
    y = np.asarray(layer(x))
    x[..., 0] += 1
    changed = np.abs(np.asarray(layer(x)) - y).reshape(-1, CHANNELS).max(0) > 1e-6
    multiplier = getattr(layer, "depth_multiplier", 1)
    groups = getattr(layer, "groups", 1)
    assert facts.is_depthwise == (changed.sum() == multiplier)
    assert facts.is_depthwise or changed.sum() == CHANNELS / groups


def test_channel_rules_bind_the_kernel_along_these_axes(case):
    """What pruning says that a layer makes and reads lies where the facts have it."""
    import tf_keras

    layer, facts, x = case
    inputs = tf_keras.Input(x.shape[1:])
    model = tf_keras.Model(inputs, layer(tf_keras.layers.Dense(x.shape[-1], name="before")(inputs)))
    place = next(number for number, weight in enumerate(layer.weights) if weight is kernel_of(layer))
    found = {
        binding.role: binding.axis % len(kernel_of(layer).shape)
        for binding in analyse(model).layers["layer"].bindings
        if binding.weight == place
    }
    made = found.get("produced", found.get("followed"))
    assert made == (facts.input_axis if facts.is_depthwise else facts.channel_axes[0])
    if "consumed" in found and facts.input_axis is not None:
        assert found["consumed"] == facts.input_axis


def test_rounding_scales_and_layouts_go_by_these_axes(case):
    """Both ways to round give each channel its own steps, and pruned kernels lie as the file has them."""
    import tf_keras

    layer, facts, x = case
    kernel = kernel_of(layer).numpy()
    steps = along(magnitudes(kernel, facts.channel_axes) / 127, facts.channel_axes, kernel.shape)
    expected = np.round(kernel / steps) * steps
    found = round_kernel(kernel, facts, shared=False).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * steps.max(), rtol=1e-4)
    if (product := product_of(layer)) and type(layer).__name__ not in SEPARABLE:
        found = product.to_weight(nearest(product.matrix, 127))
        np.testing.assert_allclose(found, expected, atol=1e-4 * steps.max(), rtol=1e-4)
    if type(layer).__name__ in STORED_BY_OUTPUT:
        inputs = tf_keras.Input(x.shape[1:])
        (pruned,) = kernels(tf_keras.Model(inputs, layer(inputs)), ["layer"])
        assert pruned.variable is kernel_of(layer)
        largest = np.abs(pruned.to_tflite(kernel)).reshape(CHANNELS, -1).max(1)
        np.testing.assert_array_equal(largest, magnitudes(kernel, facts.channel_axes))


@pytest.mark.parametrize("name", [name for name, (kind, *_) in CASES.items() if kind in KERNELS])
def test_the_file_has_a_scale_per_channel(name):
    """What is rounded by channel, in training or by moments, the int8 file stores with the same scales."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    kind, arguments, shape = CASES[name]
    inputs = tf_keras.Input(shape)
    layer = getattr(tf_keras.layers, kind)(**arguments)
    model = tf_keras.Model(inputs, layer(inputs))
    axes = facts_of(layer).channel_axes
    kernel_of(layer).assign(kernel_of(layer) * along(factors(CHANNELS), axes, kernel_of(layer).shape))
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype("float32")
    content = convert(model, QuantizationPlan("int8", "float", True), lambda: iter([[row[None]] for row in x]))
    (graph,) = parse(content).subgraphs
    scales = [
        tensor.quantization.scale
        for operator in graph.operators
        for position in KERNEL_INPUTS.get(operator.name, ())
        if (tensor := stored_source(graph, graph.input(operator, position))) is not None
    ]
    np.testing.assert_allclose(scales, [magnitudes(kernel_of(layer).numpy(), axes) / 127], rtol=1e-5)


def test_weights_are_shared_in_layers_that_training_rounds():
    """Depthwise kernels are left out."""
    assert {name for name in KERNELS if "Depthwise" not in name} == CLUSTERABLE
