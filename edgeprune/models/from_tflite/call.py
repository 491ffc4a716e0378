"""One operator as its rule sees it: values that go in, constants, options, and layers to emit."""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.models.from_tflite.registry import NoRule
from edgeprune.models.graph import is_symbolic
from edgeprune.models.keras3_emit import Emitter
from edgeprune.models.types import Structure, Tensor
from edgeprune.tflite.graph import Operator, Subgraph
from edgeprune.tflite.graph import Tensor as FileTensor

if TYPE_CHECKING:
    from edgeprune.models.from_tflite.states import States

Shape = tuple[int, ...]
# What a model computes may be as large as this, one tensor and all of them; and what is computed while its file is
# read. Real ones need less, and memory is bounded by these.
MOST_VALUES = 1 << 25
MOST_IN_ALL = 1 << 28
FOLDED_VALUES = 1 << 22


@dataclass(frozen=True)
class Blocks:
    """How the file has an image that it computes on in blocks: every few rows and columns as an image of a batch.

    Attributes:
        size: every so many rows and columns.
        margins: rows and columns at each side that the file has beside the image.
    """

    size: tuple[int, int]
    margins: tuple[tuple[int, int], tuple[int, int]]

    def image(self, blocks: np.ndarray) -> np.ndarray:
        """[blocks, height, width, channels] as the file has them → [1, height, width, channels]."""
        _, height, width, channels = blocks.shape
        (rows, columns), ((top, bottom), (left, right)) = self.size, self.margins
        whole = blocks.reshape(rows, columns, height, width, channels).transpose(2, 0, 3, 1, 4)
        whole = whole.reshape(1, height * rows, width * columns, channels)
        return whole[:, top : height * rows - bottom, left : width * columns - right]


@dataclass(frozen=True)
class Value:
    """A tensor of the file while the model is built: a constant, or a symbolic tensor of tf_keras.

    Attributes:
        shape: in the file, for one sample.
        tensor: [batch, ...]. Where the first axis of ``shape`` has size 1, that is the batch; else the batch stands in
            front of ``shape``. None for a constant.
        constant: an array of ``shape``, real values where the file has quantized ones; None for a symbolic tensor.
        blocks: of an image in blocks, whose ``tensor`` is the image; None of any other.
    """

    shape: Shape
    tensor: Tensor | None = None
    constant: np.ndarray | None = None
    blocks: Blocks | None = None

    @property
    def has_batch(self) -> bool:
        """Whether the first axis in the file is that of the samples."""
        return self.constant is None and self.shape[:1] == (1,)

    @staticmethod
    def of_constant(array: Any) -> Value:
        array = np.asarray(array)
        return Value(array.shape, constant=array)

    @staticmethod
    def of_tensor(tensor: Tensor) -> Value:
        """Of a tensor whose batch is the file's first axis."""
        if not is_symbolic(tensor):
            return Value.of_constant(np.asarray(tensor))
        return Value((1, *_static(tensor)[1:]), tensor)


@dataclass(frozen=True)
class Shared:
    """What the operators of a file have in common while its model is built.

    Attributes:
        states: the variables of the file.
        subgraphs: of the file.
        run: the operators of another graph, by its number and the values of its inputs; gives those of its outputs, or
            of the tensors that are named.
        layers: with weights, by what they stand for: an operator that runs several times is one layer.
    """

    states: States
    subgraphs: tuple[Subgraph, ...]
    run: Callable[..., list[Value]]
    layers: MutableMapping[tuple[int, int, str], Any] = field(default_factory=dict)


