"""Loss and metric of each output: from the recipe, else as compiled, else what labels and output leave as reading."""

import itertools

import numpy as np
import pytest
from matrix import representatives
from samples import data_of

from edgeprune.errors import DataError, EdgepruneError, RecipeError
from edgeprune.evaluate.accuracy import evaluate_keras, keras_figures
from edgeprune.recipe.config import TaskConfig
from edgeprune.tasks.resolve import resolve_task

X = np.random.default_rng(0).normal(size=(24, 3)).astype("float32")
CLASSES = np.arange(24) % 4
ONE_HOT = np.eye(4, dtype="float32")[CLASSES]
TAGS = (np.random.default_rng(1).random((24, 4)) < 0.5).astype("float32")
VALUES = np.linspace(0.5, 3, 24, dtype="float32")[:, None]


def model(units=4, activation="softmax", **compiled):
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    inputs = tf_keras.layers.Input([3])
    made = tf_keras.Model(inputs, tf_keras.layers.Dense(units, activation=activation, name="out")(inputs))
    if compiled:
        made.compile(**compiled)
    return made


def two_heads(**compiled):
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    inputs = tf_keras.layers.Input([3])
    dense = tf_keras.layers.Dense
    heads = [dense(4, activation="softmax", name="colour")(inputs), dense(2, name="box")(inputs)]
    made = tf_keras.Model(inputs, heads)
    if compiled:
        made.compile(**compiled)
    return made


def resolved(made, y, *w, **config):
    return resolve_task(made, TaskConfig(**config), data_of(made, X, y, *w))


def figures(made, y, *w, **config):
    """All metrics of the task over the labels as a build takes them."""
    data = data_of(made, X, y, *w)
    task = resolve_task(made, TaskConfig(**config), data)
    return keras_figures(made, task.prepare(data).test, task)


def test_one_of_several_classes_is_known_by_its_labels():
    """Class numbers for an output of several values: cross-entropy, accuracy in points, logits or not."""
    task = resolved(model(), CLASSES)
    assert (task.metric, task.higher_is_better, task.points, task.classes) == ("accuracy", True, 100.0, 4)
    assert type(task.outputs[0].loss).__name__ == "SparseCategoricalCrossentropy"
    assert task.outputs[0].loss.get_config()["from_logits"] is False
    logits = resolved(model(activation=None), CLASSES).outputs[0]
    assert (logits.loss.get_config()["from_logits"], logits.is_logits) == (True, True)


FORMS = {"numbers": CLASSES, "column": CLASSES[:, None], "one-hot": ONE_HOT}
TWINS = ("categorical_crossentropy", "sparse_categorical_crossentropy")


@pytest.mark.parametrize(
    ("form", "loss"), representatives(itertools.product(FORMS, TWINS), ("column", TWINS[0]), ("one-hot", TWINS[1]))
)
def test_either_twin_loss_takes_either_form_of_labels(loss, form):
    """A model compiled for one-hot rows takes class numbers, and the other way round: the figures are the same."""
    labels = FORMS[form]
    made = model(loss=loss, metrics=["accuracy"])
    data = data_of(made, X, labels)
    task = resolve_task(made, TaskConfig(), data)
    _, y = next(iter(task.prepare(data).test.batches(24)))
    outputs = made.predict(X, verbose=0)
    assert float(task.loss_function()(y, outputs)) == pytest.approx(
        -np.log(outputs[np.arange(24), CLASSES]).mean(), rel=1e-5
    )
    accuracy = np.mean(outputs.argmax(-1) == CLASSES)
    assert evaluate_keras(made, task.prepare(data).test, task) == pytest.approx(accuracy)
    assert task.metric == "accuracy"


def test_compiled_settings_of_losses_and_metrics_are_kept():
    """Label smoothing, k and the name of one's own survive; the figures are those of Keras."""
    import tf_keras

    loss = tf_keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    top = tf_keras.metrics.TopKCategoricalAccuracy(k=2, name="top2")
    made = model(loss=loss, metrics=[top, tf_keras.metrics.AUC(curve="PR", name="area")])
    task = resolved(made, ONE_HOT)
    assert task.outputs[0].loss.get_config()["label_smoothing"] == pytest.approx(0.1)
    expected = made.evaluate(X, ONE_HOT, verbose=0, return_dict=True)
    found = figures(made, ONE_HOT)
    assert set(found) == {"top2", "area"}
    assert found == {name: pytest.approx(expected[name], abs=1e-6) for name in found}


