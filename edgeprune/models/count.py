"""Parameters and multiply-accumulates of a model, layer by layer."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from edgeprune._tensorflow import import_tf
from edgeprune.errors import ModelError
from edgeprune.models.macs import UnknownShape, layer_macs
from edgeprune.models.shapes import CallShapes, Shape, calls
from edgeprune.models.sizes import Inputs, InputShapes, still_open
from edgeprune.models.types import Layer, Variable

if TYPE_CHECKING:
    import keras
    import tf_keras


@dataclasses.dataclass(frozen=True)
class LayerCount:
    """Parameters and multiply-accumulates of one layer.

    Attributes:
        name: of the layer; inside a nested model ``outer/inner``.
        kind: its class.
        output_shape: of its first output at its first call, without the batch dimension.
        params: number of weights, those that are not trained included; weights shared between layers count with the
            first.
        macs: multiply-accumulates of all its calls for one sample (see :mod:`edgeprune.models.macs`).
    """

    name: str
    kind: str
    output_shape: Shape
    params: int
    macs: int


@dataclasses.dataclass(frozen=True)
class Counts:
    """Parameters and multiply-accumulates of a model.

    Attributes:
        params: number of weights, each variable once, those that are not trained included.
        nonzero_params: how many of them are not 0.
        macs: multiply-accumulates for one sample.
        layers: in the order of the data; input layers left out.
        uncounted: names of layers whose multiply-accumulates no rule knows; they count 0 in ``macs``.
    """

    params: int
    nonzero_params: int
    macs: int
    layers: tuple[LayerCount, ...]
    uncounted: tuple[str, ...] = ()


def count(model: tf_keras.Model | keras.Model, *, input_shape: InputShapes | None = None) -> Counts:
    """Count parameters and multiply-accumulates.

    Args:
        model: a functional model of tf_keras, or one of Keras 3, whose translation is counted.
        input_shape: sizes for inputs of open size, as :func:`edgeprune.models.load.load_model` takes them.

    Returns:
        Whole numbers, for the model and for each layer: parameters, of which those that are not zero, and
        multiply-accumulates for one sample.

    Raises:
        ModelError: the model is of a kind that edgeprune cannot use, or a dimension of the input that the
            multiply-accumulates depend on is not fixed.
        UsageError: an input shape that does not fit the inputs.
    """
    import_tf()
    import numpy as np
    import tf_keras

    from edgeprune.models.load import load_model, sized

    if not isinstance(model, tf_keras.Model):
        model = load_model(model)
    model = model if input_shape is None else sized(model, input_shape)
    inputs = Inputs.of(model)
    rows: dict[int, LayerCount] = {}
    uncounted: dict[str, None] = {}
    seen: set[int] = set()
    for name, layer, call in calls(model):
        macs = _macs(name, layer, call, inputs)
        if macs is None:
            uncounted[name] = None
        row = rows.get(id(layer)) or LayerCount(name, type(layer).__name__, call.output, _params(layer, seen), 0)
        rows[id(layer)] = dataclasses.replace(row, macs=row.macs + (macs or 0))
    layers = tuple(rows.values())
    return Counts(
        params=_params(model, set()),
        nonzero_params=sum(int(np.count_nonzero(weight)) for weight in _unique(model, set())),
        macs=sum(row.macs for row in layers),
        layers=layers,
        uncounted=tuple(uncounted),
    )


def _macs(name: str, layer: Layer, call: CallShapes, inputs: Inputs) -> int | None:
    try:
        return layer_macs(layer, call)
    except UnknownShape as error:
        if inputs.open:
            raise still_open(inputs) from error
        raise ModelError(
            f"The layer {name!r} works on a shape that is not fixed: {tuple(error.args[0])}.",
            expected="a model whose shapes follow from those of its inputs",
            fix="replace the operation that makes this shape by one with fixed sizes.",
        ) from error


def _params(layer: Layer, seen: set[int]) -> int:
    return sum(math.prod(weight.shape) for weight in _unique(layer, seen))


def _unique(layer: Layer, seen: set[int]) -> list[Variable]:
    """The weights of ``layer`` that are not in ``seen`` yet; adds them to it."""
    new = {id(weight): weight for weight in layer.weights if id(weight) not in seen}
    seen |= new.keys()
    return list(new.values())
