"""Decisions do not depend on whether BatchNorm is folded, as it is in a .tflite."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import edgeprune  # noqa: E402
from edgeprune.convert.converter import convert  # noqa: E402
from edgeprune.prune.channels import surgery  # noqa: E402
from edgeprune.prune.channels.analyse import analyse  # noqa: E402
from edgeprune.prune.choice.elimination import eliminations  # noqa: E402
from edgeprune.quantize.plan import QuantizationPlan  # noqa: E402
from edgeprune.quantize.rounding import EIGHT_BITS, round_by_moments  # noqa: E402
from edgeprune.reconstruction.linear import product_of  # noqa: E402
from edgeprune.reconstruction.refit import refit  # noqa: E402

SEED = 5


def smooth_images(count):
    """Pixels beside each other are nearly equal, as in photographs."""
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(count, 6, 6, 3)).astype("float32")
    return np.asarray(tf.image.resize(noise, (24, 24), "bicubic")) + 1e-3 * draw.normal(size=(count, 24, 24, 3))


@pytest.fixture(scope="module")
def batches():
    images = smooth_images(128).astype("float32")
    return [[images[start : start + 32]] for start in range(0, 128, 32)]


@pytest.fixture(scope="module")
def models(batches, tmp_path_factory):
    """A small MobileNet, and the same as a .tflite."""
    import tf_keras
    from tf_keras import layers

    tf_keras.utils.set_random_seed(1)

    def normalized(x):
        return layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.0)(x))

    inputs = layers.Input((24, 24, 3), name="picture")
    x = normalized(layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(inputs))
    x = normalized(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x))
    x = normalized(layers.Conv2D(12, 1, use_bias=False)(x))
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = normalized(layers.DepthwiseConv2D(3, 2, padding="valid", use_bias=False)(x))
    x = normalized(layers.Conv2D(16, 1, use_bias=False)(x))
    x = layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    model = tf_keras.Model(inputs, x)
    draw = np.random.default_rng(2)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(draw.uniform(0.3, 2, layer.gamma.shape))
            layer.beta.assign(draw.normal(0.5, 0.5, layer.beta.shape))
    for _ in range(6):  # each normalization to what those before give
        model(batches[0][0], training=True)
    path = tmp_path_factory.mktemp("folded") / "it.tflite"
    path.write_bytes(convert(model, QuantizationPlan("float32", "float", False)))
    return edgeprune.load_model(model), edgeprune.load_model(path)


def test_which_channels_go_and_what_the_others_become(models, batches):
    """The same channels go in the same order, and the refitted models answer the same."""
    graphs = [analyse(model) for model in models]
    found = [eliminations(graph, batches, SEED) for graph in graphs]
    answers = []
    for graph, orders in zip(graphs, found, strict=True):
        keep = np.ones(1 + max(int(group.units.max()) for group in graph.groups), bool)
        for group in graph.groups:
            if group.name in orders:
                keep[group.units[orders[group.name].order[: group.size // 3]]] = False
        pruned = surgery.remove(graph, keep)
        refit(graph.model, pruned, batches, graph.kept_outputs(keep), seed=SEED)
        answers.append(pruned(batches[0][0]).numpy())
    for one, other in zip(*[orders.values() for orders in found], strict=True):
        assert one.order.tolist() == other.order.tolist()
        np.testing.assert_allclose(one.errors, other.errors, rtol=1e-3)
    changed = np.abs(answers[0] - models[0](batches[0][0]).numpy()).max()
    assert np.abs(answers[0] - answers[1]).max() < 1e-3 * changed


def test_which_integers_weights_become(models, batches):
    """Weights are rounded by moments to the same integers, but for one in a hundred at most."""
    integers = []
    for model in models:
        rounded = round_by_moments(model, batches[:3], batches[3:], EIGHT_BITS, ridge=1e-4, seed=SEED).model
        products = [product for layer in rounded.layers if (product := product_of(layer))]
        steps = [np.abs(product.matrix).max(1, keepdims=True) / EIGHT_BITS for product in products]
        integers.append([np.round(np.abs(p.matrix / step)) for p, step in zip(products, steps, strict=True)])
    differing = sum(int((one != other).sum()) for one, other in zip(*integers, strict=True))
    assert differing <= 0.01 * sum(one.size for one in integers[0])
