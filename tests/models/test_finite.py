import numpy as np
import pytest

from edgeprune.checking.model import check
from edgeprune.convert.converter import convert
from edgeprune.errors import ModelError
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
