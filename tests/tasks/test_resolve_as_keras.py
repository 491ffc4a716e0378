"""What a model was compiled with gives Keras' own figures, whichever way it is written and handed over."""

import itertools

import keras
import numpy as np
import pytest
import tf_keras
from matrix import representatives

from edgeprune.data import load_data
from edgeprune.data.spec import InputSpec
from edgeprune.evaluate.accuracy import keras_figures
from edgeprune.models.compiled import live_objects
from edgeprune.models.hash import model_hash
from edgeprune.models.load import open_model
from edgeprune.recipe.config import DataConfig, TaskConfig
from edgeprune.tasks.resolve import resolve_task

SAMPLES = 44  # not a multiple of Keras' batches
KERASES = {"keras2": tf_keras, "keras3": keras}


def of(always):
    """What either Keras hands over is read the same way: one of the two is always looked at."""
    return pytest.mark.parametrize("kerases", representatives(KERASES, always), indirect=True)


@pytest.fixture
def kerases(request):
    """One of the two."""
    return KERASES[request.param]


@pytest.fixture
def random():
    """A generator of numbers."""
    return np.random.default_rng(0)


def dense(kerases, *heads):
    """A model of 5 features; heads are (width, activation)."""
    kerases.utils.set_random_seed(0)
    inputs = kerases.Input((5,))
    outputs = [kerases.layers.Dense(w, activation=a, name=f"head{i}")(inputs) for i, (w, a) in enumerate(heads)]
    return kerases.Model(inputs, outputs if len(heads) > 1 else outputs[0])


def figures(model, data, source=None, **config):
    """What a build measures of the model, or of the file ``source``."""
    opened = open_model(source or model)
    loaded = load_data({"train": data, "validation": data, "test": data}, DataConfig(), InputSpec.of(opened.model))
    task = resolve_task(opened.model, TaskConfig(**config), loaded, opened.compiled, live_objects(model))
    return keras_figures(opened.model, task.prepare(loaded).test, task)


def evaluated(model, x, y, w=None):
    y = list(y) if isinstance(y, tuple) else y
    return model.evaluate(x, y, sample_weight=w, return_dict=True, verbose=0)


def of_power(power):
    """A function that differs by its closure only."""

    def error(labels, outputs):
        return abs(labels - outputs) ** power

    return error


@of("keras2")
def test_one_number_per_batch_is_averaged_over_batches_of_keras(kerases, random):
    """A user's function that gives one number for a batch has the mean over batches of 32, as in evaluate."""

    def rmse(labels, outputs):
        return (
            kerases.backend.sqrt(kerases.backend.mean((labels - outputs) ** 2))
            if kerases is tf_keras
            else (keras.ops.sqrt(keras.ops.mean((labels - outputs) ** 2)))
        )

    model = dense(kerases, (2, None))
    model.compile("sgd", "mse", metrics=[rmse])
    data = random.normal(size=(SAMPLES, 5)).astype("float32"), random.normal(size=(SAMPLES, 2)).astype("float32")
    found = figures(model, data, higher_is_better=False)
    assert found["rmse"] == pytest.approx(evaluated(model, *data)["rmse"], abs=1e-5)


