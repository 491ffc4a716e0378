"""The recipe of a run states its task, so that it holds where the model's compile information is not known."""

import dataclasses
import tomllib

import numpy as np
import pytest

from edgeprune.data import InputSpec, load_data
from edgeprune.models.compiled import Compiled, live_objects
from edgeprune.recipe.config import DataConfig, Recipe, TaskConfig
from edgeprune.recipe.load import parse_recipe
from edgeprune.tasks.resolve import resolve_task
from edgeprune.tasks.stating import stated


def own_error(labels, outputs):
    import tensorflow as tf

    return tf.reduce_mean(tf.abs(tf.cast(labels, outputs.dtype) - outputs), -1)


def two_heads(keras, objects):
    layers = keras.layers
    x = layers.Input([5])
    tag = layers.Dense(4, activation="softmax", name="tag")(x)
    alarm = layers.Dense(1, activation="sigmoid", name="alarm")(x)
    model = keras.Model(x, [tag, alarm])
    model.compile(
        "sgd",
        {"tag": "sparse_categorical_crossentropy", "alarm": keras.losses.BinaryCrossentropy(label_smoothing=0.1)},
        loss_weights={"tag": 1.0, "alarm": 0.25},
        metrics={
            "tag": [keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top2"), "accuracy"],
            "alarm": [keras.metrics.AUC(curve="PR", name="pr")],
        },
        weighted_metrics={"tag": ["accuracy"], "alarm": []},
    )
    return model


def logits_of_two_classes(keras, objects):
    x = keras.layers.Input([5])
    model = keras.Model(x, keras.layers.Dense(1)(x))
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True), ["accuracy", "AUC"])
    return model


def numbers(keras, objects):
    x = keras.layers.Input([5])
    model = keras.Model(x, keras.layers.Dense(2)(x))
    model.compile("sgd", keras.losses.Huber(0.3), weighted_metrics=["mae", keras.metrics.RootMeanSquaredError()])
    return model


def without_metrics(keras, objects):
    x = keras.layers.Input([5])
    model = keras.Model(x, keras.layers.Dense(2)(x))
    model.compile("sgd", "mse")
    return model


def own_loss(keras, objects):
    x = keras.layers.Input([5])
    model = keras.Model(x, keras.layers.Dense(2)(x))
    model.compile("sgd", own_error, ["mse"])
    objects["own_error"] = own_error
    return model


def never_compiled(keras, objects):
    x = keras.layers.Input([5])
    return keras.Model(x, keras.layers.Dense(4, activation="softmax")(x))


def labels_for(model, rng):
    labels = {
        (4,): rng.integers(0, 4, 200),
        (1,): rng.integers(0, 2, 200),
        (2,): rng.normal(size=(200, 2)).astype(np.float32),
    }
    given = [labels[tuple(tensor.shape[1:])] for tensor in model.outputs]
    return given[0] if len(given) == 1 else dict(zip(model.output_names, given, strict=True))


CASES = [two_heads, logits_of_two_classes, numbers, without_metrics, own_loss, never_compiled]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_a_stated_task_gives_the_same_figures(make):
    """Of a model without compile information, the stated recipe, written and read, gives the figures of the original,
    and states itself."""
    import tf_keras

    objects = {}
    model, rng = make(tf_keras, objects), np.random.default_rng(0)
    x = rng.normal(size=(200, 5)).astype(np.float32)
    weights = rng.random(200).astype(np.float32)
    data = load_data((x, labels_for(model, rng), weights), DataConfig(), InputSpec.of(model))
    task = resolve_task(model, TaskConfig(), data, None, objects)
    recipe = Recipe(name="r", task=stated(task, TaskConfig()))
    again = parse_recipe(tomllib.loads(recipe.to_toml()), "again")
    compiled = dataclasses.replace(Compiled.of_model(model), outputs=None)
    same = resolve_task(model, again.task, data, compiled)
    assert figures(model, same, data) == figures(model, task, data)
    assert (same.name, same.higher_is_better, same.points) == (task.name, task.higher_is_better, task.points)
    assert [(o.name, o.kind, o.weight, o.classes, o.is_logits) for o in same.outputs] == [
        (o.name, o.kind, o.weight, o.classes, o.is_logits) for o in task.outputs
    ]
    assert stated(same, again.task).model_dump(mode="json") == recipe.task.model_dump(mode="json")


