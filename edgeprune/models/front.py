"""The part of a model that looks words up, cut off: it stays on the host, and the file on the board takes its numbers.

TensorFlow Lite has no strings in its integer kernels, no tables that a board can load, and no bincount: what Keras'
layers for text and categories compute comes before the model. Whatever these layers need goes with them, up to the
inputs; the rest becomes a model of its own, which takes what they made.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeprune._tensorflow import import_tf
from edgeprune.errors import DataError, ModelError
from edgeprune.models.graph import flat
from edgeprune.models.shapes import Shape
from edgeprune.models.types import AnyModel, Arguments, Operation, Structure, Value
from edgeprune.models.verify import TOLERANCE, largest_difference
from edgeprune.models.walk import Dialect, LayerCall, walk

# Layers that no operator of TensorFlow Lite stands for. Discretization is not among them: it becomes BUCKETIZE.
TABLES = {"TextVectorization", "StringLookup", "IntegerLookup"}
HOST = {*TABLES, "Hashing", "HashedCrossing", "CategoryEncoding"}
CHUNK = 256  # samples that the host part takes at once


@dataclasses.dataclass(frozen=True)
class _Call:
    operation: Operation
    args: tuple[Structure, ...]
    kwargs: Arguments
    outputs: list[Value]

    @property
    def tensors(self) -> list[Value]:
        return [value for value in flat((self.args, self.kwargs)) if hasattr(value, "dtype")]


@dataclasses.dataclass(frozen=True)
class Front:
    """The part on the host: a Keras model from the inputs of the whole to those of the rest.

    Attributes:
        model: of Keras 2 or 3; its outputs are the inputs of the rest, in their order.
        names, shapes, dtypes: of its inputs, without the batch; dtypes as NumPy names, or ``string``.
        layers: the layers in it that boards have no operators for.
    """

    model: AnyModel
    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    layers: tuple[str, ...]

    @classmethod
    def of(cls, model: AnyModel) -> Front:
        inputs = model.inputs
        layers = (layer.name for layer in model.layers if type(layer).__name__ in HOST)
        dtypes = tuple(_dtype(tensor) for tensor in inputs)
        return cls(model, _names(model), tuple(tuple(t.shape)[1:] for t in inputs), dtypes, tuple(layers))

    @property
    def takes_text(self) -> bool:
        return "string" in self.dtypes

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What the rest takes, for samples [n, ...] of every input. Lengths that are open are the longest of them."""
        import tensorflow as tf

        tensors = [
            tf.constant(array if dtype == "string" else array.astype(dtype))
            for array, dtype in zip(inputs, self.dtypes, strict=True)
        ]
        return [np.asarray(output) for output in flat(self.model(_structured(tensors), training=False))]

    def run_all(self, inputs: Sequence[np.ndarray], lengths: Sequence[Shape] | None = None) -> list[np.ndarray]:
        """As :meth:`run`, in chunks; open lengths are ``lengths``, or the longest of all samples, filled up with zeros.

        Raises:
            DataError: a value that the layers refuse, such as a word outside a vocabulary without a place for others.
        """
        import tensorflow as tf

        made = []
        for start in range(0, len(inputs[0]), CHUNK):
            try:
                made.append(self.run([array[start : start + CHUNK] for array in inputs]))
            except (ValueError, tf.errors.OpError) as error:
                said = " ".join(str(error).split())[:300]
                raise DataError(
                    f"The layers {', '.join(self.layers)} refuse samples {start} to {start + CHUNK - 1}: {said}",
                    expected="samples that the whole Keras model takes",
                    fix="call the Keras model on these samples to find the one, and repair or remove it.",
                ) from error
        if lengths is None:
            lengths = [tuple(max(part[i].shape[1:] for part in made)) for i in range(len(made[0]))]
        return [np.concatenate([fit(part[i], shape) for part in made]) for i, shape in enumerate(lengths)]

    def fingerprint(self) -> bytes:
        """Of the layers' settings and vocabularies: what they make of known and unknown words tells the rest."""
        words, numbers = _vocabulary(self.model, None)
        digest = hashlib.sha256(json.dumps([self.model.get_config(), words, numbers], default=str).encode())
        for array in self.run(probes(self)):
            digest.update(array.tobytes())
        return digest.digest()

    def save(self, path: Path) -> None:
        """Write it as a .keras file of its own Keras."""
        self.model.save(path)