@of("keras3")
def test_a_loss_that_stands_for_a_metric_is_that_of_keras(kerases, random):
    """Without metrics, the figure is the loss of evaluate, which weights of samples multiply and do not divide."""
    model = dense(kerases, (2, None))
    model.compile("sgd", "mse")
    data = (
        random.normal(size=(SAMPLES, 5)).astype("float32"),
        random.normal(size=(SAMPLES, 2)).astype("float32"),
        random.uniform(0, 3, SAMPLES).astype("float32"),
    )
    assert figures(model, data)["mean_squared_error"] == pytest.approx(evaluated(model, *data)["loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("kerases", "form"),
    representatives(itertools.product(KERASES, [None, ".h5", ".keras"]), ("keras2", ".h5"), ("keras3", ".keras")),
    indirect=["kerases"],
)
def test_a_loss_object_as_a_metric(kerases, form, random, tmp_path):
    """A loss object among the metrics is measured with its arguments, and less is better."""
    model = dense(kerases, (2, None))
    arguments = {"delta": 0.3} if form is None or kerases is tf_keras else {}  # Keras 3 does not save it
    model.compile("sgd", "mse", metrics=[kerases.losses.Huber(**arguments)])
    data = random.normal(size=(SAMPLES, 5)).astype("float32"), random.normal(size=(SAMPLES, 2)).astype("float32")
    expected = evaluated(model, *data)["huber_loss"]
    if form:
        model.save(tmp_path / f"model{form}")
    source = tmp_path / f"model{form}" if form else None
    assert figures(model, data, source)["huber_loss"] == pytest.approx(expected, abs=1e-5)


@of("keras2")
def test_functions_of_one_name_are_kept_apart(kerases, random):
    """Losses and metrics in memory that share a name, with another or with one of Keras, stay what they are."""

    def accuracy(labels, outputs):
        return labels * 0 + outputs

    model = dense(kerases, (2, None), (2, None))
    model.compile("sgd", [of_power(1), of_power(3)], metrics=[[of_power(2)], [accuracy]])
    x, *y = (random.normal(size=(SAMPLES, width)).astype("float32") for width in (5, 2, 2))
    expected = evaluated(model, x, tuple(y))
    found = figures(model, (x, tuple(y)), higher_is_better=True)
    assert found["head0.error"] == pytest.approx(expected["head0_error"], abs=1e-5)
    assert found["head1.accuracy"] == pytest.approx(expected["head1_accuracy"], abs=1e-5)
    # In a graph, Keras 3 does not weight the batches of the losses of single outputs by their size.
    model.compile("sgd", [of_power(1), of_power(3)], run_eagerly=True)
    found = figures(model, (x, tuple(y)))
    expected = evaluated(model, x, tuple(y))
    assert list(found.values()) == pytest.approx([expected["head0_loss"], expected["head1_loss"]], abs=1e-5)


def test_the_hash_knows_what_a_function_was_made_with():
    """Two models that differ in a closure of their loss have different hashes; the same one has the same."""
    model = dense(tf_keras, (2, None))
    hashes = []
    for power in (1, 2, 1):
        model.compile("sgd", of_power(power))
        hashes.append(model_hash(model))
    assert hashes[0] == hashes[2] != hashes[1]


def test_what_only_keras_3_has(random, tmp_path):
    """A loss that tf_keras lacks is restored from a file, and a class as a loss from memory."""
    model = dense(keras, (3, "sigmoid"))
    data = random.normal(size=(SAMPLES, 5)).astype("float32"), random.integers(0, 2, (SAMPLES, 3)).astype("float32")
    for loss in (keras.losses.Tversky(alpha=0.3), keras.losses.MeanAbsoluteError):
        model.compile("sgd", loss)
        source = None
        if not isinstance(loss, type):
            source = tmp_path / "model.keras"
            model.save(source)
        (value,) = figures(model, data, source).values()
        assert value == pytest.approx(evaluated(model, *data)["loss"], abs=1e-5)


def test_metrics_of_keras_3_take_integers_and_count_in_integers(random):
    """F1 over integer rows, and an intersection over union whose weights Keras 3 rounds down, are those of Keras 3."""
    metrics = [keras.metrics.F1Score(average="macro"), keras.metrics.OneHotMeanIoU(num_classes=3)]
    model = dense(keras, (3, "softmax"))
    model.compile("sgd", "mse", weighted_metrics=metrics)
    data = (
        random.normal(size=(SAMPLES, 5)).astype("float32"),
        np.eye(3, dtype="int64")[random.integers(0, 3, SAMPLES)],
        random.uniform(0, 3, SAMPLES).astype("float32"),
    )
    expected = {name: value for name, value in evaluated(model, *data).items() if name != "loss"}
    assert figures(model, data) == pytest.approx(expected, abs=1e-5)


@of("keras3")
def test_a_metric_that_a_class_name_stands_for_has_no_number(kerases, random):
    """The name of a metric does not depend on how many a process has made; Keras 3 keeps the name as it was given."""
    data = random.normal(size=(SAMPLES, 5)).astype("float32"), random.integers(0, 2, SAMPLES)
    for _ in range(2):
        model = dense(kerases, (1, "sigmoid"))
        model.compile("sgd", "binary_crossentropy", metrics=["AUC"])
        assert list(figures(model, data)) == ["auc" if kerases is tf_keras else "AUC"]


@pytest.mark.parametrize(
    ("kerases", "form"),
    representatives(itertools.product(KERASES, [".h5", ".keras"]), ("keras3", ".h5")),
    indirect=["kerases"],
)
def test_padding_is_left_out_of_models_from_files(kerases, form, random, tmp_path):
    """Steps that an Embedding masks count in no figure, whichever layers make the output."""
    kerases.utils.set_random_seed(0)
    layers = kerases.layers
    inputs = layers.Input([6], dtype="int32")
    steps = layers.Embedding(9, 8, mask_zero=True, embeddings_initializer="normal")(inputs)
    model = kerases.Model(inputs, layers.Activation("sigmoid")(layers.Dense(3)(steps)))
    model.compile("sgd", "mse", metrics=["accuracy"], weighted_metrics=["mae"])
    x = random.integers(1, 9, (SAMPLES, 6)).astype("int32")
    x[:, 3:] *= random.integers(0, 2, (SAMPLES, 1), dtype="int32")
    data = x, np.eye(3, dtype="float32")[random.integers(0, 3, (SAMPLES, 6))]
    if kerases is tf_keras:  # Keras 3 takes no weights of samples for padded steps
        data = (*data, random.uniform(0, 3, SAMPLES).astype("float32"))
    expected = {name: value for name, value in evaluated(model, *data).items() if name != "loss"}
    model.save(tmp_path / f"model{form}")
    assert figures(model, data, tmp_path / f"model{form}") == pytest.approx(expected, abs=1e-5)


def test_a_loss_that_stands_for_a_metric_is_divided_by_steps_without_padding(random):
    """Keras spreads the weight of padded steps over the others: of each batch, the mean is one over those."""
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    inputs = layers.Input([6], dtype="int32")
    model = tf_keras.Model(inputs, layers.Dense(2)(layers.Embedding(9, 8, mask_zero=True)(inputs)))
    model.compile("sgd", "mse")
    x = random.integers(0, 3, (SAMPLES, 6)).astype("int32")
    data = x, random.normal(size=(SAMPLES, 6, 2)).astype("float32")
    for weights in ((), (random.uniform(0, 3, SAMPLES).astype("float32"),)):
        (found,) = figures(model, (*data, *weights)).values()
        assert found == pytest.approx(evaluated(model, *data, *weights)["loss"], rel=1e-5)


def test_weights_of_samples_go_with_padding_into_metrics_that_take_one_per_step(random):
    """Keras spreads a weight per sample over the steps by their padding; without that, such a metric takes none."""
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    inputs = layers.Input([6], dtype="int32")
    model = tf_keras.Model(inputs, layers.Dense(2, "sigmoid")(layers.Embedding(9, 8, mask_zero=True)(inputs)))
    model.compile("sgd", "mse", weighted_metrics=[tf_keras.metrics.SensitivityAtSpecificity(0.5)])
    x = random.integers(0, 9, (SAMPLES, 6)).astype("int32")
    y = np.eye(2, dtype="float32")[random.integers(0, 2, (SAMPLES, 6))]
    data = x, y, random.uniform(0, 3, SAMPLES).astype("float32")
    (expected,) = (value for name, value in evaluated(model, *data).items() if name != "loss")
    assert list(figures(model, data).values()) == pytest.approx([expected], abs=1e-5)


@pytest.mark.parametrize(
    ("kerases", "metric"),
    representatives(
        itertools.product(KERASES, ["mae", "categorical_accuracy"]),
        ("keras2", "mae"), ("keras3", "categorical_accuracy"),
    ),
    indirect=["kerases"],
)  # fmt: skip
def test_a_metric_over_rows_is_keras_own_for_class_numbers(kerases, metric, random):
    """Where Keras compares a class number with a whole row, so does the figure."""
    model = dense(kerases, (3, "softmax"))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[metric])
    data = random.normal(size=(SAMPLES, 5)).astype("float32"), random.integers(0, 3, (SAMPLES, 1))
    assert figures(model, data)[metric] == pytest.approx(evaluated(model, *data)[metric], abs=1e-5)
