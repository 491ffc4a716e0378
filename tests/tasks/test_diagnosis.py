"""A bad baseline is questioned with its cause: other ranges and colours of pixels, other orders of classes."""

import dataclasses

import numpy as np
import pytest
from matrix import representatives

from edgeprune.data import InputSpec, load_data
from edgeprune.recipe.config import DataConfig, TaskConfig
from edgeprune.tasks.diagnosis import FEW, SAMPLES, SCALINGS, diagnose
from edgeprune.tasks.resolve import resolve_task

CLASSES = 4
PREPARED = {scaling.words: scaling for scaling in SCALINGS}


@pytest.fixture(scope="module")
def pixels():
    """Images of 0..255 whose class is the colour and the side of a bar, and their classes."""
    r = np.random.default_rng(0)
    y = r.integers(0, CLASSES, 600)
    x = r.normal(60, 12, (600, 8, 8, 3))
    for i, k in enumerate(y):
        x[i, :, 4 * (k % 2) : 4 * (k % 2) + 4, 0 if k < 2 else 2] += 120
    return np.clip(x, 0, 255).astype("float32"), y


def trained(x, y, normalized=True):
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    first = [layers.BatchNormalization()] if normalized else []
    model = tf_keras.Sequential(
        [
            layers.Input(x.shape[1:]),
            *first,
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.compile(tf_keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(x, y, epochs=12, verbose=0)
    return model


def warnings_of(model, x, y, config=None):
    data = load_data((x, y), config or DataConfig(), InputSpec.of(model))
    task = resolve_task(model, TaskConfig(), data)
    data = task.prepare(data)
    from edgeprune.evaluate.accuracy import evaluate_keras

    return diagnose(model, data, task, evaluate_keras(model, data.validation, task))


def as_config(warning):
    """The lines of advice as a recipe has them."""
    import tomllib

    lines = warning.split("Write in the recipe:\n")[1].split("\nand ")[0]
    return DataConfig(**tomllib.loads(lines).get("data", {}))


@pytest.mark.parametrize("expected", representatives(["pixels of 0..1", "pixels of -1..1"], "pixels of -1..1"))
def test_the_range_that_a_model_was_trained_with_is_found_and_its_advice_works(expected):
    """A model of another range is questioned; with the lines that the warning gives, it no longer is."""
    r = np.random.default_rng(0)
    y = r.integers(0, CLASSES, 600)  # brightness, which is nothing without the range
    x = np.clip(r.normal(40 + 55 * y[:, None, None, None], 12, (600, 8, 8, 3)), 0, 255).astype("float32")
    model = trained(PREPARED[expected](x), y)
    found = warnings_of(model, x, y)
    assert len(found) == 1
    assert expected in found[0]
    assert warnings_of(model, x, y, as_config(found[0])) == []


def test_exchanged_colours_are_found(pixels):
    """A model trained on BGR is questioned, and the words say what to do where no key can do it."""
    x, y = pixels
    model = trained(x[..., ::-1], y)
    found = warnings_of(model, x, y)
    assert "red and blue exchanged" in found[0]
    assert "x[..., ::-1]" in found[0]


def test_permuted_classes_are_found(pixels):
    """Labels in another order than the model's give a nearly permuted confusion matrix, which is said."""
    x, y = pixels
    model = trained(x, (y + 1) % CLASSES)
    found = warnings_of(model, x, y)
    assert "another order" in found[0]
    assert "label 0 is answered by output 1" in found[0]


def test_a_good_model_is_not_questioned(pixels):
    """Nothing is said of a model that is good."""
    x, y = pixels
    assert warnings_of(trained(x, y), x, y) == []


def test_words_fit_the_data():
    """A table has features, not pixels; inputs that were standardized for training are recognised."""
    r = np.random.default_rng(0)
    raw = r.normal([3, 500, -20, 0.01], [1, 90, 6, 0.002], (600, 4)).astype("float32")
    standardized = (raw - raw.mean(0)) / raw.std(0)
    y = (standardized[:, 0] > 0) * 2 + (standardized[:, 1] > 0)
    model = trained(standardized.astype("float32"), y, normalized=False)
    found = warnings_of(model, raw, y)
    assert "mean 0 and deviation 1" in found[0]
    assert "pixel" not in found[0]
    assert warnings_of(model, raw, y, as_config(found[0])) == []


def test_guessing_without_a_cause_is_still_questioned(pixels):
    """A model near chance that nothing explains gets a warning that says what was tried."""
    x, y = pixels
    model = trained(x, np.random.default_rng(1).integers(0, CLASSES, len(y)))
    found = warnings_of(model, np.random.default_rng(2).normal(size=x.shape).astype("float32"), y)
    assert len(found) <= 1
    assert all("near chance" in warning for warning in found)


def test_a_model_that_is_right_is_asked_little(pixels):
    """Of other ranges it is given few samples each, a few at a time: a large model would take minutes otherwise."""
    x, y = pixels
    model = trained(x, y)
    given = []

    class Counted:
        def __call__(self, inputs, training):
            given.append(len(inputs))
            return model(inputs, training=training)

    y = np.where(np.arange(len(y)) % 4, y, (y + 1) % CLASSES)  # a quarter wrong, so that the figure is questioned
    data = load_data((x, y), DataConfig(), InputSpec.of(model))
    task = resolve_task(model, TaskConfig(), data)
    assert diagnose(Counted(), task.prepare(data), task, 0.75) == []
    tried = len(SCALINGS) * 2
    assert sum(given) <= SAMPLES + tried * FEW + 2 * SAMPLES


def test_what_was_tried_is_said_and_what_was_not_is_not(pixels):
    """Of several inputs no ranges are tried; samples are counted, and not the outputs that have labels."""
    import tf_keras

    x, y = pixels
    inputs = [tf_keras.layers.Input(x.shape[1:], name=name) for name in ("left", "right")]
    flat = tf_keras.layers.Flatten()(tf_keras.layers.Concatenate()(inputs))
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(CLASSES, "softmax", name="kind")(flat))
    model.compile("sgd", "sparse_categorical_crossentropy", ["accuracy"])
    data = load_data(({"left": x, "right": x}, y), DataConfig(), InputSpec.of(model))
    task = resolve_task(model, TaskConfig(), data)
    (warning,) = diagnose(model, task.prepare(data), task, 0.26)
    assert "ranges" not in warning
    assert f"tried on {SAMPLES} samples" in warning
    assert diagnose(model, data, task, 0.36) == []


def test_data_that_come_class_by_class_are_questioned_all_the_same():
    """A model that answers the class of the first samples, whatever it is given, is not taken to be right by those."""
    r = np.random.default_rng(0)
    y = r.integers(0, CLASSES, 600)
    x = np.clip(r.normal(40 + 55 * y[:, None, None, None], 12, (600, 8, 8, 3)), 0, 255).astype("float32")
    model = trained(x / 255, y)
    answers = model.predict(x, verbose=0).argmax(-1)
    always = np.bincount(answers).argmax()
    order = np.argsort(y != always, kind="stable")
    data = load_data((x[order], y[order]), DataConfig(), InputSpec.of(model))
    data = dataclasses.replace(data, train=dataclasses.replace(data.train, index=np.sort(data.train.index)))
    assert (answers[order][data.train.index[:FEW]] == always).all()
    task = resolve_task(model, TaskConfig(), data)
    (warning,) = diagnose(model, task.prepare(data), task, 0.4)
    assert "The model expects pixels" in warning


def test_advice_works_in_the_recipe_that_is_there():
    """Its scale, mean and std would stay if the lines only named what differs from the defaults."""
    import tomllib

    r = np.random.default_rng(0)
    y = r.integers(0, CLASSES, 600)
    x = np.clip(r.normal(40 + 55 * y[:, None, None, None], 12, (600, 8, 8, 3)), 0, 255).astype("float32")
    model = trained(x, y)
    wrong = {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    (warning,) = warnings_of(model, x, y, DataConfig(**wrong))
    assert "pixels of 0..255:" in warning
    advised = tomllib.loads(warning.split("Write in the recipe:\n")[1])["data"]
    assert warnings_of(model, x, y, DataConfig(**{**wrong, **advised})) == []


@pytest.mark.parametrize(("trained_with", "stated"), [("none", "standard"), ("standard", "minmax")])
def test_tables_that_are_normalized_otherwise_are_found(trained_with, stated, tmp_path):
    """As the source has them, or by mean and deviation; the advice is of [data.table], which sets mean and std."""
    import tomllib

    from edgeprune.evaluate.accuracy import evaluate_keras

    r = np.random.default_rng(0)
    y = r.integers(0, CLASSES, 600)
    x = np.round(np.stack([5 + 2 * y + r.normal(0, 0.3, 600), r.normal(3, 2, 600)], 1), 2)
    rows = [f"{a},{b},{label}" for (a, b), label in zip(x, y, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,y", *rows]))
    seen = (x - x.mean(0)) / x.std(0) if trained_with == "standard" else x
    model = trained(seen.astype("float32"), y, normalized=False)

    def diagnosed(normalize):
        config = DataConfig.model_validate({"table": {"target": "y", "normalize": normalize}})
        data = load_data(str(tmp_path / "t.csv"), config, InputSpec.of(model))
        task = resolve_task(model, TaskConfig(), data)
        data = task.prepare(data)
        return diagnose(model, data, task, evaluate_keras(model, data.validation, task))

    (warning,) = diagnosed(stated)
    advised = tomllib.loads(warning.split("Write in the recipe:\n")[1])["data"]["table"]["normalize"]
    assert advised == trained_with
    assert not any("Write in the recipe" in one for one in diagnosed(advised))
