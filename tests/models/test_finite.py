import numpy as np
import pytest

from edgeprune.checking.model import check
from edgeprune.convert.converter import convert
from edgeprune.errors import ModelError
from edgeprune.models import load_model
from edgeprune.models.finite import require_finite
from edgeprune.quantize.plan import QuantizationPlan

tf_keras = pytest.importorskip("tf_keras")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(value):
    """One NaN or infinite weight is an error that names the layer, before anything is converted; without it, the model
    passes."""
    layers = tf_keras.layers
    model = tf_keras.Sequential([tf_keras.Input((4,)), layers.Dense(3, name="first"), layers.Dense(2, name="second")])
    require_finite(model)
    kernel, bias = model.get_layer("second").get_weights()
    kernel[1, 1] = value
    model.get_layer("second").set_weights([kernel, bias])
    for refuses in (
        lambda: convert(model, QuantizationPlan("float32", "float", needs_samples=False)),
        lambda: check(model, "rpi4"),
    ):
        with pytest.raises(ModelError, match=r"'second' .* 1 of 6 numbers .* NaN or infinite"):
            refuses()


def test_ranges_that_are_no_numbers_are_refused():
    """A model whose quantization-aware training has learned a NaN as the end of a range is refused when it is opened,
    by the range's name, though all weights are finite."""
    import tensorflow_model_optimization as tfmot

    layers = tf_keras.layers
    model = tfmot.quantization.keras.quantize_model(
        tf_keras.Sequential([tf_keras.Input((4,)), layers.Dense(3, name="first"), layers.Dense(2, name="second")])
    )
    broken = next(weight for weight in model.weights if "second" in weight.name and "max" in weight.name)
    broken.assign(np.full(broken.shape, np.nan))
    with pytest.raises(ModelError, match=r"second.* is NaN or infinite"):
        load_model(model)


def test_a_sensitivity_analysis_refuses_them_first(tmp_path):
    """Before any data is read."""
    from edgeprune.analysis import analyse_sensitivity

    model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(3, name="first")])
    model.layers[0].bias.assign([1.0, np.inf, 0.0])
    model.save(tmp_path / "model.keras")
    with pytest.raises(ModelError, match=r"'first' .* 1 of 3 numbers"):
        analyse_sensitivity(tmp_path / "model.keras", data="demo", out=tmp_path / "out")
