"""Random models: small ones of both Kerases, with odd names, types, layers and weights, and samples for them.

A number decides everything about a model, so that each can be made again. What Keras itself refuses to build is drawn
anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

SAMPLES = 16
ATTEMPTS = 40
# The endings of what each Keras writes; none: a SavedModel folder.
FORMATS = {"tf_keras": (".keras", ".h5", ""), "keras": (".keras", ".h5")}
OWN = Path(__file__).with_name("random_models_own.py")

# Layers by the rank of what they take, with ranges of arguments; a list is a choice. Classes that a Keras does not
# have, and arguments that do not go together, are drawn anew.
_ANY_RANK: dict[str, dict[str, list[Any]]] = {
    "BatchNormalization": {"scale": [True, False], "center": [True, False], "epsilon": [1e-3, 1e-5]},
    "LayerNormalization": {"scale": [True, False], "center": [True, False]},
    "UnitNormalization": {},
    "GroupNormalization": {"groups": [1, 2, -1]},
    "Dropout": {"rate": [0, 0.5, 0.1]},
    "GaussianNoise": {"stddev": [0.1]},
    "GaussianDropout": {"rate": [0.2]},
    "AlphaDropout": {"rate": [0.2]},
    "ActivityRegularization": {"l1": [0.01]},
    "Rescaling": {"scale": [1 / 255, 2.0], "offset": [0.0, -1.0]},
    "Dense": {"units": [1, 3, 8], "activation": [None, "relu", "gelu", "swish", "hard_sigmoid"]},
    "LeakyReLU": {},
    "PReLU": {},
    "ELU": {"alpha": [0.5, 1.0]},
    "ThresholdedReLU": {"theta": [0.5]},
    "ReLU": {"max_value": [None, 6.0, 1.0], "negative_slope": [0.0, 0.1], "threshold": [0.0, 0.2]},
    "Softmax": {"axis": [-1, 1]},
}
_BY_RANK: dict[int, dict[str, dict[str, list[Any]]]] = {
    2: {"RepeatVector": {"n": [3, 1]}, "SpectralNormalization": {}},
    3: {
        "Conv1D": {
            "filters": [1, 4, 6],
            "kernel_size": [1, 3],
            "padding": ["same", "valid", "causal"],
            "dilation_rate": [1, 2],
            "groups": [1, 2],
        },
        "SeparableConv1D": {"filters": [3, 5], "kernel_size": [3], "padding": ["same", "valid"]},
        "DepthwiseConv1D": {"kernel_size": [3], "padding": ["same", "valid"], "depth_multiplier": [1, 2]},
        "Conv1DTranspose": {"filters": [4], "kernel_size": [3], "strides": [1, 2], "padding": ["same", "valid"]},
        "MaxPooling1D": {"pool_size": [2, 3], "padding": ["same", "valid"]},
        "AveragePooling1D": {"pool_size": [2], "padding": ["same", "valid"]},
        "ZeroPadding1D": {"padding": [1, (0, 2)]},
        "Cropping1D": {"cropping": [1, (1, 0)]},
        "UpSampling1D": {"size": [2]},
        "SpatialDropout1D": {"rate": [0.2]},
        "Permute": {"dims": [(2, 1)]},
        "Masking": {"mask_value": [0.0, 1.0]},
        "LSTM": {"units": [4], "return_sequences": [True, False], "activation": ["tanh", "relu"], "stateful": [False]},
        "GRU": {"units": [3], "return_sequences": [True, False], "reset_after": [True, False]},
        "SimpleRNN": {"units": [4], "return_sequences": [True, False], "go_backwards": [False, True]},
        "EinsumDense": {"equation": ["abc,cd->abd"], "output_shape": [(None, 5)], "bias_axes": [None, "d"]},
    },
    4: {
        "Conv2D": {
            "filters": [1, 4, 6],
            "kernel_size": [1, 3, (1, 3)],
            "strides": [1, 1, 2],
            "padding": ["same", "valid"],
            "dilation_rate": [1, 1, 2],
            "groups": [1, 1, 2],
            "use_bias": [True, False],
            "activation": [None, "relu", "elu", "selu", "tanh", "softplus", "softsign", "exponential"],
        },
        "SeparableConv2D": {"filters": [5], "kernel_size": [3], "padding": ["same"], "depth_multiplier": [1, 2]},
        "DepthwiseConv2D": {"kernel_size": [3], "padding": ["same", "valid"], "depth_multiplier": [1, 2]},
        "Conv2DTranspose": {"filters": [4], "kernel_size": [2, 3], "strides": [1, 2], "padding": ["same", "valid"]},
        "MaxPooling2D": {"pool_size": [2, (1, 2)], "padding": ["same", "valid"]},
        "AveragePooling2D": {"pool_size": [2, 3], "padding": ["same", "valid"]},
        "ZeroPadding2D": {"padding": [1, ((1, 0), (0, 2))]},
        "Cropping2D": {"cropping": [1, ((1, 0), (0, 1))]},
        "UpSampling2D": {"size": [2, (1, 2)], "interpolation": ["nearest", "bilinear"]},
        "SpatialDropout2D": {"rate": [0.2]},
        "Permute": {"dims": [(2, 1, 3), (3, 1, 2)]},
        "Resizing": {"height": [6], "width": [9], "interpolation": ["bilinear", "nearest"]},
        "CenterCrop": {"height": [4], "width": [5]},
        "RandomFlip": {"mode": ["horizontal"]},
        "RandomRotation": {"factor": [0.1]},
        "RandomContrast": {"factor": [0.2]},
    },
    5: {
        "Conv3D": {"filters": [3], "kernel_size": [1, 2], "padding": ["same", "valid"]},
        "Conv3DTranspose": {"filters": [2], "kernel_size": [2], "padding": ["same"]},
        "ConvLSTM2D": {"filters": [2], "kernel_size": [2], "return_sequences": [True, False], "padding": ["same"]},
        "MaxPooling3D": {"pool_size": [2]},
        "AveragePooling3D": {"pool_size": [2]},
        "ZeroPadding3D": {"padding": [1]},
        "UpSampling3D": {"size": [2]},
        "SpatialDropout3D": {"rate": [0.2]},
    },
}
_GLOBAL = {rank: (f"GlobalAveragePooling{rank - 2}D", f"GlobalMaxPooling{rank - 2}D") for rank in (3, 4, 5)}
_ACTIVATIONS = (
    *("relu", "relu6", "sigmoid", "tanh", "softmax", "softplus", "softsign", "elu", "selu", "gelu", "swish", "silu"),
    *("mish", "hard_sigmoid", "hard_silu", "exponential", "linear", "celu", "glu", "log_softmax", "squareplus"),
    *("leaky_relu", "tanh_shrink", "hard_tanh", "sparse_plus", "threshold", "soft_shrink", "log_sigmoid"),
)
_NAMES = (
    *("in", "class", "self", "lambda", "None", "True", "name", "inputs", "training", "mask", "input", "output", "x"),
    *(
        "größe",
        "Ä ö",
        "two words",
        "a.b",
        "a-b",
        "1st",
        "a b/c",
        "x/y",
        "a:b",
        "a=b",
        "a,b",
        "[red]",
        "{0}",
        "%s",
        "日",
    ),
    *("serving_default", "y", "w", "file", "CON", "a" * 60, "dense", "__init__", "b'x'", "layer[0]", "../up", "a\\b"),
)
_OPTIMIZERS = ("adam", "sgd", "rmsprop", "adamw", "legacy", "lion", "loss_scale", "schedule")


@dataclasses.dataclass
class RandomModel:
    """A model, and what goes with it.

    Attributes:
        number: makes it again.
        kind: the package it is of, "tf_keras" or "keras".
        traits: words that say what is special about it.
        inputs: samples by input, in the order of the inputs.
        outputs: of those, in inference mode, in the order of the outputs.
        labels: by output, in order; None: none are given.
    """

    number: int
    kind: str
    model: Any
    traits: list[str]
    inputs: dict[str, np.ndarray]
    outputs: list[np.ndarray]
    labels: dict[str, np.ndarray] | None


class _Refused(Exception):
    """A choice that goes nowhere; another is made."""


def random_model(number: int, kind: str | None = None) -> RandomModel:
    """The model of this number; Keras 2 and 3 take turns unless ``kind`` says which."""
    kind = kind or ("tf_keras", "keras")[number % 2]
    keras = importlib.import_module(kind)
    error: Exception | None = None
    for attempt in range(ATTEMPTS):
        draw = random.Random(f"{number} {attempt}")
        keras.backend.clear_session()
        keras.utils.set_random_seed(number % 2**31)
        policy, setter = _policy_of(keras)
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                return _Maker(draw, kind, keras, number).make()
        except Exception as refused:  # Keras refuses in every way; which, does not matter
            error = refused
        finally:
            setter(policy)
    raise RuntimeError(f"no model of number {number}") from error


def _policy_of(keras: ModuleType) -> tuple[Any, Callable[[Any], None]]:
    if keras.__name__ == "keras":
        return "float32", keras.config.set_dtype_policy
    return "float32", keras.mixed_precision.set_global_policy


class _Maker:
    """Grows one model."""

    def __init__(self, draw: random.Random, kind: str, keras: ModuleType, number: int):
        self.draw, self.kind, self.keras, self.layers, self.number = draw, kind, keras, keras.layers, number
        self.traits: list[str] = []
        self.batch = draw.choice([1, SAMPLES, *[None] * 20])
        self.odd_names = draw.random() < 0.25
        self.taken: set[str] = set()
        self.own = _own_module()

    def make(self) -> RandomModel:
        draw = self.draw
        if draw.random() < 0.12:
            policy = draw.choice(["mixed_float16", "mixed_bfloat16", "float64", "float16"])
            _policy_of(self.keras)[1](policy)
            self.traits.append(policy)
        kinds = ["image"] * 5 + ["sequence"] * 4 + ["vector"] * 3 + ["tokens"] * 2 + ["volume", "odd type", "text"]
        chosen = [draw.choice(kinds) for _ in range(draw.choice([1, 1, 1, 1, 2, 2, 3]))]
        inputs, ends, samples = [], [], {}
        for what in chosen:
            tensor, values, start = self._input(what)
            inputs.append(tensor)
            samples[self._input_name(tensor)] = values
            ends.append(self._grow(start, draw.choice([0, 1, 1, 2, 3, 4])))
        joined = ends[0] if len(ends) == 1 else self._join([self._vector(end) for end in ends])
        outputs = self._outputs(joined)
        form = draw.choice(["list"] * 4 + ["dict"])
        given = dict(zip(samples, inputs, strict=True)) if form == "dict" else inputs
        if len(outputs) == 1:
            model = self.keras.Model(given if len(inputs) > 1 or form == "dict" else inputs[0], outputs[0])
        else:
            model = self.keras.Model(
                given, {f"out{i}": o for i, o in enumerate(outputs)} if form == "dict" else outputs
            )
        model = self._container(model, inputs)
        self._weights(model)
        model = self._wrapped(model)
        values = [np.asarray(v) for v in samples.values()]
        results = self._run(model, samples, form)
        whole = self._compile(model, results)
        names = list(model.output_names) if getattr(model, "output_names", None) else ["output"]
        labels = self._labels(names, results, whole) if draw.random() < 0.7 else None
        self.traits.insert(0, "+".join(chosen))
        return RandomModel(
            self.number, self.kind, model, self.traits, dict(zip(samples, values, strict=True)), results, labels
        )

    def _input_name(self, tensor: Any) -> str:
        return tensor._keras_history.operation.name if self.kind == "keras" else tensor.node.layer.name

    # --- inputs ---

    def _input(self, what: str) -> tuple[Any, np.ndarray, Any]:
        draw, n = self.draw, SAMPLES
        rng = np.random.default_rng(draw.randrange(2**32))
        size = draw.choice([6, 8, 9])
        shape: tuple[int, ...] = {
            "image": (size, draw.choice([size, size + 2]), draw.choice([1, 2, 3, 4])),
            "sequence": (draw.choice([5, 8, 10]), draw.choice([1, 2, 4])),
            "vector": (draw.choice([1, 4, 7]),),
            "tokens": (draw.choice([4, 9]),),
            "volume": (4, 5, 4, 2),
            "odd type": draw.choice([(5,), (6, 3), (6, 6, 2)]),
            "text": draw.choice([(1,), ()]),
        }[what]
        values = rng.normal(0, 1, (n, *shape)).astype("float32")
        dtype = None
        if what == "tokens":
            values, dtype = rng.integers(0, 7, (n, *shape)), draw.choice(["int32", "int64", "float32", None])
        elif what == "odd type":
            dtype = draw.choice(["int32", "uint8", "bool", "float16", "float64", "int64", "int8"])
            values = rng.integers(0, 2, (n, *shape))
        elif what == "text":
            dtype, values = "string", rng.choice(["a b", "b", "c a", "zz"], (n, *shape))
        values = values.astype(dtype or "float32") if what != "text" else values.astype(object)
        options: dict[str, Any] = {"dtype": dtype} if dtype else {}
        given = list(shape)
        if what in ("image", "sequence", "tokens") and draw.random() < 0.15:
            given = [None if axis < len(shape) - (what != "tokens") else size for axis, size in enumerate(shape)]
            self.traits.append("open")
        if self.batch and draw.random() < 0.7:
            options["batch_size"] = self.batch
            self.traits.append(f"batch {self.batch}")
        tensor = self.keras.Input(tuple(given), **options, **self._name())
        return tensor, values, self._start(what, tensor, shape)

    def _start(self, what: str, tensor: Any, shape: tuple[int, ...]) -> Any:
        draw, layers = self.draw, self.layers
        if what == "tokens":
            start = draw.random()
            if start < 0.75:
                return layers.Embedding(7, 4, mask_zero=draw.random() < 0.4, **self._name())(tensor)
            self.traits.append("vocabulary")
            return layers.CategoryEncoding(7, output_mode=draw.choice(["multi_hot", "count"]))(tensor)
        if what == "odd type":
            if draw.random() < 0.5:
                return layers.Rescaling(1.0)(tensor)
            return self._op("cast", tensor, "float32")
        if what == "text":
            self.traits.append("vocabulary")
            words = ["a", "b", "c"]
            if len(shape) == 1 and draw.random() < 0.6:
                lookup = layers.StringLookup(vocabulary=words, output_mode=draw.choice(["int", "one_hot", "multi_hot"]))
                found = lookup(tensor)
            else:
                found = layers.TextVectorization(vocabulary=words, output_mode="int", output_sequence_length=4)(tensor)
            return layers.Embedding(9, 3)(found) if "int" in str(found.dtype) else found
        if what == "image" and draw.random() < 0.15:
            norm = layers.Normalization(mean=[0.1] * shape[-1], variance=[2.0] * shape[-1])
            return norm(tensor)
        if what == "vector" and draw.random() < 0.1:
            return layers.Discretization(bin_boundaries=[-1.0, 0.0, 1.0], output_mode="one_hot")(tensor)
        return tensor

    # --- layers ---

    def _grow(self, x: Any, steps: int) -> Any:
        for _ in range(steps):
            x = self._step(x)
        return x

    def _step(self, x: Any) -> Any:
        for _ in range(8):
            with contextlib.suppress(Exception):  # Keras refuses many combinations
                made = self._one(x)
                sizes = [size for size in made.shape[1:] if size is not None]
                if 0 not in sizes and np.prod(sizes or [1]) <= 20_000 and len(made.shape) >= 2:
                    return made
        raise _Refused

    def _one(self, x: Any) -> Any:
        ways = [self._layer] * 6 + [self._activation, self._arithmetic, self._branch, self._special, self._reshaped]
        return self.draw.choice(ways)(x)

    def _layer(self, x: Any) -> Any:
        table = {**_ANY_RANK, **_BY_RANK[len(x.shape)], **_BY_RANK[len(x.shape)]}
        names = [*_BY_RANK[len(x.shape)]] * 2 + [*_ANY_RANK]
        name = self.draw.choice(names)
        arguments = {key: self.draw.choice(values) for key, values in table[name].items()}
        if name == "Dropout" and self.draw.random() < 0.5:
            arguments["noise_shape"] = (None, *(1 for _ in x.shape[1:]))
        if name == "PReLU" and len(x.shape) > 2:
            arguments["shared_axes"] = [*range(1, len(x.shape) - 1)]
        if name == "SpectralNormalization":
            return self.layers.SpectralNormalization(self.layers.Dense(4))(x)
        if name in ("LSTM", "GRU", "SimpleRNN") and self.draw.random() < 0.3:
            inner = getattr(self.layers, name)(**arguments)
            return self.layers.Bidirectional(inner, merge_mode=self.draw.choice(["concat", "sum", "ave"]))(x)
        if self.draw.random() < 0.04 and name.startswith(("Conv", "Depthwise", "Max", "Average")):
            arguments["data_format"] = "channels_first"
            self.traits.append("channels first")
        self.traits.append(name)
        return getattr(self.layers, name)(**arguments, **self._name())(x)

    def _activation(self, x: Any) -> Any:
        name = self.draw.choice(_ACTIVATIONS)
        self.traits.append(name)
        function = getattr(self.keras.activations, name)
        way = self.draw.choice(["layer", "call", "argument"])
        if way == "layer":
            return self.layers.Activation(name, **self._name())(x)
        if way == "call":
            return function(x)
        return self.layers.Dense(4, activation=function)(x)

    def _arithmetic(self, x: Any) -> Any:
        draw = self.draw
        names = ["abs", "square", "exp", "sin", "sqrt", "mean", "max", "clip", "transpose", "concat", "slice", "stack"]
        name = draw.choice([*names, "affine", "minus", "divide", "power", "where", "pad", "squeeze", "einsum"])
        self.traits.append(name)
        if name == "affine":
            return draw.choice([lambda v: v * 2.0 + 1.0, lambda v: 1.0 - v, lambda v: v / 3.0, lambda v: -v])(x)
        if name == "minus":
            return x - self._op("mean", x, -1)
        if name == "divide":
            return x / (self._op("abs", x) + 1.0)
        if name == "power":
            return x**2
        if name == "slice":
            return draw.choice([lambda v: v[..., :2], lambda v: v[:, 1:], lambda v: v[:, ::2], lambda v: v[:, ::-1]])(x)
        return self._op(name, x)

    def _op(self, name: str, x: Any, *args: Any) -> Any:
        if self.kind == "keras":
            ops = self.keras.ops
            table = {
                "cast": lambda v, t: ops.cast(v, t),
                "mean": lambda v, a=-1: ops.mean(v, axis=a, keepdims=True),
                "max": lambda v: ops.max(v, axis=1, keepdims=True),
                "clip": lambda v: ops.clip(v, -1.0, 1.0),
                "sqrt": lambda v: ops.sqrt(ops.abs(v)),
                "transpose": lambda v: ops.swapaxes(v, 1, -1),
                "concat": lambda v: ops.concatenate([v, v], -1),
                "stack": lambda v: ops.stack([v, v], -1),
                "where": lambda v: ops.where(v > 0, v, v * 0.1),
                "pad": lambda v: ops.pad(v, [[0, 0]] * (len(v.shape) - 1) + [[0, 1]]),
                "squeeze": lambda v: ops.squeeze(ops.expand_dims(v, 1), 1),
                "einsum": lambda v: ops.einsum("bij,bkj->bik", v, v),
            }
            return table.get(name, lambda v: getattr(ops, name)(v))(x, *args)
        import tensorflow as tf

        table = {
            "cast": lambda v, t: tf.cast(v, t),
            "mean": lambda v, a=-1: tf.reduce_mean(v, axis=a, keepdims=True),
            "max": lambda v: tf.reduce_max(v, axis=1, keepdims=True),
            "clip": lambda v: tf.clip_by_value(v, -1.0, 1.0),
            "sqrt": lambda v: tf.sqrt(tf.abs(v)),
            "transpose": lambda v: tf.transpose(v, [0, *range(2, len(v.shape)), 1]),
            "concat": lambda v: tf.concat([v, v], -1),
            "stack": lambda v: tf.stack([v, v], -1),
            "where": lambda v: tf.where(v > 0, v, v * 0.1),
            "pad": lambda v: tf.pad(v, [[0, 0]] * (len(v.shape) - 1) + [[0, 1]]),
            "squeeze": lambda v: tf.squeeze(tf.expand_dims(v, 1), 1),
            "einsum": lambda v: tf.einsum("bij,bkj->bik", v, v),
        }
        return table.get(name, lambda v: getattr(tf.math, name)(v))(x, *args)

    def _branch(self, x: Any) -> Any:
        """Two ways that meet again."""
        layers, draw = self.layers, self.draw
        kind = draw.choice(["Add", "Multiply", "Average", "Maximum", "Minimum", "Subtract", "Concatenate", "gate"])
        self.traits.append(f"branch {kind}")
        if kind == "gate" and len(x.shape) == 4:
            pool = layers.GlobalAveragePooling2D(keepdims=True)(x)
            return layers.Multiply()([x, layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(pool)])
        width = x.shape[-1]
        if len(x.shape) == 4:
            other = layers.Conv2D(width, 3, padding="same", **self._name())(x)
        elif len(x.shape) == 3:
            other = layers.Conv1D(width, 3, padding="same", **self._name())(x)
        else:
            other = layers.Dense(width, **self._name())(x)
        if draw.random() < 0.4:
            other = self._step(other)
        return getattr(layers, kind if kind != "gate" else "Multiply")(**self._name())([x, other])

    def _special(self, x: Any) -> Any:
        """What needs more than arguments."""
        layers, draw, rank = self.layers, self.draw, len(x.shape)
        ways: list[tuple[str, Callable[[], Any]]] = [
            ("lambda", lambda: layers.Lambda(lambda v: v * 2.0 + 0.5, **self._name())(x)),
            ("own", lambda: self._own_layer()(x)),
            ("nested", lambda: self._nested(x)),
            ("shared", lambda: self._shared(x)),
        ]
        if rank == 3:
            ways += [
                ("attention", lambda: layers.MultiHeadAttention(2, 3, **self._name())(x, x)),
                ("attention 2", lambda: draw.choice([layers.Attention, layers.AdditiveAttention])()([x, x])),
                ("distributed", lambda: layers.TimeDistributed(layers.Dense(3))(x)),
                ("cells", lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], return_sequences=True)(x)),
                ("state", lambda: layers.LSTM(3, return_state=True)(x)[draw.choice([1, 2])]),
                ("dot", lambda: layers.Dot(axes=draw.choice([1, 2]))([x, x])),
                ("stateful", lambda: layers.GRU(3, stateful=True)(x)),
                ("unrolled", lambda: layers.GRU(3, unroll=True)(x)),
                ("grouped", lambda: layers.GroupQueryAttention(3, 4, 2)(x, x)),
            ]
        if rank == 5:
            ways.append(("distributed", lambda: layers.TimeDistributed(layers.Conv2D(2, 2))(x)))
        name, way = draw.choice(ways)
        self.traits.append(name)
        return way()

    def _own_layer(self) -> Any:
        return (self.own.Shift if self.kind == "tf_keras" else self.own.Stretch)(**self._name())

    def _nested(self, x: Any) -> Any:
        inner = self.keras.Input(x.shape[1:])
        return self.keras.Model(inner, self._grow(inner, self.draw.choice([1, 2])), **self._name())(x)

    def _shared(self, x: Any) -> Any:
        layer = self.layers.Dense(x.shape[-1], activation="relu", **self._name())
        return layer(layer(x))

    def _reshaped(self, x: Any) -> Any:
        sizes = x.shape[1:]
        if None in sizes:
            raise _Refused
        total = int(np.prod(sizes))
        choices = [(total,), (total, 1), (1, total), (-1, sizes[-1])]
        choices += [(total // 4, 2, 2)] if total % 4 == 0 else []
        self.traits.append("Reshape")
        return self.layers.Reshape(self.draw.choice(choices), **self._name())(x)

    def _name(self) -> dict[str, str]:
        if self.odd_names and self.draw.random() < 0.5:
            name = self.draw.choice(_NAMES)
            if name not in self.taken:
                self.taken.add(name)
                self.traits.append(f"name {name!r}")
                return {"name": name}
        return {}

    # --- ends ---

    def _vector(self, x: Any) -> Any:
        if len(x.shape) == 2:
            return x
        if None not in x.shape[1:] and self.draw.random() < 0.5:
            return self.layers.Flatten(**self._name())(x)
        if len(x.shape) == 3 and self.draw.random() < 0.4:
            return getattr(self.layers, self.draw.choice(["LSTM", "GRU"]))(4, **self._name())(x)
        if len(x.shape) not in _GLOBAL:
            raise _Refused
        name = self.draw.choice(_GLOBAL[len(x.shape)])
        return getattr(self.layers, name)(keepdims=False)(x)

    def _join(self, ends: list[Any]) -> Any:
        if self.draw.random() < 0.6:
            return self.layers.Concatenate(**self._name())(ends)
        dense = [self.layers.Dense(4)(end) for end in ends]
        return getattr(self.layers, self.draw.choice(["Add", "Multiply", "Maximum"]))()(dense)

    def _outputs(self, x: Any) -> list[Any]:
        draw, layers = self.draw, self.layers
        outputs = []
        for _ in range(draw.choice([1, 1, 1, 1, 2, 3])):
            end = draw.choice(["softmax", "softmax", "sigmoid", "linear", "as it is", "cast"])
            if end == "as it is":
                made = x if x is not None and not outputs else layers.Activation("linear", **self._name())(x)
            elif end == "cast" and draw.random() < 0.3:
                made = self._op("cast", x, draw.choice(["int32", "float16", "float32"]))
            else:
                activation = end if end in ("softmax", "sigmoid") else None
                made = layers.Dense(draw.choice([1, 2, 3]), activation=activation, **self._name())(self._vector(x))
            outputs.append(made)
        return outputs

    def _container(self, model: Any, inputs: list[Any]) -> Any:
        way = self.draw.choice(["plain"] * 6 + ["sequential", "sequential", "subclass", "nested"])
        if len(inputs) > 1 or way == "plain" or isinstance(model.input, dict):
            return model
        self.traits.append(way)
        layers = [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]
        if way == "sequential":
            made = self.keras.Sequential([inputs[0], *layers] if self.kind == "keras" else [model.layers[0], *layers])
            if len(made.outputs) != 1 or made.count_params() != model.count_params():
                raise _Refused
            return made
        if way == "nested":
            made = self.keras.Input(model.input.shape[1:], dtype=model.input.dtype, name=self._input_name(model.input))
            return self.keras.Model(made, model(made))
        subclass = self.own.Calls if self.kind == "tf_keras" else self.own.Calls3
        made = subclass(layers)
        made(np.zeros((2, *(size or 8 for size in model.input.shape[1:])), "float32"))
        return made

    # --- weights, wrappers, compile information ---

    def _weights(self, model: Any) -> None:
        draw = self.draw
        rng = np.random.default_rng(draw.randrange(2**32))
        kind = draw.choice(["usual"] * 20 + ["zero", "huge", "nan", "tiny"])
        if kind != "usual":
            self.traits.append(kind)
        for weight in model.weights:
            if "int" in str(weight.dtype) or "seed" in weight.name or "string" in str(weight.dtype):
                continue
            name = getattr(weight, "path", weight.name)
            values = (
                rng.uniform(0.5, 1.5, weight.shape)
                if any(w in name for w in ("gamma", "variance"))
                else rng.uniform(-0.5, 0.5, weight.shape)
            )
            if kind == "zero":
                values = np.zeros(weight.shape)
            elif kind == "huge" and rng.random() < 0.3:
                values = values * 1e20
            elif kind == "tiny":
                values = values * 1e-20
            elif kind == "nan" and rng.random() < 0.3:
                values = np.full(weight.shape, np.nan)
            weight.assign(values)

    def _wrapped(self, model: Any) -> Any:
        if self.kind != "tf_keras" or self.draw.random() > 0.1:
            return model
        import tensorflow_model_optimization as tfmot

        kind = self.draw.choice(["pruned", "clustered", "quantized"])
        with contextlib.suppress(Exception):  # tfmot takes few layers
            if kind == "pruned":
                made = tfmot.sparsity.keras.prune_low_magnitude(model)
            elif kind == "clustered":
                made = tfmot.clustering.keras.cluster_weights(
                    model, 2, tfmot.clustering.keras.CentroidInitialization.LINEAR
                )
            else:
                made = tfmot.quantization.keras.quantize_model(model)
            self.traits.append(kind)
            return made
        return model

    def _run(self, model: Any, samples: dict[str, np.ndarray], form: str) -> list[np.ndarray]:
        import tensorflow as tf

        values = [tf.constant(value) for value in samples.values()]
        given: Any = values[0] if len(values) == 1 else values
        if form == "dict" and hasattr(model, "inputs") and isinstance(getattr(model, "input", None), dict):
            given = dict(zip(samples, values, strict=True))
        results = model(given, training=False)
        return [np.asarray(value) for value in tf.nest.flatten(results)]

    def _compile(self, model: Any, results: list[np.ndarray]) -> bool | None:
        """Compile, perhaps; returns whether labels are class numbers, None where any are right."""
        draw, keras = self.draw, self.keras
        if draw.random() < 0.3:
            return None
        losses = ["mse", keras.losses.Huber(), "mae", keras.losses.MeanSquaredError(name="error"), self.own.own_loss]
        classes = len(results) == 1 and results[0].ndim == 2 and results[0].shape[1] > 1
        if classes:
            losses += ["sparse_categorical_crossentropy", keras.losses.SparseCategoricalCrossentropy()] * 3
        loss = draw.choice(losses)
        metrics = (
            ["accuracy"] if "crossentropy" in str(loss).lower() or "Crossentropy" in type(loss).__name__ else ["mae"]
        )
        with contextlib.suppress(AttributeError, ValueError, TypeError, ImportError):
            model.compile(
                self._optimizer(), loss, metrics=metrics if len(results) == 1 and draw.random() < 0.7 else None
            )
            self.traits.append("compiled")
            return "rossentropy" in str(loss)
        return None

    def _optimizer(self) -> Any:
        optimizers, name = self.keras.optimizers, self.draw.choice(_OPTIMIZERS)
        if name == "legacy":
            return optimizers.legacy.Adam()
        if name == "schedule":
            return optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 10, 0.9))
        if name == "loss_scale":
            return self.keras.mixed_precision.LossScaleOptimizer(optimizers.Adam())
        return name

    def _labels(self, names: list[str], results: list[np.ndarray], whole: bool | None) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.draw.randrange(2**32))
        labels = {}
        for name, values in zip(names, results, strict=True):
            drawn = self.draw.random() < 0.7
            if (drawn if whole is None else whole) and values.ndim >= 2 and values.shape[-1] > 1:
                labels[name] = rng.integers(0, values.shape[-1], values.shape[:-1])
            else:
                labels[name] = rng.uniform(0, 1, values.shape).astype("float32")
        return labels


# --- files -------------------------------------------------------------------------------------------------------


def write(made: RandomModel, folder: Path, ending: str) -> Path | None:
    """The model as ``folder/model`` with one of the endings in ``FORMATS``; None where Keras cannot write it."""
    path = folder / f"model{ending}"
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.model.save(path)
        return path
    return None


def save_weights(made: RandomModel, folder: Path) -> Path:
    """Its weights alone."""
    path = folder / "only.weights.h5"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.model.save_weights(path)
    return path


_SOURCE = '''"""The samples of a model."""
import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent


def data():
    names = json.loads((FOLDER / "names.json").read_text())
    with np.load(FOLDER / "arrays.npz", allow_pickle={pickle}) as arrays:
        x = {{name: arrays[f"x{{i}}"] for i, name in enumerate(names["x"])}}
        y = {{name: arrays[f"y{{i}}"] for i, name in enumerate(names["y"])}}
    x = x if len(x) > 1 else next(iter(x.values()))
    y = y if len(y) > 1 else next(iter(y.values()), None)
    return x if y is None else (x, y)
'''


def save_data(made: RandomModel, folder: Path) -> str:
    """The samples as a source of data, in the form of ``--data``."""
    labels = made.labels or {}
    text = any(value.dtype == object for value in made.inputs.values())
    if len(made.inputs) == 1 and len(labels) < 2 and not text and made.number % 3:
        arrays = {"x": next(iter(made.inputs.values()))}
        np.savez(folder / "samples.npz", **arrays, **({"y": next(iter(labels.values()))} if labels else {}))
        return str(folder / "samples.npz")
    arrays = {f"x{i}": value for i, value in enumerate(made.inputs.values())}
    np.savez(folder / "arrays.npz", **arrays, **{f"y{i}": value for i, value in enumerate(labels.values())})
    (folder / "names.json").write_text(json.dumps({"x": list(made.inputs), "y": list(labels)}))
    (folder / "samples.py").write_text(_SOURCE.format(pickle=text))
    return f"{folder / 'samples.py'}:data"


def _own_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("random_models_own", OWN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