def fit(array: np.ndarray, shape: Sequence[int | None]) -> np.ndarray:
    """Samples [n, ...] cut, or filled up with zeros at the end, to ``shape``; None leaves a size as it is."""
    for axis, size in enumerate(shape, 1):
        if size is not None and array.shape[axis] != size:
            array = array.take(range(min(size, array.shape[axis])), axis)
            array = np.pad(array, [(0, size - array.shape[axis] if at == axis else 0) for at in range(array.ndim)])
    return array


def load_front(path: Path, *, trust: bool = False) -> Front:
    """The part on the host that :meth:`Front.save` wrote."""
    import_tf()
    from edgeprune.models.formats import read_model_file

    if read_model_file(path).is_keras3:
        from edgeprune.models.keras3_file import import_keras3

        return Front.of(import_keras3().models.load_model(path, compile=False, safe_mode=not trust))
    import tf_keras

    return Front.of(tf_keras.models.load_model(path, compile=False, safe_mode=not trust))


def has_host_layers(model: AnyModel) -> bool:
    """Whether a model, or one in it, has layers that boards have no operators for."""
    return any(
        type(layer).__name__ in HOST or (hasattr(layer, "layers") and has_host_layers(layer)) for layer in model.layers
    )


def cut(model: AnyModel, dialect: Dialect) -> tuple[Front | None, AnyModel]:
    """Cut a functional model behind the layers that boards have no operators for.

    Args:
        model: of the Keras that ``dialect`` is for; models in it are opened.

    Returns:
        (the part on the host, the rest), of the layers of ``model``, verified to compute together what it does; or
        (None, ``model``) where nothing is to be cut.

    Raises:
        ModelError: what comes before a lookup was trained, nothing is left behind it, its layers run code of the user,
            or make ragged or sparse tensors.
    """
    if not has_host_layers(model):
        return None, model
    keras = _keras_of(model)
    graph = dialect.graph(model, None)
    calls: list[_Call] = []

    def record(call: LayerCall) -> Structure:
        kwargs = dict(call.kwargs) if call.training is None else {**call.kwargs, "training": call.training}
        outputs = call.operation(*call.args, **kwargs)
        calls.append(_Call(call.operation, call.args, kwargs, flat(outputs)))
        return outputs

    reference, names = dialect.structure(graph)[0], dialect.input_names(graph)
    inputs = [_input(keras, tensor, name) for tensor, name in zip(reference, names, strict=True)]
    outputs = walk(dialect, graph, inputs, record)
    host = _host_calls(calls)
    _refuse(model, calls, host, flat(outputs))
    made = {id(tensor) for call in calls if id(call) in host for tensor in call.outputs}
    rest = [call for call in calls if id(call) not in host]
    read = {id(tensor) for call in rest for tensor in call.tensors} | {id(tensor) for tensor in flat(outputs)}
    kept = {id(tensor): (tensor, name) for tensor, name in zip(inputs, names, strict=True) if id(tensor) in read}
    cuts = {
        id(tensor): (tensor, _name_behind(call, tensor, calls, inputs, names, [name for _, name in kept.values()]))
        for call in calls
        for tensor in call.outputs
        if id(tensor) in made & read
    }
    ends = {**kept, **cuts}
    front = Front.of(keras.Model(_structured(inputs), [tensor for tensor, _ in ends.values()], name="on_the_host"))
    made_of_probes = front.run(probes(front))
    new = {
        key: _input(keras, tensor, name, _shape(tensor, array))
        for (key, (tensor, name)), array in zip(ends.items(), made_of_probes, strict=True)
    }
    behind = _replay(keras, rest, dict(new), outputs, list(new.values()), model.name)
    _verify(model, front, behind, dialect)
    return front, behind


def _host_calls(calls: Sequence[_Call]) -> set[int]:
    """Ids of the calls that stay on the host: those of such layers or on strings, and all that they take their inputs
    from."""
    makers = {id(tensor): call for call in calls for tensor in call.outputs}
    waiting = [
        call
        for call in calls
        if type(call.operation).__name__ in HOST
        or any(_dtype(tensor) == "string" for tensor in (*call.tensors, *call.outputs))
    ]
    host: set[int] = set()
    while waiting:
        call = waiting.pop()
        if id(call) not in host:
            host.add(id(call))
            waiting += [makers[id(tensor)] for tensor in call.tensors if id(tensor) in makers]
    return host


