"""Where an error arises: a damaged layer is found and named."""

import numpy as np
import pytest

from edgeprune.calibration import representative_dataset, representative_indices
from edgeprune.convert.converter import convert
from edgeprune.quantize.origin import describe, error_by_tensor, first_fall
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.runtime.interpreter import find_runtime

FLOAT = QuantizationPlan("float32", "float", False)


@pytest.fixture(scope="module")
def samples(tiny_data):
    return representative_dataset(tiny_data.train, representative_indices(tiny_data.train, 8, "stratified", 0))


@pytest.fixture(scope="module")
def reference(tiny_model):
    return convert(tiny_model, FLOAT)


def test_a_file_against_itself_has_no_error(reference, samples):
    """Every activation is exact, and every operator is there in order."""
    rows = error_by_tensor(reference, reference, samples(), find_runtime())
    assert {row.sqnr_db for row in rows} == {120.0}
    assert [row.operator for row in rows][:3] == ["CONV_2D", "CONV_2D", "ADD"]


def test_the_layer_that_was_damaged_is_named(tiny_model, reference, samples):
    """Noise in the second convolution's kernel: the error arises there, not where it is first seen in the output."""
    import tf_keras

    damaged = tf_keras.models.clone_model(tiny_model)
    damaged.set_weights(tiny_model.get_weights())
    kernel = damaged.get_layer("conv2d_1").kernel
    kernel.assign(kernel.numpy() + np.random.default_rng(0).normal(0, 0.2, kernel.shape))
    rows = error_by_tensor(convert(damaged, FLOAT), reference, samples(), find_runtime())
    assert describe(rows, tiny_model)["layer"] == "conv2d_1"
    assert max(rows, key=lambda row: row.added_noise) == first_fall(rows)


def test_int8_files_compare_by_name(tiny_model, reference, samples):
    """All activations of the int8 file are found in the float one, tens of decibels above the noise."""
    content = convert(tiny_model, QuantizationPlan("int8", "int8", True), samples)
    rows = error_by_tensor(content, reference, samples(), find_runtime())
    assert len(rows) >= 3
    assert all(10 < row.sqnr_db < 60 for row in rows)
    assert all(row.added_noise >= 0 for row in rows)


def test_recurrent_layers_are_compared_as_far_as_they_can_be_read():
    """A loop beside its steps written out, and a fused LSTM: what has data in both files is compared, without error."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    x = tf_keras.Input([3, 4])
    both = [tf_keras.layers.GRU(2)(x), tf_keras.layers.LSTM(2)(tf_keras.layers.Dense(3, name="first")(x))]
    model = tf_keras.Model(x, tf_keras.layers.Concatenate()(both))
    rows = np.random.default_rng(0).normal(0, 1, [8, 1, 3, 4]).astype("float32")

    def noise():
        return ([row] for row in rows)

    content = convert(model, QuantizationPlan("int8", "float", True), noise)
    found = error_by_tensor(content, convert(model, FLOAT), noise(), find_runtime())
    assert any("first" in row.tensor for row in found)
    assert all(np.isfinite(row.sqnr_db) for row in found)
