"""The task of an output that neither the recipe nor the model's compile information states, by a table of rules.

A rule names the form of the labels and how the output ends, and the readings that are possible. One reading: that is
the task. Several: the build asks. A new rule is a line in :data:`RULES`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgeprune.models.graph import View, activation_name, symbol_of
from edgeprune.tasks.labels import Form, Shape
from edgeprune.tasks.task import Kind

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.models.types import Tensor

# How an output ends: in a distribution over its last axis, in numbers from 0 to 1, without an activation, or in any
# other one.
End = Literal["softmax", "sigmoid", "linear", "other"]


@dataclasses.dataclass(frozen=True)
class OutputFacts:
    """What is known of one output of a model.

    Attributes:
        shape: without the batch.
        end: how it ends.
        low, high: of its values on a few samples.
    """

    shape: Shape
    end: End
    low: float
    high: float

    @property
    def width(self) -> int:
        return self.shape[-1] or 1 if self.shape else 1


@dataclasses.dataclass(frozen=True)
class Reading:
    """One way to read an output: its kind, loss and metric, as a recipe names them."""

    kind: Kind
    loss: str
    metric: str
    words: str


_CLASSES = Reading("classification", "sparse_categorical_crossentropy", "accuracy", "one of several classes")
_ROWS = dataclasses.replace(_CLASSES, loss="categorical_crossentropy")
_BINARY = Reading("classification", "binary_crossentropy", "accuracy", "one of two classes")
_ONE_OF_SIGMOIDS = dataclasses.replace(_CLASSES, loss="binary_crossentropy")
_SEVERAL = Reading("multilabel", "binary_crossentropy", "binary_accuracy", "several labels, each there or not")
_NUMBERS = Reading("regression", "mean_squared_error", "mean_absolute_error", "numbers")

_ANY: tuple[End, ...] = ("softmax", "sigmoid", "linear", "other")
# (forms of labels, ends of outputs, readings); the first line that fits counts. Without readings: they do not fit.
RULES: tuple[tuple[tuple[Form, ...], tuple[End, ...], tuple[Reading, ...]], ...] = (
    (("class numbers",), ("softmax", "linear"), (_CLASSES,)),
    (("class numbers",), ("sigmoid", "other"), (_CLASSES, _ONE_OF_SIGMOIDS)),
    (("one-hot rows",), ("softmax",), (_ROWS,)),
    (("one-hot rows",), ("sigmoid",), (_ROWS, _SEVERAL)),
    (("one-hot rows",), ("linear", "other"), (_ROWS, _NUMBERS)),
    (("rows of zeros and ones",), ("sigmoid",), (_SEVERAL,)),
    (("rows of zeros and ones",), ("softmax", "linear", "other"), (_SEVERAL, _NUMBERS)),
    (("distributions",), ("softmax",), (_ROWS, _NUMBERS)),
    (("distributions",), ("sigmoid", "linear", "other"), (_NUMBERS, _ROWS)),
    (("zeros and ones",), ("sigmoid",), (_BINARY,)),
    (("zeros and ones",), ("linear", "other"), (_BINARY, _NUMBERS)),
    (("numbers from 0 to 1",), ("sigmoid",), (_NUMBERS, _BINARY)),
    (("numbers from 0 to 1",), ("softmax", "linear", "other"), (_NUMBERS,)),
    (("numbers", "whole numbers"), ("linear", "other"), (_NUMBERS,)),
)


def readings(form: Form, end: End) -> tuple[Reading, ...]:
    """The ways to read an output; none if labels of that form do not fit one that ends so."""
    return next((found for forms, ends, found in RULES if form in forms and end in ends), ())


# What a kind stands for, by the form of the labels; the first reading of that kind among these.
BY_KIND: dict[str, tuple[tuple[tuple[Form, ...], Reading], ...]] = {
    "classification": (
        (("class numbers",), _CLASSES),
        (("one-hot rows", "distributions", "rows of zeros and ones"), _ROWS),
        (("zeros and ones", "numbers from 0 to 1"), _BINARY),
    ),
    "multilabel": (
        (
            (
                "rows of zeros and ones", "one-hot rows", "zeros and ones", "class numbers", "numbers from 0 to 1",
                "distributions",
            ),
            _SEVERAL,
        ),
    ),
    "regression": (
        (
            (
                "numbers", "whole numbers", "numbers from 0 to 1", "zeros and ones", "distributions", "one-hot rows",
                "rows of zeros and ones",
            ),
            _NUMBERS,
        ),
    ),
}  # fmt: skip
# Kinds that are a classification at every position.
DENSE_KINDS = ("segmentation", "sequence")


def reading_of_kind(kind: str, form: Form, end: End) -> Reading | None:
    """What a kind that the user names stands for; None: labels of that form do not fit it."""
    of_kind = BY_KIND["classification" if kind in DENSE_KINDS else kind]
    found = next((reading for forms, reading in of_kind if form in forms), None)
    if found in (_CLASSES, _ROWS) and end == "sigmoid":
        return _ONE_OF_SIGMOIDS
    return found


def kind_at(kind: Kind, shape: Shape) -> Kind:
    """A classification of every position has a name of its own: of pixels (three axes) or of steps (two)."""
    dense: dict[int, Kind] = {2: "sequence", 3: "segmentation"}
    return dense.get(len(shape), kind) if kind == "classification" else kind


# Calls between an activation and the output that only arrange values.
_ARRANGING_LAYERS = {
    "Reshape", "Flatten", "Permute", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "InputLayer", "RepeatVector",
    "Cropping1D", "Cropping2D", "Cropping3D", "Identity",
}  # fmt: skip
_ARRANGING_OPERATIONS = {
    "reshape", "transpose", "squeeze", "expand_dims", "cast", "identity", "__operators__.getitem", "slice",
}  # fmt: skip
_SOFTMAX = {"softmax", "nn.softmax", "Softmax"}
_SIGMOID = {"sigmoid", "hard_sigmoid", "math.sigmoid", "nn.sigmoid"}
_TOLERANCE = 1e-3


def output_facts(model: tf_keras.Model, outputs: list[np.ndarray]) -> list[OutputFacts]:
    """What each output is: from the calls that end it, and from its values on a few samples.

    Args:
        model: functional.
        outputs: one array [samples, ...] per output.
    """
    view = View(model)
    return [
        OutputFacts(
            tuple(tensor.shape[1:]),
            end_of(_named_end(view, tensor), values),
            float(np.min(values)),
            float(np.max(values)),
        )
        for tensor, values in zip(model.outputs, outputs, strict=True)
    ]


def end_of(named: End, values: np.ndarray, tolerance: float = _TOLERANCE) -> End:
    """How an output ends, out of what its graph says and of values on some samples.

    Args:
        named: by the operation that ends it; "other": not known.
        values: [samples, ...].
        tolerance: by how much a distribution may miss the sum of 1.
    """
    is_wide = values.ndim > 1 and values.shape[-1] > 1
    sums_to_one = is_wide and bool((np.abs(values.sum(-1) - 1) < tolerance).all() and values.min() >= -_TOLERANCE)
    if sums_to_one and named in ("softmax", "other"):
        return "softmax"
    if named == "softmax":  # over another axis, or of one value
        return "other"
    return named


def _named_end(view: View, tensor: Tensor) -> End:
    node = view.maker(tensor)
    layer, symbol = node.layer, symbol_of(node.layer)
    name = symbol or (activation_name(layer) if hasattr(layer, "activation") else type(layer).__name__)
    if name in _SOFTMAX:
        return "softmax"
    if name in _SIGMOID:
        return "sigmoid"
    if type(layer).__name__ in _ARRANGING_LAYERS or symbol in _ARRANGING_OPERATIONS or _passes(layer, name):
        sources = [source for source in node.keras_inputs if source is not tensor]
        return _named_end(view, sources[0]) if len(sources) == 1 else "other"
    if type(layer).__name__ == "Concatenate" or symbol == "concat":
        ends = {_named_end(view, source) for source in node.keras_inputs}
        return ends.pop() if len(ends) == 1 else "other"
    # A layer with weights and without an activation gives any number, and so does a sum or a scale.
    if name == "linear" or type(layer).__name__ in ("Rescaling", "Normalization", "BatchNormalization", "Add"):
        return "linear"
    return "other"


def _passes(layer: object, name: str) -> bool:
    return type(layer).__name__ == "Activation" and name == "linear"
