"""Representative samples."""

import numpy as np
import pytest

from edgeprune.calibration import check_samples, representative_dataset, representative_indices
from edgeprune.data import InputSpec, load_data
from edgeprune.recipe.config import DataConfig

SPEC = InputSpec(((2, 2, 1),))
TWO_INPUTS = InputSpec(((2,), (3,)), ("left", "right"))


def _split(y: np.ndarray, spec: InputSpec = SPEC):
    rng = np.random.default_rng(0)
    x = tuple(rng.random((len(y), *shape), np.float32) for shape in spec.shapes)
    x = x[0] if len(x) == 1 else x
    return load_data({"train": (x, y), "validation": (x, y), "test": (x, y)}, DataConfig(scale=2), spec).train


def test_stratified_samples_of_a_sorted_split_cover_all_classes():
    """Also the rare class at the end is drawn, and the large classes keep their proportion."""
    split = _split(np.repeat([0, 1, 2, 3], [400, 200, 200, 5]))
    chosen = split.labels[representative_indices(split, 81, "stratified", seed=0)]
    assert np.bincount(chosen).tolist() == pytest.approx([40, 20, 20, 1], abs=1)


@pytest.mark.parametrize("strategy", ["stratified", "random"])
@pytest.mark.parametrize("y", [np.arange(50) % 5, np.linspace(0, 3, 50)])
def test_indices_are_distinct_and_fixed_by_the_seed(strategy, y):
    """Distinct positions, the same for the same seed, and no more than there are; regression targets work too."""
    split = _split(y)
    first, again, other = (representative_indices(split, 20, strategy, seed) for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()
    assert len(set(first.tolist())) == 20
    assert sorted(representative_indices(split, 99, strategy, 0).tolist()) == list(range(50))


def test_samples_are_preprocessed_and_repeatable():
    """Each call iterates anew over batch-1 float32 lists, in the order of the indices, preprocessed as in training."""
    split = _split(np.arange(50) % 5)
    samples = representative_dataset(split, np.array([7, 2]))
    for _ in range(2):
        rows = list(samples())
        assert [(len(row), row[0].shape, row[0].dtype) for row in rows] == [(1, (1, 2, 2, 1), np.float32)] * 2
    x, _ = next(split.batches(50).as_numpy_iterator())
    np.testing.assert_array_equal(np.concatenate([row[0] for row in rows]), x[[7, 2]])


def test_samples_come_from_data_with_weights_and_without_labels():
    """Sample weights do not reach the converter, and data without labels is drawn from at random."""
    x, y = np.random.default_rng(0).random((50, 2, 2, 1), np.float32), np.arange(50) % 5
    for part in ((x, y, y + 1.0), (x,)):
        split = load_data({"train": part, "validation": part, "test": part}, DataConfig(), SPEC).train
        indices = representative_indices(split, 8, "stratified", seed=1)
        rows = list(representative_dataset(split, indices)())
        np.testing.assert_array_equal(np.concatenate([row[0] for row in rows]), x[indices])


@pytest.mark.parametrize("spec", [SPEC, TWO_INPUTS])
def test_converter_accepts_the_samples(spec):
    """A full-integer conversion calibrates with one input and with two."""
    import tensorflow as tf
    import tf_keras

    inputs = [tf_keras.Input(shape, name=name) for shape, name in zip(spec.shapes, spec.names, strict=True)]
    flat = [tf_keras.layers.Flatten()(tensor) for tensor in inputs]
    joined = tf_keras.layers.Concatenate()(flat) if len(flat) > 1 else flat[0]
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(2)(joined))
    split = _split(np.arange(50) % 5, InputSpec.of(model))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative_dataset(split, representative_indices(split, 10))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    assert len(converter.convert()) > 500


def _rows(*values: np.ndarray):
    return [[np.asarray(value, np.float32)[None]] for value in values]


NORMAL = [np.linspace(0, 255, 4).reshape(2, 2, 1) + i for i in range(20)]

WARNINGS = {
    "none": ([], "no representative samples"),
    "constant": ([*NORMAL, np.zeros((2, 2, 1))], "1 of 21 representative samples are constant"),
    "NaN": ([*NORMAL, np.full((2, 2, 1), np.nan)], "hold NaN"),
    "scaled twice": ([value / 255 / 255 for value in NORMAL], "scaled twice"),
    "outlier": ([*NORMAL, NORMAL[0] * 100], "has a value of 2.55e"),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_suspicious_samples_are_named(case):
    """Each kind of bad sample gives one warning that says what it is."""
    values, message = WARNINGS[case]
    warnings = check_samples(_rows(*values), SPEC)
    assert len(warnings) == 1
    assert message in warnings[0]


def test_good_samples_give_no_warning():
    """Ordinary images, in 0..255 or 0..1, with all classes, pass in silence; a missing class is counted."""
    for scale in (1, 1 / 255):
        assert check_samples(_rows(*[value * scale for value in NORMAL]), SPEC) == []
    labels = np.arange(20) % 3
    assert check_samples(_rows(*NORMAL), SPEC, labels=labels, class_count=3) == []
    assert "1 of 4 classes" in check_samples(_rows(*NORMAL), SPEC, labels=labels, class_count=4)[0]


def test_other_shapes_and_dtypes_are_named():
    """A sample of the wrong size, and samples in float64."""
    (warning,) = check_samples([*_rows(*NORMAL), [np.linspace(0, 9, 9, dtype=np.float32).reshape(1, 3, 3, 1)]], SPEC)
    assert "1 of 21" in warning
    assert "(3, 3, 1) instead of (2, 2, 1)" in warning
    (warning,) = check_samples([[row[0].astype(np.float64)] for row in _rows(*NORMAL)], SPEC)
    assert "float64; the model takes float32" in warning


def test_inputs_by_name_are_checked_one_by_one():
    """For several inputs the warning names the input."""
    split = _split(np.arange(20) % 2, TWO_INPUTS)
    samples = [
        {**sample, "right": np.zeros((1, 3), np.float32)} for sample in representative_dataset(split, np.arange(5))()
    ]
    warnings = check_samples(samples, TWO_INPUTS)
    assert warnings == ["5 of 5 representative samples of input 'right' are constant (blank images?)."]


@pytest.mark.parametrize("steps", [(), (10,)])
def test_columns_that_one_scale_is_too_coarse_for_are_named(steps):
    """A column of thousands leaves no steps to one of tens; columns of similar ranges are fine."""
    r = np.random.default_rng(0)
    fine = r.normal(0, [1, 3, 2], (60, 1, *steps, 3)).astype("float32")
    raw = r.normal([0, 34, 5], [9000, 2, 3000], (60, 1, *steps, 3)).astype("float32")
    spec = InputSpec(((*steps, 3),))
    assert check_samples([[row] for row in fine], spec) == []
    (warning,) = check_samples([[row] for row in raw], spec)
    assert "1 of 3 columns" in warning
    assert "column 1" in warning
