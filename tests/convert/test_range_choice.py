"""The ranges of an int8 file's activations, chosen by what the files answer."""

import numpy as np
import pytest

from edgeprune.convert.range_choice import METHODS, choose, choose_ranges
from edgeprune.quantize.plan import QuantizationPlan

PLAN = QuantizationPlan("int8", "float", needs_samples=True)
SIDE = 16


def network():
    """The cube of each pixel, so that a pixel that is a little large makes a rare, huge value inside; then a mean."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    inputs = tf_keras.Input([SIDE, SIDE, 1])
    x = tf_keras.layers.Multiply()([inputs, inputs, inputs])
    x = tf_keras.layers.Conv2D(8, 3, padding="same")(x)
    return tf_keras.Model(inputs, tf_keras.layers.GlobalAveragePooling2D()(x))


def samples(count, outliers, seed):
    """Normal values; the first ``outliers`` of the samples have one that is about twice the largest."""
    values = np.random.default_rng(seed).normal(size=(count, SIDE, SIDE, 1)).astype("float32")
    values[:outliers, 5, 5] = 10
    return values


@pytest.mark.parametrize(
    ("outliers", "judged_outliers", "narrow"),
    [
        pytest.param(1, 0, True, id="an outlier in calibration"),
        pytest.param(1, 1, False, id="outliers that are most of the answer"),
    ],
)
def test_the_file_that_answers_most_like_the_model_is_taken(outliers, judged_outliers, narrow):
    """What an outlier stretches is narrowed, unless the outliers are what the answers are about."""
    model, calibration = network(), samples(256, outliers, 1)
    judging = [[samples(64, 64 * judged_outliers, 2)], [samples(40, 40 * judged_outliers, 3)]]
    chosen = choose_ranges(model, PLAN, lambda: ([x[None]] for x in calibration), lambda count: judging)
    assert set(chosen.differences) == set(METHODS)
    assert (chosen.method != "minmax") is narrow
    assert chosen.differences[chosen.method] == min(chosen.differences.values())


def test_the_differences_are_those_of_the_files(tmp_path):
    """What is said of the chosen file is what running it gives."""
    from edgeprune.runtime.interpreter import find_runtime
    from edgeprune.runtime.session import Session

    model, calibration, judged = network(), samples(64, 1, 1), samples(50, 0, 2)
    chosen = choose_ranges(model, PLAN, lambda: ([x[None]] for x in calibration), lambda count: [[judged]])
    path = tmp_path / "model.tflite"
    path.write_bytes(chosen.content)
    session = Session(path, model.input_names, model.output_names, runtime=find_runtime())
    wanted, (given,) = model(judged).numpy().astype("float64"), session.run([judged])
    session.close()
    share = np.square(wanted - given).sum() / np.square(wanted).sum()
    assert chosen.differences[chosen.method] == pytest.approx(share, rel=1e-4)


def test_narrower_ranges_have_to_be_clearly_better():
    """A gain that other samples may take back leaves all values inside; one sample shows nothing."""
    generator = np.random.default_rng(0)
    full = generator.uniform(1, 2, 100)
    chance = full + generator.normal(-0.01, 1, 100)
    assert choose({"minmax": full, "percentile": chance, "mse": full + 1}) == "minmax"
    assert choose({"minmax": full, "percentile": 0.9 * full, "mse": 0.8 * full}) == "mse"
    assert choose({"minmax": full[:1], "mse": 0.5 * full[:1]}) == "minmax"


@pytest.mark.parametrize(("available", "narrow"), [(100, True), (1, False)])
def test_what_few_samples_leave_open_is_looked_at_in_more(available, narrow):
    """One sample shows nothing; twice as many are asked for until it is clear, or there are no more."""
    judged, asked = samples(available, 0, 2), []

    def judging(count):
        asked.append(count)
        return [[judged[:count]]]

    calibration = samples(256, 1, 1)
    chosen = choose_ranges(network(), PLAN, lambda: ([x[None]] for x in calibration), judging, count=1)
    assert (chosen.method != "minmax") is narrow
    assert asked == [2**power for power in range(len(asked))]
    assert 2 <= len(asked) <= 8


def test_a_slow_model_is_compared_on_the_first_samples_only(monkeypatch):
    """How many multiply-accumulates a run takes decides how many runs there are."""
    monkeypatch.setattr("edgeprune.convert.range_choice.WORK", 1.5 * SIDE**2 * 8 * 9)
    calibration, asked = samples(64, 1, 1), []

    def judging(count):
        asked.append(count)
        return [[samples(count, 0, 2)]]

    chosen = choose_ranges(network(), PLAN, lambda: ([x[None]] for x in calibration), judging, count=1)
    assert asked == [1]
    assert set(chosen.differences) == set(METHODS)


def test_a_file_with_answers_that_are_no_numbers_is_not_taken():
    """NaN is never better."""
    full = np.ones(10)
    assert choose({"minmax": full, "percentile": np.full(10, np.nan)}) == "minmax"
