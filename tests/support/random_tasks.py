"""Random tasks: small models of both Kerases, compiled and with labels in the ways that Keras takes them."""

from __future__ import annotations

import dataclasses
import re
import types
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

CLASS = re.compile(r"losses\.\w+")
SAMPLES = 44  # more than one of Keras' batches


# labels -> losses over probabilities; {logits} stands for from_logits=True where outputs are logits.
SPARSE_LOSSES = (
    '"sparse_categorical_crossentropy"',
    "losses.SparseCategoricalCrossentropy({logits})",
    "losses.SparseCategoricalCrossentropy({logits}, ignore_class=0)",
    "losses.SparseCategoricalCrossentropy",  # the class
    "own.sparse_loss",
)
ROWS_LOSSES = (
    '"categorical_crossentropy"',
    "losses.CategoricalCrossentropy({logits}, label_smoothing=0.1)",
    "losses.CategoricalFocalCrossentropy({logits}, alpha=0.3)",
    '"categorical_hinge"',
    '"kld"',
    "losses.KLDivergence()",
    '"MSE"',
    '"binary_crossentropy"',
    "own.loss",
    "own_of(losses.Loss)",
)
SPARSE_METRICS = (
    '"accuracy"',
    '"acc"',
    '"sparse_categorical_accuracy"',
    'metrics.SparseCategoricalAccuracy(name="right")',
    'metrics.SparseTopKCategoricalAccuracy(k=2, name="top2")',
    "metrics.MeanIoU(num_classes=width, sparse_y_pred=False)",
    'metrics.IoU(num_classes=width, target_class_ids=[1], sparse_y_pred=False, name="of_one")',
    "metrics.SparseCategoricalCrossentropy({logits})",
    '"sparse_categorical_crossentropy"',
    '"crossentropy"',
    "own.sparse_hits",
)
ROWS_METRICS = (
    '"accuracy"',
    '"categorical_accuracy"',
    '"AUC"',
    'metrics.AUC(curve="PR", name="area")',
    "metrics.AUC(multi_label=True, num_thresholds=50)",
    "metrics.Precision(thresholds=0.3)",
    "metrics.Recall(class_id=1)",
    "metrics.Precision(top_k=1)",
    "metrics.TopKCategoricalAccuracy(k=2)",
    '"top_k_categorical_accuracy"',
    'metrics.F1Score(average="macro")',
    'metrics.F1Score(average="micro", threshold=0.4, name="f1")',
    "metrics.FBetaScore(average='weighted', beta=0.5)",
    "metrics.OneHotMeanIoU(num_classes=width)",
    "metrics.OneHotIoU(num_classes=width, target_class_ids=[0, 1])",
    '"mse"',
    '"MAE"',
    '"kl_divergence"',
    "metrics.CategoricalCrossentropy({logits}, label_smoothing=0.1)",
    "metrics.CategoricalHinge()",
    '"cosine_similarity"',
    "metrics.SensitivityAtSpecificity(0.5)",
    "metrics.TruePositives()",
    "own.error",
    "own.batch_error",
)
BINARY_LOSSES = (
    '"binary_crossentropy"',
    '"bce"',
    "losses.BinaryCrossentropy({logits}, label_smoothing=0.1)",
    "losses.BinaryFocalCrossentropy({logits}, apply_class_balancing=True)",
    '"mse"',
    '"hinge"',
    "losses.Dice()",
    "losses.Tversky(alpha=0.3)",
    "own.loss",
)
BINARY_METRICS = (
    '"accuracy"',
    '"acc"',
    '"binary_accuracy"',
    "metrics.BinaryAccuracy(threshold=0.4)",
    '"crossentropy"',
    '"AUC"',
    'metrics.AUC(from_logits=True, name="area")',
    "metrics.Precision()",
    "metrics.Recall(thresholds=0.3)",
    "metrics.BinaryIoU(target_class_ids=[1], threshold=0.4)",
    "metrics.F1Score(average='micro', threshold=0.5)",
    "metrics.BinaryCrossentropy({logits})",
    "metrics.FalsePositives()",
    "metrics.TrueNegatives(thresholds=0.6)",
    "metrics.PrecisionAtRecall(0.5)",
    "metrics.RecallAtPrecision(0.5)",
    "metrics.SpecificityAtSensitivity(0.5)",
    '"Precision"',
    '"mae"',
    "own.error",
    "own.batch_error",
)
VALUES_LOSSES = (
    '"mse"',
    '"MAE"',
    '"mean_squared_error"',
    "losses.Huber(delta=0.5)",
    '"huber"',
    '"log_cosh"',
    "losses.MeanSquaredLogarithmicError()",
    '"mape"',
    '"cosine_similarity"',
    "losses.CosineSimilarity(axis=-1)",
    "losses.MeanAbsoluteError",
    "own.loss",
    "own_of(losses.Loss)",
)
VALUES_METRICS = (
    '"mae"',
    '"MAE"',
    '"mse"',
    '"RootMeanSquaredError"',
    'metrics.RootMeanSquaredError(name="rmse")',
    "metrics.MeanAbsolutePercentageError()",
    '"msle"',
    "metrics.R2Score()",
    "metrics.CosineSimilarity(axis=-1)",
    '"cosine_similarity"',
    "metrics.LogCoshError()",
    "losses.Huber(delta=0.3)",
    "losses.MeanSquaredError()",
    "metrics.PearsonCorrelation()",
    "metrics.MeanMetricWrapper(own.error, name='own')",
    "own.error",
    "own.batch_error",
)
NUMBERS = ("int (n,)", "int (n, 1)", "float (n,)", "float (n, 1)", "uint8 (n,)")
ROWS = ("float rows", "int rows", "bool rows")
# (losses, metrics, labels) by what an output is.
FAMILIES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "class numbers": (SPARSE_LOSSES, SPARSE_METRICS, NUMBERS),
    "one-hot": (ROWS_LOSSES, ROWS_METRICS, (*ROWS, "distributions")),
    "several": (BINARY_LOSSES, (*BINARY_METRICS, "metrics.F1Score(average='macro', threshold=0.5)"), ROWS),
    "binary": (BINARY_LOSSES, BINARY_METRICS, (*NUMBERS, "bool (n,)")),
    "values": (VALUES_LOSSES, VALUES_METRICS, ("floats", "floats without axis", "doubles", "whole")),
}
ENDS: dict[str, tuple[str, ...]] = {
    "softmax": (
        'layers.Dense(width, activation="softmax", name=name)(h)',
        "layers.Softmax(name=name)(layers.Dense(width)(h))",
        'layers.Activation("softmax", name=name)(layers.Dense(width)(h))',
        'layers.Reshape(shape, name=name)(layers.Dense(width, activation="softmax")(h))',
    ),
    "sigmoid": (
        'layers.Dense(width, activation="sigmoid", name=name)(h)',
        'layers.Activation("sigmoid", name=name)(layers.Dense(width)(h))',
    ),
    "linear": ("layers.Dense(width, name=name)(h)", 'layers.Activation("linear", name=name)(layers.Dense(width)(h))'),
    "relu": ('layers.Dense(width, activation="relu", name=name)(h)',),
}
KINDS = (
    ("class numbers", "softmax"), ("class numbers", "linear"), ("class numbers", "sigmoid"), ("one-hot", "softmax"),
    ("one-hot", "linear"), ("one-hot", "sigmoid"), ("several", "sigmoid"), ("several", "linear"),
    ("binary", "sigmoid"), ("binary", "linear"), ("values", "linear"), ("values", "relu"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Head:
    """One output: what its trunk gives, how it ends, and how it was compiled.

    Attributes:
        place: "features", "steps" or "image": one answer per sample, step or pixel.
        end: code of the layers from ``h`` on.
        activation: how it ends, in a word.
        width: of the last axis.
        family: which labels it has; of :data:`FAMILIES`.
        labels: their form.
        loss: code, or None.
        metrics, weighted_metrics: code.
    """

    place: str
    end: str
    activation: str
    width: int
    family: str
    labels: str
    loss: str | None
    metrics: tuple[str, ...]
    weighted_metrics: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (*{"features": (), "steps": (4,), "image": (6, 6)}[self.place], self.width)


@dataclasses.dataclass(frozen=True)
class RandomTask:
    """A model, how it was compiled, its labels and how it is handed over.

    Attributes:
        keras: 2 or 3.
        heads: one per output.
        compiled: in which structure: "one for all" (where all heads have the same), "list", "dict".
        outputs: in which structure: "list" or "dict".
        y: "tuple", "list" or "dict".
        weights: of samples: "none", "shared" or "own".
        padded: whether inputs are numbers of words, with padding that does not count.
        saved: "memory", ".keras", ".h5" or "folder".
        seed: of weights and data.
    """

    keras: int
    heads: tuple[Head, ...]
    compiled: str
    outputs: str
    y: str
    weights: str
    padded: bool
    saved: str
    seed: int

    @property
    def names(self) -> list[str]:
        """Of the outputs, in the order of the model, as its user knows them."""
        return [f"key{i}" if self.outputs == "dict" else f"head{i}" for i in range(len(self.heads))]


# What Keras takes only sometimes: Keras 3, Keras 2, one row per sample.
ONLY_KERAS_3 = ("Dice", "Tversky", "Pearson", "Concordance", "Crossentropy$", "Error$")
ONLY_KERAS_2 = ('"crossentropy"',)
ONLY_ROWS = ("F1Score", "FBetaScore", "R2Score", "TopK", "top_k", "AUC(multi")


def _takes(text: str, keras: int, place: str, activation: str, width: int) -> bool:
    refused = [*(ONLY_KERAS_3 if keras == 2 else ONLY_KERAS_2), *(ONLY_ROWS if place != "features" else ())]
    # Over several sigmoids, Keras computes these from the values before them, which a .tflite does not give.
    if activation == "sigmoid":
        refused += ["CategoricalCrossentropy", "categorical_crossentropy", *(['"crossentropy"'] if width > 1 else ())]
    return not any(name in f"{text}$" for name in refused)


@st.composite
def heads(draw: st.DrawFn, place: str, keras: int) -> Head:
    family, activation = draw(st.sampled_from(KINDS))
    place_of = draw(st.sampled_from(["features", place, place]))
    if family == "binary":
        width = 1
    elif family == "values":
        width = draw(st.integers(1, 3))
    else:
        width = draw(st.integers(2, 4))
    losses, metrics, labels = FAMILIES[family]
    losses, metrics = (
        [text for text in texts if _takes(text, keras, place_of, activation, width)] for texts in (losses, metrics)
    )
    both = draw(st.lists(st.sampled_from(metrics), max_size=5, unique=True))
    plain = draw(st.integers(0, 5))
    return Head(
        place_of,
        draw(st.sampled_from(ENDS[activation])),
        activation,
        width,
        family,
        draw(st.sampled_from(labels)),
        draw(st.sampled_from(losses)),
        tuple(both[:plain]),
        tuple(both[plain:]),
    )


@st.composite
def tasks(draw: st.DrawFn) -> RandomTask:
    """Tasks that Keras can evaluate, or nearly: some combinations are refused by Keras itself."""
    keras = draw(st.sampled_from([2, 3]))
    place = draw(st.sampled_from(["features", "features", "steps", "image"]))
    count = draw(st.sampled_from([1, 1, 1, 2, 2, 3]))
    several = [draw(heads(place, keras)) for _ in range(count)]
    compiled = draw(st.sampled_from(["list", "dict", "one for all"]))
    outputs = draw(st.sampled_from(["list", "list", "dict"])) if count > 1 else "list"
    y = "array" if count == 1 else draw(st.sampled_from(["dict"] if outputs == "dict" else ["tuple", "list", "dict"]))
    if compiled == "one for all":
        several = [several[0]] * count
    elif count > 1 and (keras == 2 or compiled == "list") and draw(st.integers(0, 3)) == 0:
        without = draw(st.integers(0, count - 1))
        several[without] = dataclasses.replace(several[without], loss=None, metrics=(), weighted_metrics=())
    ways = ["memory", ".keras", ".h5", *(["folder"] if keras == 2 else [])]
    if keras == 3 and ("delta=" in repr(several) or any(CLASS.fullmatch(str(head.loss)) for head in several)):
        ways = ["memory"]  # Keras 3 saves neither classes nor this argument
    return RandomTask(
        keras,
        tuple(several),
        compiled,
        outputs,
        y,
        draw(st.sampled_from(["none", "none", "shared", "own"])),
        place == "steps" and not any("Softmax" in head.end for head in several) and draw(st.booleans()),
        draw(st.sampled_from(ways)),
        draw(st.integers(0, 2**16)),
    )


# The user's own functions and classes.


def _own() -> types.SimpleNamespace:
    import tensorflow as tf

    def loss(labels, outputs):
        return tf.reduce_mean(tf.abs(tf.cast(labels, outputs.dtype) - outputs), -1)

    def sparse_loss(labels, outputs):
        numbers = tf.cast(tf.reshape(labels, tf.shape(outputs)[:-1]), tf.int32)
        return tf.reduce_mean(tf.square(tf.one_hot(numbers, outputs.shape[-1]) - outputs), -1)

    def error(labels, outputs):
        return tf.reduce_mean(tf.square(tf.cast(labels, outputs.dtype) - outputs), -1)

    def batch_error(labels, outputs):
        return tf.sqrt(tf.reduce_mean(tf.square(tf.cast(labels, outputs.dtype) - outputs)))

    def sparse_hits(labels, outputs):
        numbers = tf.cast(tf.reshape(labels, tf.shape(outputs)[:-1]), tf.int64)
        return tf.cast(numbers == tf.argmax(outputs, -1), tf.float32)

    return types.SimpleNamespace(**{key: value for key, value in locals().items() if key != "tf"})


def _own_of(base: type) -> Any:
    import tensorflow as tf

    class OwnLoss(base):
        def __init__(self, power: float = 2.0, name: str = "own_loss", **rest: Any):
            super().__init__(name=name, **rest)
            self.power = power

        def call(self, labels, outputs):
            return tf.reduce_mean(tf.abs(tf.cast(labels, outputs.dtype) - outputs) ** self.power, -1)

        def get_config(self):
            return {**super().get_config(), "power": self.power}

    return OwnLoss


class Made:
    """What a random task stands for: a compiled model of its Keras, inputs, labels and weights."""

    def __init__(self, task: RandomTask):
        import keras
        import tf_keras

        self.task = task
        self.keras = tf_keras if task.keras == 2 else keras
        self.keras.utils.set_random_seed(task.seed)
        self.random = np.random.default_rng(task.seed)
        self.own, self.own_loss = _own(), _own_of(self.keras.losses.Loss)
        self.objects = {**vars(self.own), "OwnLoss": self.own_loss}
        self.x, inputs, trunks = self._trunks()
        made = [self._head(head, trunks[head.place], f"head{i}") for i, head in enumerate(task.heads)]
        names = task.names
        outputs = made[0] if len(made) == 1 else made
        self.model = self.keras.Model(
            inputs, dict(zip(names, made, strict=True)) if task.outputs == "dict" else outputs
        )
        self.labels = [self._labels(head) for head in task.heads]
        self.y = self._structured(self.labels, task.y)
        shared = self.random.uniform(0.2, 2.0, SAMPLES).astype(np.float32)
        self.w: Any = None
        if task.weights == "shared":
            self.w = shared
        elif task.weights == "own":
            each = [self.random.uniform(0.2, 2.0, SAMPLES).astype(np.float32) for _ in task.heads]
            self.w = self._structured(each, task.y)

    def _structured(self, values: list[Any], structure: str) -> Any:
        if structure == "array":
            return values[0]
        return (
            dict(zip(self.task.names, values, strict=True))
            if structure == "dict"
            else {"list": list, "tuple": tuple}[structure](values)
        )

    def _trunks(self) -> Any:
        layers = self.keras.layers
        places = {head.place for head in self.task.heads}
        if self.task.padded:
            x = self.random.integers(1, 9, [SAMPLES, 4])
            for row, length in zip(x, self.random.integers(1, 5, SAMPLES), strict=True):
                row[length:] = 0
            inputs = layers.Input([4], dtype="int32")
            steps = layers.Embedding(9, 8, mask_zero=True, embeddings_initializer="normal")(inputs)
            return (
                x.astype(np.int32),
                inputs,
                {"steps": steps, "features": layers.LSTM(8)(steps) if "features" in places else None},
            )
        if "image" in places:
            inputs = layers.Input([6, 6, 2])
            image = layers.Conv2D(4, 3, padding="same", activation="tanh", kernel_initializer="random_normal")(inputs)
            return (
                self._normal(6, 6, 2),
                inputs,
                {"image": image, "features": layers.GlobalMaxPooling2D()(image) if "features" in places else None},
            )
        if "steps" in places:
            inputs = layers.Input([4, 3])
            steps = layers.Conv1D(8, 3, padding="same", activation="tanh")(inputs)
            return (
                self._normal(4, 3),
                inputs,
                {"steps": steps, "features": layers.Flatten()(steps) if "features" in places else None},
            )
        inputs = layers.Input([5])
        return self._normal(5), inputs, {"features": layers.Dense(8, activation="tanh")(inputs)}

    def _normal(self, *shape: int) -> np.ndarray:
        return self.random.normal(size=[SAMPLES, *shape]).astype(np.float32)

    def _head(self, head: Head, h: Any, name: str) -> Any:
        scope = {"layers": self.keras.layers, "h": h, "width": head.width, "name": name, "shape": head.shape}
        return eval(head.end, scope)

    def _labels(self, head: Head) -> np.ndarray:
        width, form, random = head.width, head.labels, self.random
        places = (SAMPLES, *head.shape[:-1])
        if head.family == "values":
            if form == "whole":
                return random.integers(0, 5, [*places, width]).astype(np.float32)
            values = random.uniform(0.1, 3.0, [*places, width])
            if form == "floats without axis" and width == 1:
                values = values[..., 0]
            return values.astype(np.float64 if form == "doubles" else np.float32)
        if form in NUMBERS or form == "bool (n,)":
            numbers = random.integers(0, max(width, 2), places)
            numbers.flat[: max(width, 2)] = range(max(width, 2))
            dtype, _, shape = form.partition(" ")
            return (numbers[..., None] if shape == "(n, 1)" else numbers).astype(
                {"int": "int64", "float": "float32"}.get(dtype, dtype)
            )
        if form == "distributions":
            return random.dirichlet(np.ones(width), places).astype(np.float32)
        if head.family == "several":
            rows = random.integers(0, 2, [*places, width])
        else:
            rows = np.eye(width)[random.integers(0, width, places)]
        return rows.astype({"float": "float32", "int": "int64"}.get(form.split()[0], "bool"))

    def code(self, text: str | None, head: Head) -> Any:
        """The loss or metric of a text."""
        if text is None:
            return None
        logits = f"from_logits={head.activation == 'linear'}"
        scope = {
            "losses": self.keras.losses,
            "metrics": self.keras.metrics,
            "own": self.own,
            "own_of": lambda base: self.own_loss(1.5),
            "width": head.width,
        }
        return eval(text.replace("{logits}", logits), scope)

    def compile(self, *, eager: bool = True) -> None:
        """Compile the model; raises whatever Keras raises if it does not take that."""
        task = self.task
        arguments: dict[str, Any] = {}
        for key in ("loss", "metrics", "weighted_metrics"):
            if key == "loss":
                made = [self.code(head.loss, head) for head in task.heads]
            else:
                made = [[self.code(text, head) for text in getattr(head, key)] for head in task.heads]
            if task.compiled == "one for all" or len(made) == 1:
                value = made[0]
            elif task.compiled == "dict":
                value = {name: one for name, one in zip(task.names, made, strict=True) if one or key != "loss"}
            else:
                value = made
            arguments[key] = value
        self.model.compile(optimizer="sgd", run_eagerly=eager, **arguments)

    def evaluated(self) -> dict[str, float]:
        """What Keras itself says, by the name of the metric; of several outputs "output.metric"."""

        y = list(self.y) if isinstance(self.y, tuple) else self.y
        w = list(self.w) if isinstance(self.w, tuple) else self.w
        found = self.model.evaluate(self.x, y, sample_weight=w, return_dict=True, verbose=0)
        if len(self.task.heads) == 1:
            return found
        result = {}
        for i, own in enumerate(self.task.names):
            start = f"head{i}_" if self.task.keras == 2 else f"{own}_"  # Keras 2 knows the layers alone
            result |= {f"{own}.{name.removeprefix(start)}": v for name, v in found.items() if name.startswith(start)}
        return result

    def source(self, folder: Path) -> Any:
        """What is handed to edgeprune."""
        if self.task.saved == "memory":
            return self.model
        path = folder / f"model{self.task.saved if self.task.saved != 'folder' else ''}"
        self.model.save(path)
        return path

    def config(self) -> dict[str, Any]:
        """[task] of a recipe: the direction of the user's own metrics, where they come first."""
        directions = {}
        for name, head in zip(self.task.names, self.task.heads, strict=True):
            first = next(iter((*head.metrics, *head.weighted_metrics)), "")
            if "own." in first:
                directions[name] = {"higher_is_better": "hits" in first}
        if len(self.task.heads) == 1:
            return next(iter(directions.values()), {})
        return {"outputs": directions}

    def data(self) -> dict[str, tuple[Any, ...]]:
        part = (self.x, self.y) if self.w is None else (self.x, self.y, self.w)
        return {"train": part, "validation": part, "test": part}

    def ideal(self, index: int, outputs: np.ndarray) -> list[np.ndarray]:
        """Outputs that fit the labels as well as can be: as probabilities or values, and as logits."""
        head, labels = self.task.heads[index], self.labels[index]
        if head.family == "class numbers":
            labels = np.eye(head.width)[labels.reshape(outputs.shape[:-1]).astype(int)]
        values = np.reshape(labels, outputs.shape).astype(np.float32)
        if head.family == "values":
            return [values]
        near = values * 0.998 + 0.001
        return [near, 8 * values - 4] if head.activation == "linear" else [near]


@dataclasses.dataclass(frozen=True)
class Uncompiled:
    """An output without a loss, and its labels."""

    activation: str
    end: str
    place: str
    width: int
    labels: str
    seed: int


# Labels of any kind, whether they fit or not: code with the generator, the output's shape and width.
ANY_LABELS = (
    "random.integers(0, max(width, 2), shape[:-1])",
    "random.integers(0, max(width, 2), (*shape[:-1], 1))",
    "random.integers(0, max(width, 2), shape[:-1]).astype('float32')",
    "random.integers(1, max(width, 2) + 1, shape[:-1])",
    "random.integers(-1, max(width, 2), shape[:-1])",
    "random.integers(0, 9, shape[:-1])",
    "np.eye(width)[random.integers(0, width, shape[:-1])]",
    "np.eye(width, dtype='uint8')[random.integers(0, width, shape[:-1])]",
    "np.eye(width, dtype=bool)[random.integers(0, width, shape[:-1])]",
    "random.integers(0, 2, shape)",
    "random.integers(0, 2, shape).astype('float32')",
    "random.integers(0, 2, shape) * 2 - 1",
    "random.dirichlet(np.ones(width), shape[:-1])",
    "random.uniform(0, 1, shape)",
    "random.uniform(0, 1, shape[:-1])",
    "random.normal(size=shape).astype('float32')",
    "random.normal(size=shape[:-1])",
    "random.normal(size=(*shape[:-1], 1))",
    "random.integers(0, 50, shape).astype('float32')",
    "random.normal(size=(*shape[:-1], width + 1))",
)


@st.composite
def uncompiled(draw: st.DrawFn) -> Uncompiled:
    """Outputs × labels, whether they fit or not."""
    activation = draw(st.sampled_from(list(ENDS)))
    place = draw(st.sampled_from(["features", "features", "steps", "image"]))
    labels = draw(st.sampled_from(ANY_LABELS))
    # Rows of one value that sum to one are all the same.
    several = activation == "softmax" or "np.eye" in labels or "dirichlet" in labels
    width = draw(st.integers(2 if several else 1, 4))
    end = draw(st.sampled_from(ENDS[activation]))
    return Uncompiled(activation, end, place, width, labels, draw(st.integers(0, 99)))


def model_of(random: Uncompiled) -> tuple[Any, np.ndarray, np.ndarray]:
    """(tf_keras model, x, y)."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(random.seed)
    generator = np.random.default_rng(random.seed)
    places = {"features": (5,), "steps": (4, 3), "image": (4, 4, 2)}[random.place]
    shape = (SAMPLES, *places[:-1], random.width)
    inputs = layers.Input(places)
    h = layers.Dense(8, activation="tanh")(inputs)
    scope = {"layers": layers, "h": h, "width": random.width, "name": "out", "shape": shape[1:]}
    model = tf_keras.Model(inputs, eval(random.end, scope))
    y = eval(random.labels, {"random": generator, "np": np, "shape": shape, "width": random.width})
    return model, generator.normal(size=(SAMPLES, *places)).astype(np.float32), y
