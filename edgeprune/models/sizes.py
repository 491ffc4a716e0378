"""Inputs of open size, such as ``Input((None, None, 3))``: which sizes they get, and the model rebuilt for them.

A file for a board has fixed sizes: the converter's shape inference, delegates and memory plans need them. What decides,
is the user (``--input-shape``, ``[data] size``) or the data; this module knows neither, but what either may say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from edgeprune.errors import EdgepruneError, ModelError, UsageError
from edgeprune.models.compiled import compile_like
from edgeprune.models.graph import flat, ordered_nodes
from edgeprune.models.rebuild import copy_weights, rebuild
from edgeprune.models.shapes import Shape, shape_of
from edgeprune.models.types import Layer, Tensor
from edgeprune.models.verify import check_same, is_looked_up

if TYPE_CHECKING:
    import tf_keras

# One shape without the batch; or one for each input, in order or by name: ``{"image": (224, 224, 3)}``.
InputShapes: TypeAlias = Sequence[int] | Sequence[Sequence[int]] | Mapping[str, Sequence[int]]

# Examples by number of axes: sequences of features, images, films. A single open size is a length.
_EXAMPLES = {2: (100, 40), 3: (224, 224, 3), 4: (16, 112, 112, 3)}
_LENGTH, _WAVEFORM, _WORDS = 100, 16_000, 128
# What open sizes are tried with where nothing decides them: [images, sequences], the first that a model can take.
_SAMPLES = ((96, 32), (224, 128), (512, 1024), (1024, 16_000))


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The inputs of a model in order: names, shapes without the batch, and whether they are numbers of words."""

    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    words: tuple[bool, ...]

    @classmethod
    def of(cls, model: tf_keras.Model) -> Inputs:
        return cls(
            tuple(model.input_names),
            tuple(map(shape_of, model.inputs)),
            tuple(not tensor.dtype.is_floating or is_looked_up(tensor, model) for tensor in model.inputs),
        )

    @property
    def open(self) -> dict[str, Shape]:
        """The inputs with an open size, by name."""
        return {name: shape for name, shape in zip(self.names, self.shapes, strict=True) if None in shape}

    @property
    def option(self) -> str:
        """An example of the option that gives all open sizes."""
        return " ".join(f"--input-shape {text}" for text in self._examples())

    def _examples(self) -> Iterator[str]:
        for name, shape, words in zip(self.names, self.shapes, self.words, strict=True):
            if None in shape:
                sizes = ",".join(map(str, example(shape, words)))
                yield sizes if len(self.names) == 1 else f"'{name}={sizes}'"

    def listed(self, only_open: bool = True) -> str:
        """The inputs by name, for messages: ``'image' (None, None, 3)``."""
        named = self.open if only_open else dict(zip(self.names, self.shapes, strict=True))
        return ", ".join(f"{name!r} {shape}" for name, shape in named.items())

    def filled(self, given: InputShapes | None) -> tuple[Shape, ...]:
        """The shapes, with the open sizes that ``given`` has filled in.

        Raises:
            UsageError: other inputs, another number of axes, sizes below 1, or other ones than the model fixes.
        """
        named = self._by_name(given)
        return tuple(
            self._agreed(name, shape, named[name]) if name in named else shape
            for name, shape in zip(self.names, self.shapes, strict=True)
        )

    def _by_name(self, given: InputShapes | None) -> dict[str, tuple[int, ...]]:
        if given is None:
            return {}
        if isinstance(given, Mapping):
            if unknown := [name for name in given if name not in self.names]:
                raise self._refused(f"The model has no input {unknown[0]!r}.")
            return {name: _sizes(shape) for name, shape in given.items()}
        shapes = [_sizes(given)] if all(isinstance(size, int) for size in given) else [_sizes(one) for one in given]
        for names in (self.names, tuple(self.open)):  # one shape for each input, or for each that needs one
            if len(names) == len(shapes):
                return dict(zip(names, shapes, strict=True))
        raise self._refused(f"There are {len(shapes)} input shapes, and the model has {len(self.names)} inputs.")

    def _agreed(self, name: str, shape: Shape, given: tuple[int, ...]) -> tuple[int, ...]:
        if len(given) != len(shape) or any(own not in (None, size) for own, size in zip(shape, given, strict=True)):
            raise self._refused(f"The input shape {given} does not fit the input {name!r} {shape}.")
        return given

    def _refused(self, what: str) -> UsageError:
        all_of_them = self.listed(only_open=False)
        if not self.open:
            return UsageError(what, expected=f"the model's own shapes: {all_of_them}.", fix="leave --input-shape out.")
        return UsageError(
            what, expected=f"shapes without the batch for: {all_of_them}; None is any size.", fix=f"give {self.option}."
        )


def _sizes(shape: object) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else (shape,)
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise UsageError(
            f"The input shape {shape!r} is not made of whole numbers above 0.",
            expected="every size but the batch, such as 224,224,3.",
        )
    return sizes