def figures(model, task, data):
    from edgeprune.evaluate.accuracy import keras_figures

    prepared = task.prepare(data)
    return keras_figures(model, prepared.test, task)


def test_arguments_are_stated():
    """A metric object stands in the recipe with its class, its name and the arguments that make it what it is."""
    import tf_keras

    model, rng = two_heads(tf_keras, {}), np.random.default_rng(0)
    data = load_data(
        (rng.normal(size=(200, 5)).astype(np.float32), labels_for(model, rng)), DataConfig(), InputSpec.of(model)
    )
    config = stated(resolve_task(model, TaskConfig(), data), TaskConfig())
    top, _, weighted = config.outputs["tag"].metric
    assert (top["class"], top["k"], top["name"]) == ("SparseTopKCategoricalAccuracy", 2, "top2")
    assert weighted == {"class": "accuracy", "name": "accuracy", "weighted": True}
    assert config.outputs["alarm"].metric["curve"] == "PR"
    assert config.outputs["alarm"].loss["label_smoothing"] == 0.1
    assert config.primary == "tag.top2"


def test_a_teacher_needs_nothing_stated():
    """What is trained against the unpruned model stays as the recipe has it."""
    import tf_keras

    model = never_compiled(tf_keras, {})
    data = load_data(np.zeros((200, 5), np.float32), DataConfig(), InputSpec.of(model))
    config = TaskConfig(kind="teacher")
    assert stated(resolve_task(model, config, data), config) == config


def test_code_of_the_users_is_kept_as_written(tmp_path, monkeypatch):
    """A function or class of a file stands in the stated task as the recipe names it; one of a model's compile
    information by the file that it came from, and both give the same figures when they are read again."""
    import tf_keras

    from edgeprune.code import import_file
    from edgeprune.errors import RecipeError

    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "import tensorflow as tf, tf_keras\n"
        "def gap(labels, outputs):\n    return tf.reduce_max(tf.abs(labels - outputs), -1)\n"
        "class Scaled(tf_keras.losses.Loss):\n"
        "    def __init__(self, factor=1.0, **rest):\n        super().__init__(**rest)\n        self.factor = factor\n"
        "    def call(self, labels, outputs):\n"
        "        return self.factor * tf.reduce_mean((labels - outputs) ** 2, -1)\n"
        "    def get_config(self):\n        return {**super().get_config(), 'factor': self.factor}\n"
    )
    objects = vars(import_file(tmp_path / "own.py", "own.py", RecipeError))
    own = {name: objects[name] for name in ("gap", "Scaled")}
    entry = tf_keras.layers.Input([5])
    model = tf_keras.Model(entry, tf_keras.layers.Dense(2)(entry))
    model.compile("sgd", own["Scaled"](3.0), metrics=[own["gap"]])
    rng = np.random.default_rng(0)
    data = load_data(
        (rng.normal(size=(200, 5)).astype(np.float32), rng.normal(size=(200, 2)).astype(np.float32)),
        DataConfig(), InputSpec.of(model),
    )  # fmt: skip
    config = TaskConfig(higher_is_better=False)
    task = resolve_task(model, config, data, None, live_objects(model))
    found = stated(task, config)
    assert found.metric == "own.py:gap"
    assert (found.loss["class"], found.loss["factor"]) == ("own.py:Scaled", 3.0)
    again = parse_recipe(tomllib.loads(Recipe(name="r", task=found).to_toml()), "again").task
    same = resolve_task(model, again, data, dataclasses.replace(Compiled.of_model(model), outputs=None))
    assert figures(model, same, data) == figures(model, task, data)
    labels, outputs = np.ones((4, 2), np.float32), np.zeros((4, 2), np.float32)
    assert float(same.loss_function()(labels, outputs)) == float(task.loss_function()(labels, outputs)) == 3.0
    written = TaskConfig(metric="own.py:gap", loss="own.py:Scaled", higher_is_better=False)
    kept = stated(resolve_task(model, written, data), written)
    assert (kept.metric, kept.loss) == ("own.py:gap", "own.py:Scaled")