@pytest.mark.parametrize(
    "metric", representatives(["mae", "MAE", "mean_absolute_error", "MeanAbsoluteError"], "MeanAbsoluteError")
)
def test_a_regression_as_compiled_is_better_when_its_error_is_lower(metric):
    """However the error is spelled: lower is better, differences are in its own unit."""
    task = resolved(model(1, None, loss="mse", metrics=[metric]), VALUES)
    assert (task.higher_is_better, task.points, task.classes) == (False, 1.0, None)
    assert task.drop(1.0, 1.5) == pytest.approx(0.5)
    made = model(1, None, loss="mse", metrics=[metric])
    expected = np.abs(made.predict(X, verbose=0) - VALUES).mean()
    assert list(figures(made, VALUES).values()) == [pytest.approx(expected, rel=1e-5)]


def test_numbers_without_compile_information_are_a_regression():
    """Never a cross-entropy over float targets."""
    task = resolved(model(1, None), VALUES)
    assert (task.primary.kind, task.metric) == ("regression", "mean_absolute_error")
    assert type(task.primary.loss).__name__ == "MeanSquaredError"


def test_multi_label_with_logits_counts_from_zero():
    """Binary accuracy of logits has its threshold at zero."""
    made = model(activation=None)
    outputs = made.predict(X, verbose=0)
    assert figures(made, TAGS, loss="binary_crossentropy") == {
        "binary_accuracy": pytest.approx(np.mean((outputs > 0) == TAGS))
    }


def test_a_compiled_threshold_stays_and_is_questioned():
    """The figure of a compiled binary accuracy over logits is Keras' own, and the report says that they cross zero."""
    import tf_keras

    loss = tf_keras.losses.BinaryCrossentropy(from_logits=True)
    made = model(activation=None, loss=loss, metrics=["binary_accuracy"])
    expected = made.evaluate(X, TAGS, verbose=0, return_dict=True)["binary_accuracy"]
    assert figures(made, TAGS) == {"binary_accuracy": pytest.approx(expected)}
    assert any("cross zero" in warning for warning in resolved(made, TAGS).warnings)


@pytest.mark.parametrize(
    ("units", "activation", "labels", "kinds"),
    [
        (4, "sigmoid", ONE_HOT, ("classification", "multilabel")),
        (4, None, TAGS, ("multilabel", "regression")),
        (1, None, (VALUES > 1).astype("float32"), ("classification", "regression")),
    ],
)
def test_two_readings_are_asked_for_and_each_answer_works(units, activation, labels, kinds):
    """The message lists the lines to write, and a recipe with any of them resolves to that kind."""
    made = model(units, activation)
    with pytest.raises(RecipeError, match="cannot be known") as raised:
        resolved(made, labels)
    for kind in kinds:
        assert f'kind = "{kind}"' in str(raised.value)
        assert resolved(made, labels, kind=kind).primary.kind == kind


@pytest.mark.parametrize(
    ("compiled", "labels", "message"),
    [
        ({"loss": "sparse_categorical_crossentropy"}, VALUES.repeat(4, 1), "do not fit the loss"),
        ({"loss": "categorical_crossentropy"}, VALUES.repeat(4, 1), "do not fit the loss"),
        ({"loss": "binary_crossentropy"}, VALUES.repeat(4, 1), "do not fit the loss"),
        ({}, CLASSES + 1, "start at 1"),
        ({}, np.where(CLASSES == 3, 255, CLASSES), "ignore = 255"),
        ({}, CLASSES * 2, "7 classes"),
        ({}, VALUES.repeat(3, 1), "shape"),
    ],
)
def test_labels_that_do_not_fit_end_the_build(compiled, labels, message):
    """Nothing is trained under a loss that its labels do not fit."""
    with pytest.raises(DataError, match=message):
        resolved(model(**compiled), labels)


def test_ignored_classes_do_not_count():
    """Neither in the loss nor in the metric."""
    made = model()
    labels = np.where(CLASSES == 3, 255, CLASSES)
    kept = CLASSES != 3
    outputs = made.predict(X, verbose=0)
    accuracy = np.mean(outputs.argmax(-1)[kept] == CLASSES[kept])
    assert figures(made, labels, ignore=255) == {"accuracy": pytest.approx(accuracy)}
    task = resolved(made, labels, ignore=255)
    expected = -np.log(outputs[kept, CLASSES[kept]]).mean()
    assert float(task.loss_function()(labels, outputs)) == pytest.approx(expected, rel=1e-5)