class Call:
    """An operator, and the layers that take its place, which are named after what it makes.

    Attributes:
        operator, graph: of the file.
        inputs: None where an optional input is left out.
        emit: makes layers and operations.
    """

    def __init__(
        self, operator: Operator, graph: Subgraph, inputs: Sequence[Value | None], emit: Emitter, shared: Shared
    ):
        self.operator, self.graph, self.inputs = operator, graph, tuple(inputs)
        self.emit, self.shared, self.states = emit, shared, shared.states
        self.folds = all(value is None or value.constant is not None for value in inputs)

    # -- what the file says ------------------------------------------------------------------------------------------

    def option(self, name: str, default: Any = None) -> Any:
        """An option of the operator; the default where the file leaves the table out."""
        return self.operator.options.get(name, default)

    def has(self, position: int) -> bool:
        return position < len(self.inputs) and self.inputs[position] is not None

    def value(self, position: int, *, blocks: bool = False) -> Value:
        """An input that must be there.

        Args:
            blocks: whether it may be an image in blocks.
        """
        found = self.inputs[position] if position < len(self.inputs) else None
        if found is None:
            raise NoRule(f"has no input {position}", "a complete file")
        if found.blocks and not blocks:
            raise NoRule("works on an image in blocks", "SPACE_TO_BATCH_ND, one convolution and BATCH_TO_SPACE_ND")
        return found

    def constant(self, position: int, what: str) -> np.ndarray:
        """An input that must be known before the model runs.

        Args:
            what: it is, for messages.
        """
        found = self.value(position).constant
        if found is None:
            raise NoRule(f"computes its {what} at run time", f"a constant {what}")
        return found

    def integers(self, position: int, what: str) -> list[int]:
        return [int(number) for number in np.ravel(self.constant(position, what))]

    def output(self, position: int = 0) -> FileTensor:
        """The tensor of the file that an output is."""
        found = self.graph.output(self.operator, position)
        if found is None:
            raise NoRule(f"has no output {position}", "a complete file")
        return found

    # -- tensors -----------------------------------------------------------------------------------------------------

    def symbolic(self, value: Value) -> Tensor:
        """[batch, ...] as :class:`Value` has it; of a constant, with a batch of one in front of its shape."""
        import tensorflow as tf

        if value.tensor is not None:
            return value.tensor
        if not self.folds:
            return self._repeated(value.constant)
        return tf.constant(value.constant[None])  # type: ignore[index]

    def _repeated(self, array: Any) -> Tensor:
        """A constant beside symbolic tensors, for every sample: a first axis of size 1 becomes that of the samples."""
        array = array if array.shape[:1] == (1,) else array[None]
        like = next(value.tensor for value in self.inputs if value is not None and value.tensor is not None)
        batch = self.emit.getitem(self.emit.op("shape", like, suffix="shape"), slice(0, 1))
        times = self.emit.op("concat", [batch, [1] * (array.ndim - 1)], 0, suffix="times")
        return self.emit.op("tile", array, times, suffix="constant")

    def single(self, value: Value) -> Tensor:
        """[batch, ...] of a value whose first axis has size 1; a constant for itself, with a batch of one."""
        import tensorflow as tf

        return tf.constant(value.constant) if value.constant is not None else self.symbolic(value)

    def whole(self, value: Value, rank: int = 0) -> Tensor:
        """[batch, *shape], with axes of size 1 behind the batch up to ``rank`` axes beside it."""
        tensor, shape = self.symbolic(value), value.shape
        wanted = (*(1,) * (rank - len(shape)), *shape)
        if _static(tensor)[1:] == wanted:
            return tensor
        return self.emit.layer("Reshape", tensor, "whole", target_shape=wanted)

    def made(self, tensor: Tensor, whole: bool) -> Value:
        """The value of a tensor that was made of such with the batch in the place of the first axis, or ``whole``."""
        if not is_symbolic(tensor):
            return Value.of_constant(np.asarray(tensor)[0])
        shape = _static(tensor)[1:]
        if not whole:
            return self._within(Value((1, *shape), tensor))
        if shape[:1] == (1,):
            tensor = self.emit.layer("Reshape", tensor, "rows", target_shape=shape[1:])
        return self._within(Value(shape, tensor))

    def along(self, values: Sequence[Value], axes: Sequence[int]) -> tuple[list[Tensor], bool]:
        """Tensors to compute with along axes of the file: as they are where none is that of the samples, else whole.

        Returns:
            The tensors, and whether they are whole: axes are then one further.
        """
        rank = len(values[0].shape)
        direct = all(value.has_batch or value.constant is not None for value in values) and not self.folds
        direct = direct and 0 not in [axis % max(rank, 1) for axis in axes]
        direct = direct and all(value.shape[:1] == (1,) for value in values)
        return [self.symbolic(value) if direct else self.whole(value) for value in values], not direct

    def aligned(self, values: Sequence[Value]) -> tuple[list[Any], bool]:
        """Tensors and arrays that broadcast as in the file; see :meth:`along`."""
        check_size(np.broadcast_shapes(*(value.shape for value in values)), self.folds)
        rank = max(len(value.shape) for value in values)
        direct = not self.folds and all(
            (value.has_batch and len(value.shape) == rank)
            or (value.constant is not None and (len(value.shape) < rank or value.shape[:1] == (1,)))
            for value in values
        )
        if direct:
            return [_or_constant(value, value.tensor) for value in values], False
        return [
            self.whole(value, rank) if self.folds or value.constant is None else value.constant for value in values
        ], True

    def reshaped(self, value: Value, shape: Shape) -> Value:
        """The same numbers in another shape."""
        if math.prod(shape) != math.prod(value.shape):
            raise NoRule(f"gives {list(value.shape)} the shape {list(shape)}", "a shape with as many elements")
        if value.constant is not None:
            return Value(shape, constant=value.constant.reshape(shape))
        target = shape[1:] if shape[:1] == (1,) else shape
        tensor = value.tensor
        assert tensor is not None
        before = before_reshape(tensor)
        if before is not None and _static(before)[1:] == target:
            return Value(shape, before)
        if _static(tensor)[1:] != target:
            tensor = self.emit.layer("Reshape", tensor, target_shape=target)
        return Value(shape, tensor)

    def weighted(
        self, class_name: str, tensor: Structure, weights: Sequence[np.ndarray], suffix: str = "", **config: Any
    ) -> Tensor:
        """A layer with these weights, called on a tensor."""
        key = (id(self.graph), self.operator.index, suffix)
        if key in self.shared.layers:
            return self.shared.layers[key](tensor)
        layer = self.emit.make(class_name, suffix, **config)
        if not is_symbolic(tensor):
            check_size([tensor.shape.num_elements() // tensor.shape[-1], weights[0].shape[-1]], True)
        result = layer(tensor)
        if [list(weight.shape) for weight in layer.weights] != [list(weight.shape) for weight in weights]:
            raise NoRule("has weights of shapes that do not fit what it is given", "a complete file")
        layer.set_weights(list(weights))
        self.shared.layers[key] = layer
        return result if is_symbolic(tensor) else layer(tensor)

    def activated(self, tensor: Tensor) -> Tensor:
        """The fused activation behind a tensor."""
        from edgeprune.models.from_tflite.elementwise import FUSED

        name = self.option("fused_activation_function", "NONE")
        if name not in FUSED:
            raise NoRule(f"has the fused activation {name}", "a rule for it")
        return FUSED[name](self, tensor)

    def _within(self, value: Value) -> Value:
        check_size(value.shape, False)
        return value


def check_size(shape: Sequence[int], folded: bool) -> None:
    """Refuse what is larger than anything that a model computes.

    Args:
        folded: it is computed while the file is read.
    """
    limit = FOLDED_VALUES if folded else MOST_VALUES
    if any(size <= 0 for size in shape) or math.prod(shape) > limit:
        raise NoRule(f"makes a tensor of shape {list(shape)}", f"sizes above 0, and at most {limit:,} values")


def before_reshape(tensor: Tensor) -> Tensor | None:
    """What a Reshape layer that makes a tensor was given."""
    layer = tensor.node.layer
    return layer.input if type(layer).__name__ == "Reshape" and len(layer.inbound_nodes) == 1 else None


def _or_constant(value: Value, tensor: Any) -> Any:
    return value.constant if value.constant is not None else tensor


def _static(tensor: Tensor) -> Shape:
    shape = tuple(tensor.shape)
    if None in shape[1:]:
        raise NoRule("makes a tensor whose size is known at run time only", "fixed sizes")
    return shape