def parse(texts: Sequence[str]) -> InputShapes | None:
    """What stands behind ``--input-shape``: ``224,224,3``, or ``NAME=224,224,3``, once or more.

    Raises:
        UsageError: no sizes; or some shapes with a name and some without.
    """
    named: dict[str, tuple[int, ...]] = {}
    unnamed = []
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        try:
            shape = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            raise UsageError(
                f"--input-shape {text} is no list of sizes.",
                expected="every size but the batch: 224,224,3, or NAME=224,224,3 for one of several inputs.",
            ) from None
        if equals:
            named[name] = shape
        else:
            unnamed.append(shape)
    if named and unnamed:
        raise UsageError(
            "Some input shapes have a name, and some do not.",
            expected="--input-shape NAME=SIZES for each, or no names.",
        )
    return named or unnamed or None


def example(shape: Shape, words: bool) -> tuple[int, ...]:
    """A usual size of such an input: (224, 224, 3) for (None, None, 3); 128 numbers of words; 16,000 of a waveform."""
    if len(shape) == 1 or shape[1:] == (1,):
        length = _WORDS if words else _WAVEFORM
        usual = (length,) * len(shape)
    elif shape.count(None) == 1 or len(shape) not in _EXAMPLES:
        usual = (_LENGTH,) * len(shape)
    else:
        usual = _EXAMPLES[len(shape)]
    return tuple(mine if size is None else size for size, mine in zip(shape, usual, strict=True))


def with_sizes(model: tf_keras.Model, shapes: Sequence[Shape]) -> tf_keras.Model:
    """The model with inputs of these shapes, verified to compute the same; itself if it has them already.

    Args:
        model: flat and functional.
        shapes: without the batch, one per input, that agree with the model's own where those are fixed.

    Returns:
        A model of new layers with the same weights, compiled alike.

    Raises:
        ModelError: a layer cannot take them, such as an image that is smaller than its windows; or the outputs differ.
    """
    if tuple(shapes) == Inputs.of(model).shapes:
        return model
    sized = _rebuilt(model, shapes)
    copy_weights(model, sized)
    check_same(model, sized, "its inputs have fixed sizes")
    compile_like(sized, model)
    return sized


def _rebuilt(model: tf_keras.Model, shapes: Sequence[Shape]) -> tf_keras.Model:
    import tensorflow as tf
    import tf_keras

    by_name = dict(zip(model.input_names, shapes, strict=True))

    def emit_input(layer: Layer) -> Tensor:
        batch = layer.output.shape[0]
        return tf_keras.Input(by_name[layer.name], batch, dtype=layer.output.dtype, name=layer.name)

    try:
        sized = rebuild(model, emit_input=emit_input)
    except (ValueError, TypeError, IndexError, tf.errors.OpError) as error:
        raise _too_small(model, shapes, str(error)) from error
    for node in ordered_nodes(sized):
        if any(0 in shape_of(tensor) for tensor in flat(node.outputs)):
            raise _too_small(model, shapes, f"nothing is left of it in the layer {node.layer.name!r}")
    return sized


def _too_small(model: tf_keras.Model, shapes: Sequence[Shape], said: str) -> ModelError:
    reason = " ".join(said.split()).split(" for '{{")[0][:300].rstrip(".")
    return ModelError(
        f"The model {model.name!r} cannot take inputs of the shape {', '.join(map(str, shapes))}: {reason}.",
        expected="a size that all its layers can work on",
        fix="give the size that the model was trained for, in the data or with --input-shape; windows without padding "
        "need larger inputs, and branches that meet again often a multiple of 32.",
    )


def for_a_look(model: tf_keras.Model) -> tuple[tf_keras.Model, str | None]:
    """A model of fixed sizes to look at, where nothing decides them; and a sentence that says which were taken.

    Open sizes are 96 in images and 32 in sequences, or the next larger ones that the model can take.

    Returns:
        (the model itself, None) if its inputs are fixed.

    Raises:
        ModelError: it can take none of the sizes.
    """
    inputs = Inputs.of(model)
    if not inputs.open:
        return model, None
    error: EdgepruneError | None = None
    for image, sequence in _SAMPLES:
        shapes = [
            tuple((image if shape.count(None) > 1 else sequence) if size is None else size for size in shape)
            for shape in inputs.shapes
        ]
        try:
            sized = with_sizes(model, shapes)
        except ModelError as refused:
            error = error or refused
            continue
        taken = ", ".join("x".join(map(str, shape)) for shape in shapes)
        return sized, (
            f"The model takes inputs of any size ({inputs.listed()}); these figures are for {taken}. "
            f"To choose: {inputs.option}"
        )
    assert error is not None
    raise still_open(inputs) from error


def still_open(inputs: Inputs) -> ModelError:
    """The error where sizes are needed, and nothing gives them."""
    return ModelError(
        f"The model takes inputs of any size: {inputs.listed()}.",
        expected="sizes: files for boards are built for fixed ones.",
        fix=f"name the size, for example {inputs.option} (in Python input_shape=...).",
    )