def _refuse(model: AnyModel, calls: Sequence[_Call], host: set[int], outputs: Sequence[Value]) -> None:
    ours = [call for call in calls if id(call) in host]
    tables = [call.operation for call in ours if type(call.operation).__name__ in HOST]
    named = ", ".join(dict.fromkeys(f"{layer.name!r} ({type(layer).__name__})" for layer in tables))
    trained = [call.operation.name for call in ours if getattr(call.operation, "trainable_weights", None)]
    if trained:
        raise ModelError(
            f"The model {model.name!r} looks up what trained layers compute: {named} after {', '.join(trained[:3])}. "
            "Boards have no operators for it, and the host cannot run it before the file.",
            expected="lookups at the inputs only, where they can be cut off",
            fix="save the model without them: tf_keras.Model(model.inputs, OUTPUT OF THE LAYER BEFORE); and look up "
            "what the file gives.",
        )
    if len(ours) == len(calls) or any(id(tensor) in {id(t) for c in ours for t in c.outputs} for tensor in outputs):
        raise ModelError(
            f"The model {model.name!r} has an output that only {named} lead to.",
            expected="layers with weights behind the lookups, for a board to run",
            fix="name the model that takes these numbers.",
        )
    for call in ours:
        for what in ("standardize", "split"):
            if callable(getattr(call.operation, f"_{what}", None)):
                raise ModelError(
                    f"The layer {call.operation.name!r} ({type(call.operation).__name__}) has a function of its own as "
                    f"{what}, which cannot be kept with the file.",
                    expected="one of Keras' own names, or None",
                    fix=f"set {what}=None in the layer, and do what the function does to the texts in the data and on "
                    "the device.",
                )
        if any(_is_composite(tensor) for tensor in call.outputs):
            raise ModelError(
                f"The layer {call.operation.name!r} ({type(call.operation).__name__}) makes ragged or sparse tensors.",
                expected="dense ones: boards know no others",
                fix="build the layer with ragged=False, sparse=False, and output_sequence_length where it makes words.",
            )


def _is_composite(tensor: Value) -> bool:
    return (
        type(tensor).__name__ in ("RaggedKerasTensor", "SparseKerasTensor")
        or getattr(tensor, "sparse", False) is True
        or getattr(tensor, "ragged", False) is True
    )


def _name_behind(
    call: _Call, tensor: Value, calls: Sequence[_Call], inputs: Sequence[Value], names: Sequence[str], taken: list[str]
) -> str:
    """The name of the input in the rest: that of the only input that leads to it, else that of the layer."""
    makers = {id(made): maker for maker in calls for made in maker.outputs}
    waiting, sources = [tensor], set()
    while waiting:
        maker = makers.get(id(waiting[-1]))
        sources |= {id(waiting.pop())} if maker is None else set()
        if maker is not None:
            waiting = [*waiting[:-1], *maker.tensors]
    found = [name for one, name in zip(inputs, names, strict=True) if id(one) in sources]
    uses = sum(id(one) in sources for maker in calls for one in maker.tensors)
    name = found[0] if len(found) == 1 and uses == 1 and found[0] not in taken else f"{call.operation.name}_numbers"
    number = call.outputs.index(tensor) if len(call.outputs) > 1 else 0
    return f"{name}_{number}" if number else name


def _replay(
    keras: Value, calls: Sequence[_Call], known: dict[int, Value], outputs: Structure, inputs: list[Value], name: str
) -> AnyModel:
    """A model of the same layers, called as they were, on other inputs."""
    import tensorflow as tf

    def new(value: Value) -> Value:
        return known.get(id(value), value)

    for call in calls:
        args, kwargs = tf.nest.map_structure(new, (call.args, call.kwargs))
        known |= zip(map(id, call.outputs), flat(call.operation(*args, **kwargs)), strict=True)
    return keras.Model(_structured(inputs), tf.nest.map_structure(new, outputs), name=name)


