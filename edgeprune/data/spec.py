"""InputSpec: shapes, names and types of a model's inputs, which the data must fit."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from edgeprune.errors import DataError, ModelError
from edgeprune.models.types import Structure, Value

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.models.front import Front

Shape = tuple[int | None, ...]


def values_in(shapes: Iterable[Shape]) -> int:
    """How many values one sample has in tensors of these shapes, without the batch dimension, for bounds of memory."""
    # A size that is open has no more than a few hundred steps or pixels, as a rule.
    return sum(math.prod(size or 256 for size in shape) for shape in shapes)


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """The inputs of a model, in the order of ``model.inputs``.

    Attributes:
        shapes: one shape per input, without the batch dimension; None is any size. ``((32, 32, 3),)``.
        names: one name per input; by default ``input_0``, ``input_1``, ...
        dtypes: one NumPy dtype name per input; by default all ``float32``.
        front: the part of the model before these inputs that stays on the host, and makes them of texts.
        text_fix: what to do about texts in the data, where that part is not at hand.
        outputs: shapes of the outputs, without the batch dimension, which masks must fit; empty: not known.
        ordered: whether this is the order of the model; of a file of unknown origin it may be any.
    """

    shapes: tuple[Shape, ...]
    names: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    front: Front | None = dataclasses.field(default=None, repr=False, compare=False)
    text_fix: str | None = dataclasses.field(default=None, repr=False, compare=False)
    outputs: tuple[Shape, ...] = dataclasses.field(default=(), repr=False, compare=False)
    ordered: bool = dataclasses.field(default=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        shapes = tuple(tuple(shape) for shape in self.shapes)
        object.__setattr__(self, "shapes", shapes)
        object.__setattr__(self, "names", tuple(self.names) or tuple(f"input_{i}" for i in range(len(shapes))))
        object.__setattr__(self, "dtypes", tuple(self.dtypes) or ("float32",) * len(shapes))

    @classmethod
    def of(cls, model: tf_keras.Model) -> InputSpec:
        """The inputs of a built tf_keras model.

        Raises:
            ModelError: the model has no known inputs (a subclassed or unbuilt model).
        """
        if not model.inputs:
            raise ModelError(f"The model {model.name!r} has no known inputs.", expected="a functional, built model.")
        return cls(
            shapes=tuple(tuple(tensor.shape.as_list()[1:]) for tensor in model.inputs),
            names=tuple(model.input_names),
            dtypes=tuple(tensor.dtype.name for tensor in model.inputs),
            outputs=tuple(tuple(tensor.shape.as_list()[1:]) for tensor in model.outputs),
        )

    def arrange(self, x: Structure, where: str) -> tuple[Value, ...]:
        """Put the inputs ``x`` of a sample or batch in model order.

        Args:
            x: one tensor; or a tuple or list in model order, or a mapping by input name, of several.
            where: names the data in errors, for example ``"train"``.

        Raises:
            DataError: too few, too many or unknown inputs; a tuple, where it is not known which input is which.
        """
        if isinstance(x, Mapping):
            if set(x) != set(self.names):
                raise self._wrong_inputs(where, f"inputs named {sorted(x)}")
            return tuple(x[name] for name in self.names)
        inputs = tuple(x) if isinstance(x, (tuple, list)) else (x,)
        if len(inputs) != len(self.shapes):
            raise self._wrong_inputs(where, f"{len(inputs)} inputs")
        if not self.ordered and any(_fits(one, other) for one, other in itertools.combinations(self.shapes, 2)):
            raise DataError(
                f"The {where} data has a tuple of inputs, and which is which is not known: the file does not keep the "
                f"order of the model that it was made of ({', '.join(self.names)}).",
                expected="x as a dict by input.",
                fix="give x as a dict with these names: {" + ", ".join(f'"{name}": ...' for name in self.names) + "}.",
            )
        return inputs

    def _wrong_inputs(self, where: str, given: str) -> DataError:
        takes = ", ".join(f"{name} {shape}" for name, shape in zip(self.names, self.shapes, strict=True))
        return DataError(
            f"The {where} data has {given}; the model takes {len(self.shapes)}.",
            expected=f"x for: {takes}.",
            fix="give x as one array for one input, else as a tuple of its own in this order, ((a, b), y), or a dict "
            "with these names.",
        )

    def texts_given(self, index: int, where: str) -> DataError:
        """The error for texts where input ``index`` takes numbers."""
        return DataError(
            f"The inputs x of the {where} data are texts, and {self.names[index]!r} takes numbers of shape "
            f"{self.shapes[index]}.",
            expected="the numbers that the words have.",
            fix=self.text_fix,
        )

    def check_shape(self, index: int, shape: Shape, where: str) -> None:
        """Raise DataError if samples of ``shape`` (no batch dimension) do not fit input ``index``."""
        wanted = self.shapes[index]
        if _fits(shape, wanted):
            return
        raise DataError(
            f"The {where} data has samples of shape {shape} for input {self.names[index]!r}.",
            expected=f"shape {wanted}, which the model takes.",
            fix=_advice(shape, wanted),
        )


def _advice(shape: Shape, wanted: Shape) -> str:
    """How samples of ``shape`` become samples of the shape ``wanted``."""
    channels_last = (*shape[1:], *shape[:1])
    sizes = [math.prod(size or 0 for size in one) for one in (shape, wanted)]
    if len(shape) == len(wanted) > 1 and shape[:-1] == wanted[:-1]:
        return f"convert the images from {shape[-1]} to {wanted[-1]} channels, or use a model with {shape[-1]}."
    if len(shape) == len(wanted) > 2 and _fits(channels_last, wanted):
        return "the channels come first, and the model takes them last: x = np.moveaxis(x, 1, -1)."
    if len(shape) != len(wanted) and sizes[0] == sizes[1] > 0:
        return f"if these are the same values in the same order: x = x.reshape({', '.join(map(str, (-1, *wanted)))})."
    return "reshape or resize the samples in the data source, or use a model with this input shape."


def _fits(shape: Shape, wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(None in (a, b) or a == b for a, b in zip(shape, wanted, strict=True))
