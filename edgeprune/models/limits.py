"""What a model file from a stranger may hold, and what it may ask for, at most.

The bounds lie far above what models have: of the architectures of keras.applications, the largest description takes
1.3 MB and has 1,100 layers, and trained weights hardly compress. A file beyond a bound is refused before the memory or
the time is spent.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from edgeprune._tensorflow import keras3_if_loaded
from edgeprune.errors import ModelError
from edgeprune.models.types import AnyModel, ConfigValue

# A description, as text: its bytes, its values, and how deep they are nested.
CONFIG_BYTES = 16 << 20
VALUES = 2_000_000
DEPTH = 200
# Calls of layers; those of a nested model count for each of its own calls.
LAYER_CALLS = 10_000
# How often Keras repeats operations for one layer: for each step of an unrolled recurrent layer, and of an UpSampling.
REPEATS = 10_000
# Members of an archive, and groups, datasets and attributes of an HDF5 file.
MEMBERS = 10_000
OBJECTS = 200_000
# How far content may expand: pruned weights, compressed by their author, may be a fiftieth. Small files may do more.
EXPANSION = 100
SMALL_BYTES = 64 << 20
# Variables take more bytes than the weights in the file: float64 where those are float16, and states of their own.
VARIABLES = 4
# Numbers that one layer puts out per sample: 1 GiB in float32.
TENSOR_VALUES = 1 << 28


def refused(path: object, what: str) -> ModelError:
    """The error for a file that holds what Keras never writes, and what could do harm."""
    return ModelError(
        f"{path} {what}.",
        expected="a file as Keras writes it",
        fix="get it from its author again, saved with model.save('NAME.keras'); do not open it elsewhere unless you "
        "trust its source.",
    )


def shown(name: str) -> str:
    """A name out of a file, for messages: quoted, and not longer than a line."""
    return repr(name if len(name) < 100 else f"{name[:50]}…{name[-40:]}")


def most_bytes(stored: int) -> int:
    """How many bytes may come out of ``stored`` ones."""
    return max(SMALL_BYTES, EXPANSION * stored)


def parse_json(text: str | bytes, path: object, what: str) -> ConfigValue:
    """The value of a JSON text that a model file holds.

    Args:
        path: of the file, for messages.
        what: the text is, for messages.

    Raises:
        ModelError: it is larger, deeper or less clear than any that Keras writes.
        ValueError: it is no JSON, or no UTF-8.
    """
    if len(text) > CONFIG_BYTES:
        raise refused(path, f"has {len(text) / 1e6:,.0f} MB of {what}, where the largest models have 2")
    if isinstance(text, bytes):
        text = text.decode()
    if sum(map(text.count, ",[{")) > VALUES:
        raise refused(path, f"has more than {VALUES:,} values in its {what}")

    def unique(pairs: list[tuple[str, ConfigValue]]) -> dict[str, ConfigValue]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise refused(path, f"has the same key twice in its {what}")
        return found

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise _too_deep(path, what) from None
    level = [value]
    for _ in range(DEPTH):
        level = [item for part in level if isinstance(part, dict | list) for item in _items(part)]
    if level:
        raise _too_deep(path, what)
    return value


def _too_deep(path: object, what: str) -> ModelError:
    return refused(path, f"has more than {DEPTH} levels in its {what}")


def _items(part: dict[str, ConfigValue] | list[ConfigValue]) -> Iterable[ConfigValue]:
    return part.values() if isinstance(part, dict) else part


def check_calls(config: ConfigValue, path: object) -> None:
    """Raise where building a model would call more layers than any model has (models in models multiply).

    Raises:
        ModelError: as above.
    """
    calls = _calls(config)
    if calls > LAYER_CALLS:
        raise refused(path, f"calls layers {calls:,} times, where the largest models do 2,000 times")
    layers = list(_dicts(config))
    unrolls = any(layer.get("unroll") for layer in layers)
    for layer in layers:
        for key in ("size", *_LENGTHS) if unrolls else ("size",):
            sizes = layer.get(key)
            for size in sizes if isinstance(sizes, list) else [sizes]:
                if isinstance(size, int | float) and size > REPEATS:
                    raise refused(path, f"has {key} = {size:,} where Keras makes an operation for each")


def _dicts(config: ConfigValue) -> Iterator[ConfigValue]:
    """All parts of a configuration that are dicts."""
    waiting = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
        waiting += _items(part) if isinstance(part, dict | list) else ()


def _calls(config: ConfigValue) -> int:
    if isinstance(config, list):
        return sum(map(_calls, config))
    if not isinstance(config, dict):
        return 0
    nodes = config.get("inbound_nodes")
    times = len(nodes) if isinstance(nodes, list) and nodes else 1
    layers = sum(len(config[key]) for key in _LAYERS if isinstance(config.get(key), list))
    return times * (layers + sum(_calls(value) for key, value in config.items() if key != "inbound_nodes"))


# Where the lengths of sequences stand, which unrolled recurrent layers repeat their cell for.
_LENGTHS = ("batch_shape", "batch_input_shape", "shape", "n", "target_shape")
# Under these keys a configuration lists layers, and cells of recurrent ones.
_LAYERS = ("layers", "cells")


@contextlib.contextmanager
def calls_that_come(path: object) -> Iterator[None]:
    """Refuse a description of tf_keras in which a call waits for one that never comes: tf_keras would go round for ever
    (its ``reconstruct_from_config``). Keras 3 notices by itself.

    Args:
        path: of the file, for messages.

    Raises:
        ModelError: naming a layer that waits.
    """
    from tf_keras.src.engine import functional

    rebuild = functional.reconstruct_from_config

    def checked(
        config: dict[str, ConfigValue], custom_objects: object = None, created_layers: dict[str, AnyModel] | None = None
    ) -> object:
        made = created_layers or _Made()
        return rebuild({**config, "layers": _Rounds(config["layers"], made, path)}, custom_objects, made)

    functional.reconstruct_from_config = checked
    try:
        yield
    finally:
        functional.reconstruct_from_config = rebuild


class _Made(dict[str, "AnyModel"]):
    """Layers by name. tf_keras replaces a dict that is false, and this one has to be seen while it is filled."""

    def __bool__(self) -> bool:
        return True


class _Rounds(list["ConfigValue"]):
    """The layers of a model, which tf_keras goes through once to make them, and then until all are called."""

    def __init__(self, layers: Iterable[ConfigValue], made: Mapping[str, AnyModel], path: object) -> None:
        super().__init__(layers)
        self._made = made
        self._path = path
        self._at_first: dict[str, int] = {}
        self._before: dict[str, int] = {}

    def __iter__(self) -> Iterator[ConfigValue]:
        calls = {name: len(layer._inbound_nodes) for name, layer in self._made.items()}
        if calls and calls == self._before:
            waiting = (
                layer["name"]
                for layer in super().__iter__()
                if calls[layer["name"]] - self._at_first[layer["name"]] < len(layer["inbound_nodes"])
            )
            raise waits_for_ever(self._path, next(waiting))
        self._at_first, self._before = self._at_first or calls, calls
        return super().__iter__()


def waits_for_ever(path: object, layer: str) -> ModelError:
    """The error for a layer that is called on the output of a call that is never made."""
    return refused(path, f"calls the layer {shown(layer)} on what no other layer gives")


_Take = Callable[[Sequence[int | None], object], None]
_budget: contextvars.ContextVar[_Take | None] = contextvars.ContextVar("budget", default=None)


@contextlib.contextmanager
def variables_within(held: int, path: object) -> Iterator[None]:
    """Refuse variables, of either Keras, beyond what a file's weights can fill, before their memory is taken.

    Args:
        held: bytes of the weights in the file.
        path: of the file, for messages.

    Raises:
        ModelError: a layer wants more.
    """
    import tensorflow as tf

    left = SMALL_BYTES + VARIABLES * held

    def take(shape: Sequence[int | None], dtype: object) -> None:
        nonlocal left
        left -= math.prod(size or 0 for size in shape) * (tf.as_dtype(dtype).size or 1)
        if left < 0:
            raise refused(path, f"describes layers with far more weights than its {held:,} bytes of weights can fill")

    def creator(make: Callable[..., object], **arguments: ConfigValue) -> object:
        if arguments.get("shape") is not None:
            take(tf.TensorShape(arguments["shape"]).as_list(), arguments.get("dtype") or "float32")
        return make(**arguments)

    if keras3_if_loaded():  # a Keras 2 file gets no class of Keras 3: names that tf_keras does not have are refused
        _count_variables()
    token = _budget.set(take)
    try:
        with tf.variable_creator_scope(creator):
            yield
    finally:
        _budget.reset(token)


@functools.cache
def _count_variables() -> None:
    """Let the variables of Keras 3 ask the budget: it computes their values before TensorFlow hears of them."""
    import keras

    make = keras.Variable.__init__

    @functools.wraps(make)
    def counted(
        self: object,
        initializer: object,
        shape: ConfigValue = None,
        dtype: object = None,
        *args: object,
        **kwargs: object,
    ) -> None:
        take = _budget.get()
        if take is not None and shape is not None:
            take([shape] if isinstance(shape, int) else tuple(shape), dtype or keras.config.floatx())
        make(self, initializer, shape, dtype, *args, **kwargs)

    keras.Variable.__init__ = counted


def check_tensors(model: AnyModel, path: object) -> None:
    """Raise where a layer's output is larger than memory: models run once while they are loaded.

    Raises:
        ModelError: naming the layer.
    """
    import tensorflow as tf

    for layer in model._flatten_layers():
        for node in layer._inbound_nodes:
            for tensor in tf.nest.flatten(node.outputs if hasattr(node, "outputs") else node.output_tensors):
                values = math.prod(size or 1 for size in tensor.shape)
                if values > TENSOR_VALUES:
                    raise refused(path, f"has a layer {layer.name!r} that puts out {values:,} numbers at once")