def test_functions_of_the_user_need_a_direction(tmp_path):
    """A loss and a metric from a file; without higher_is_better the build asks."""
    path = tmp_path / "mine.py"
    path.write_text(
        "import tensorflow as tf\ndef worst(y, p): return tf.reduce_max(tf.abs(tf.cast(y, tf.float32) - p), -1)\n"
    )
    name, made = f"{path}:worst", model()
    worst = np.abs(ONE_HOT - made.predict(X, verbose=0)).max(-1).mean()
    config = {"loss": name, "metric": name, "higher_is_better": False}
    assert figures(made, ONE_HOT, **config) == {"worst": pytest.approx(worst, rel=1e-5)}
    task = resolved(made, ONE_HOT, **config)
    assert float(task.loss_function()(ONE_HOT, made.predict(X, verbose=0))) == pytest.approx(worst, rel=1e-5)
    assert (task.higher_is_better, task.points) == (False, 1.0)
    with pytest.raises(RecipeError, match="higher_is_better"):
        resolved(made, ONE_HOT, metric=name)


@pytest.mark.parametrize(
    "config",
    [
        {"loss": "nonsense"},
        {"metric": "nonsense"},
        {"metric": {"class": "nonsense"}},
        {"metric": {"class": "AUC", "nonsense": 1}},
        {"primary": "nonsense"},
        {"outputs": {"nonsense": {}}},
        {"class_weights": {"nonsense": 2.0}},
    ],
)
def test_unknown_names_are_recipe_errors(config):
    """The message names what is not there."""
    with pytest.raises(RecipeError, match="nonsense"):
        resolved(model(), CLASSES, **config)


def test_a_term_of_the_recipe_has_arguments():
    """A metric as a table; several metrics, of which primary is what choices go by."""
    made = model()
    terms = ("accuracy", {"class": "SparseTopKCategoricalAccuracy", "k": 2, "name": "top2"})
    task = resolved(made, CLASSES, metric=terms, primary="top2")
    ranks = np.argsort(-made.predict(X, verbose=0))[:, :2]
    found = figures(made, CLASSES, metric=terms, primary="top2")
    assert task.metric == "top2"
    assert found["top2"] == pytest.approx(np.mean((ranks == CLASSES[:, None]).any(-1)))
    assert task.value(found) == found["top2"]


def test_a_figure_per_class_is_no_figure_to_choose_by():
    """F1 without an average is one number per class: the message says how to make it one."""
    with pytest.raises(RecipeError, match='average = "macro"'):
        resolved(model(), ONE_HOT, metric={"class": "F1Score"})
    assert resolved(model(), ONE_HOT, metric={"class": "F1Score", "average": "macro"}).points == 100


LABELS = {"colour": CLASSES, "box": VALUES.repeat(2, 1)}


def in_order(labels):
    """Labels in a tuple instead of by name."""
    return tuple(labels.values())


@pytest.mark.parametrize("form", representatives([dict, in_order], dict))
def test_each_output_has_its_own_task(form):
    """Losses, weights and metrics by output as Keras has them; primary chooses between them."""
    made = two_heads(
        loss={"colour": "sparse_categorical_crossentropy", "box": "mse"},
        loss_weights={"box": 0.5},
        metrics={"colour": ["accuracy"], "box": ["mae"]},
    )
    labels = form(LABELS)
    keras = made.evaluate(X, LABELS, verbose=0, return_dict=True)
    assert figures(made, labels) == {
        "colour.accuracy": pytest.approx(keras["colour_accuracy"], abs=1e-6),
        "box.mae": pytest.approx(keras["box_mae"], rel=1e-5),
    }
    data = data_of(made, X, labels)
    task = resolve_task(made, TaskConfig(primary="box"), data)
    assert (task.metric, task.higher_is_better) == ("box.mae", False)
    x, y = next(iter(task.prepare(data).test.batches(24)))
    assert float(task.loss_function()(y, made(x))) == pytest.approx(keras["loss"], rel=1e-5)