def _structured(tensors: Sequence[Value]) -> Structure:
    return tensors[0] if len(tensors) == 1 else list(tensors)


def _keras_of(model: AnyModel) -> Value:
    import tf_keras

    if isinstance(model, tf_keras.Model):
        return tf_keras
    from edgeprune.models.keras3_file import import_keras3

    return import_keras3()


def _input(keras: Value, tensor: Value, name: str, shape: Shape | None = None) -> Value:
    shape = tuple(tensor.shape)[1:] if shape is None else shape
    return keras.Input(shape, tensor.shape[0], dtype=_dtype(tensor), name=name)


def _shape(tensor: Value, array: np.ndarray) -> Shape:
    """The shape of a tensor as Keras has it, unless that is not true: Keras 3 keeps an axis that bags of words lose."""
    shape = tuple(tensor.shape)[1:]
    real = array.shape[1:]
    agrees = len(shape) == len(real) and all(size in (None, found) for size, found in zip(shape, real, strict=True))
    return shape if agrees else real


def _dtype(tensor: Value) -> str:
    return str(getattr(tensor.dtype, "name", tensor.dtype))


def _names(model: AnyModel) -> tuple[str, ...]:
    names = getattr(model, "input_names", None)
    return tuple(names or (tensor._keras_history.operation.name for tensor in model.inputs))


def _verify(model: AnyModel, front: Front, rest: AnyModel, dialect: Dialect) -> None:
    """Compare both parts with the whole on words that it knows and on others."""
    import tensorflow as tf

    inputs = probes(front)
    structure = dialect.graph(model, None)
    given = [tf.constant(x) for x in inputs]
    nested = structure._inputs_struct if hasattr(structure, "_inputs_struct") else structure._nested_inputs
    expected = model(tf.nest.pack_sequence_as(nested, given), training=False)
    actual = rest(_structured([tf.constant(x) for x in front.run(inputs)]), training=False)
    difference = largest_difference(flat(expected), flat(actual))
    if not difference <= TOLERANCE:
        raise ModelError(
            f"The model {model.name!r} computes something else once it is cut behind {', '.join(front.layers)}: its "
            f"outputs differ by {difference:.1e} of the largest.",
            expected=f"at most {TOLERANCE:.0e}",
            fix="save the part behind the lookups as a model of its own; and please report it.",
        )


_ODD_WORDS = ("", " ", "zzz unknown zzz", "Ünïcødé ÄÖ ß", "Tab\tand\nline", "Don't, stop!  Now?", "UPPER lower")


def probes(front: Front, samples: int = 24) -> list[np.ndarray]:
    """Samples for every input: words of the vocabularies, and texts that are hard to split; numbers that are known."""
    words, numbers = _vocabulary(front.model)
    generator = np.random.default_rng(0)
    made = []
    for shape, dtype in zip(front.shapes, front.dtypes, strict=True):
        size = (samples, *(one or 4 for one in shape))
        if dtype != "string":
            some = generator.choice(numbers, size) if numbers else generator.integers(0, 2, size)
            made.append(some.astype(dtype))
            continue
        texts = words if _closed(front.model) and words else [*words, *_ODD_WORDS]
        single = _closed(front.model)
        flat_texts = [
            texts[i] if single or i < len(texts) else " ".join(generator.choice(texts, 5))
            for i in (n % len(texts) if single else n for n in range(int(np.prod(size))))
        ]
        made.append(np.array(flat_texts, str).reshape(size))
    return made


def _closed(model: AnyModel) -> bool:
    """Whether a lookup refuses what its vocabulary does not hold."""
    return any(getattr(layer, "num_oov_indices", 1) == 0 for layer in model.layers)


def _vocabulary(model: AnyModel, most: int | None = 200) -> tuple[list[str], list[int]]:
    words: list[str] = []
    numbers: list[int] = []
    for layer in model.layers:
        kind = type(layer).__name__
        if kind not in TABLES:
            continue
        if kind == "TextVectorization":
            words += [str(word) for word in layer.get_vocabulary()[:most]]
        else:
            known = layer.get_vocabulary(include_special_tokens=False)[:most]
            if kind == "IntegerLookup":
                numbers += [int(number) for number in known]
            else:
                words += [str(word) for word in known]
    return words, numbers