def test_an_output_without_labels_has_no_loss():
    """The other one is trained and measured; no output at all asks for labels."""
    made = two_heads()
    task = resolved(made, {"box": LABELS["box"]})
    assert [output.loss is None for output in task.outputs] == [True, False]
    assert task.metric == "box.mean_absolute_error"
    with pytest.raises(DataError, match='kind = "teacher"'):
        resolve_task(made, TaskConfig(), data_of(made, X))


@pytest.mark.parametrize(
    ("labels", "message"),
    [(CLASSES, "one array of labels"), ({"shape": CLASSES}, "shape"), ((CLASSES,) * 3, "3 parts")],
)
def test_labels_belong_to_outputs(labels, message):
    """Too few, too many and unknown ones are named, with the model's outputs."""
    with pytest.raises(DataError, match=message) as raised:
        resolved(two_heads(), labels)
    assert "colour" in str(raised.value)


def test_class_weights_count_in_training_alone():
    """Training batches carry them, times the weights of samples; the metric's data do not."""
    made, weights = model(), np.linspace(1, 2, 24, dtype="float32")
    data = data_of(made, X, CLASSES, weights)
    prepared = resolve_task(made, TaskConfig(class_weights={"2": 3.0}), data).prepare(data)
    *_, training = next(iter(prepared.train.batches(24)))
    *_, judging = next(iter(prepared.test.batches(24)))
    np.testing.assert_allclose(training, weights * np.where(CLASSES == 2, 3, 1), rtol=1e-6)
    np.testing.assert_allclose(judging, weights)


def test_weights_of_samples_count_where_keras_counts_them():
    """In weighted metrics, not in the others."""
    weights = np.linspace(0, 2, 24, dtype="float32")
    made = model(loss="sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"])
    keras = made.evaluate(X, CLASSES, sample_weight=weights, verbose=0)
    found = figures(made, CLASSES, weights)
    assert list(found) == ["accuracy", "weighted_accuracy"]
    assert list(found.values()) == [pytest.approx(value, abs=1e-6) for value in keras[1:]]


def test_the_teacher_needs_no_labels():
    """The unpruned model agrees with itself in every output, and loses nothing."""
    made = two_heads()
    data = data_of(made, X)
    task = resolve_task(made, TaskConfig(kind="teacher"), data)
    assert (task.metric, task.higher_is_better, task.points) == ("agreement", True, 100.0)
    prepared = task.prepare(data)
    assert keras_figures(made, prepared.test, task) == {"colour.agreement": 1.0, "box.agreement": 1.0}
    x, y = next(iter(prepared.test.batches(24)))
    assert float(task.loss_function()(y, made(x))) == pytest.approx(0, abs=1e-6)


def test_a_single_class_is_no_data_to_train_on():
    """All labels alike: the folder above the class folders was meant, for example."""
    with pytest.raises(EdgepruneError, match="single class"):
        resolved(model(), np.zeros(24, int))


def test_a_compiled_function_that_is_not_first_is_left_out_with_a_warning(tmp_path):
    """Beside a metric of Keras, one of unknown direction does not end a build; a table states its direction."""
    path = tmp_path / "own.py"
    path.write_text("import tensorflow as tf\ndef bias(y, p): return tf.cast(y, tf.float32) - p\n")

    def bias(y, p):
        return y - p

    made = model(1, None, loss="mse", metrics=["mae", bias])
    task = resolve_task(made, TaskConfig(), data_of(made, X, VALUES), None, {"bias": bias})
    assert [metric.name for metric in task.metrics] == ["mae"]
    assert "'bias'" in task.warnings[0]
    stated = resolved(made, VALUES, metric=("mae", {"class": f"{path}:bias", "higher_is_better": False}))
    assert [(metric.name, metric.higher_is_better) for metric in stated.metrics] == [("mae", False), ("bias", False)]


def test_class_weights_belong_to_steps_though_there_are_as_many_as_classes():
    """Class numbers of four steps are not taken for a row of four classes."""
    import tf_keras

    inputs = tf_keras.Input([4], dtype="int32")
    made = tf_keras.Model(inputs, tf_keras.layers.Dense(4, "softmax")(tf_keras.layers.Embedding(9, 3)(inputs)))
    made.compile("sgd", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (24, 4))
    data = data_of(made, rng.integers(0, 9, (24, 4)), labels)
    prepared = resolve_task(made, TaskConfig(class_weights=(1.0, 2.0, 3.0, 4.0)), data).prepare(data)
    _, y, weights = next(iter(prepared.train.batches(24)))
    assert np.array_equal(weights, y.numpy() + 1)
