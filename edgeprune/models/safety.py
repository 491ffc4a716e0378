"""What would be run or imported when a model file is loaded, found in its configuration before anything is built.

What is trusted without ``trust``: the code of TensorFlow and tf_keras themselves, called with the file's numbers; and
classes and functions that the running program has registered. What is not:

- Lambda layers and pickled lambdas, in every format, at any depth. tf_keras checks them in ``.keras`` files only, and
  turns the bytes in ``.h5`` files and SavedModels into running code without asking.
- Classes and functions of other modules: a ``.keras`` file can name any module, and tf_keras imports it (the hole that
  was CVE-2025-1550 in Keras 3). These are refused with ``trust`` too; the program registers what it wants to load.
- TensorFlow operations beyond arithmetic on tensors: a layer ``TFOpLambda`` can name every public TensorFlow symbol,
  ``tf.io.write_file`` included. The same for raw graph operations (``TensorFlowOpLayer``).
- Vocabularies that a layer would read from a file which the model only names.

The graph code in a SavedModel is never loaded: its layers are built from their configuration, and only its variables
are read. What its functions hold is looked at all the same (:mod:`edgeprune.models.saved_model`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Literal

from edgeprune.errors import ModelError
from edgeprune.files import JsonObject
from edgeprune.models.types import ConfigValue

_CODE = {
    "Lambda": "Python code",
    "__lambda__": "Python code",
    "TensorFlowOpLayer": "raw graph operations",
    "ClassMethod": "a call by name into TensorFlow",
    "InstanceMethod": "a call by name into TensorFlow",
    "InstanceProperty": "a call by name into TensorFlow",
}
# So much of a name is shown in a message.
_NAME = 100
# Marks of structure that Keras writes between its objects: they hold data only.
_STRUCTURE = {"__tuple__", "__ellipsis__", "__bytes__", "__tensor__", "__numpy__", "TensorShape", "TypeSpec"}
_OP_LAYERS = {"TFOpLambda", "SlicingOpLambda"}
_OP_SPACES = {"__operators__", "math", "linalg", "nn", "image", "signal", "bitwise", "random", "dtypes"}
_OP_WORDS = """
    argsort batch_to_space batch_to_space_nd bitcast boolean_mask broadcast_dynamic_shape broadcast_static_shape
    broadcast_to cast clip_by_norm clip_by_value concat constant conv convert_to_tensor cumsum div dynamic_partition
    dynamic_stitch einsum ensure_shape expand_dims extract_volume_patches eye fill floor_div gather gather_nd
    identity identity_n linspace meshgrid norm one_hot ones ones_like pad parallel_stack range rank realdiv repeat
    reshape reverse reverse_sequence roll scatter_nd searchsorted sequence_mask shape shape_n size slice sort
    space_to_batch space_to_batch_nd split squeeze stack stop_gradient strided_slice tensor_scatter_nd_add
    tensor_scatter_nd_max tensor_scatter_nd_min tensor_scatter_nd_sub tensor_scatter_nd_update tensordot tile
    to_float to_int32 transpose truncatediv truncatemod unique unique_with_counts unravel_index unstack where zeros
    zeros_like
"""
_OP_NAMES = frozenset(_OP_WORDS.split())
# Not the whole of tf.quantization: it has functions that read and write files.
_OP_SYMBOLS = {"quantization.fake_quant_with_min_max_vars"}
_KERAS = {"keras", "tf_keras", "builtins"}
# Where tf_keras looks names up; "schedules" and the like are one level down.
_SPACES = """
    layers layers.experimental layers.experimental.preprocessing initializers regularizers constraints
    activations losses metrics mixed_precision optimizers optimizers.schedules optimizers.legacy
"""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing in a file that tf_keras alone does not cover.

    Attributes:
        kind: ``code`` runs while loading, ``operation`` is a TensorFlow symbol beyond tensor arithmetic, ``file`` is
            read while loading, ``class`` is a class or function that tf_keras does not have.
        layer: the name of the layer that holds it.
        name: of the class, function, symbol or file.
        module: for a class: the module that the file names for it, if any.
    """

    kind: Literal["code", "operation", "file", "class"]
    layer: str
    name: str
    module: str | None = None


def refuse_unsafe(path: object, config: ConfigValue, *, trust: bool) -> None:
    """Raise for the first thing in a model's configuration that must not, or cannot, be built.

    Args:
        path: named in messages.
        config: the model's configuration, or a part of it.
        trust: let code and operations run. Classes must be registered all the same: tf_keras would not find them.

    Raises:
        ModelError: naming the layer.
    """
    for finding in find_unsafe(config):
        if finding.kind == "class":
            raise _unknown_class(path, finding)
        if not trust and finding.kind == "file":
            raise reads_a_file(path, finding.layer, finding.name)
        if not trust:
            raise _untrusted(path, finding)


def refuse_vocabulary_files(path: object, config: ConfigValue, *, trust: bool, layer: str = "model") -> None:
    """Raise for a lookup layer whose vocabulary is the name of a file: Keras would read it, wherever it is.

    Raises:
        ModelError: naming the layer and the file.
    """
    if isinstance(config, (list, tuple)):
        for item in config:
            refuse_vocabulary_files(path, item, trust=trust, layer=layer)
    if trust or not isinstance(config, dict):
        return
    layer = _layer_name(config) or layer
    if isinstance(name := config.get("vocabulary"), str):
        raise ModelError(
            f"{path}: the layer {layer!r} takes its vocabulary from the file {name!r} on this machine.",
            expected="a model that holds its words",
            fix="build the layer with vocabulary=layer.get_vocabulary(include_special_tokens=False) in place of the "
            "file's name, and save the model again; or, if you trust its author and the file is there, add "
            "--trust-model (in Python: trust=True).",
        )
    for value in config.values():
        refuse_vocabulary_files(path, value, trust=trust, layer=layer)


def find_unsafe(config: ConfigValue, layer: str = "model") -> Iterator[Finding]:
    """Walk a configuration, nested models and wrapped layers included, and yield what is not plain tf_keras."""
    if isinstance(config, (list, tuple)):
        for item in config:
            yield from find_unsafe(item, layer)
    if not isinstance(config, dict):
        return
    if isinstance(class_name := config.get("class_name"), str):
        layer = _layer_name(config) or layer
        yield from _judge(config, class_name, layer)
    for value in config.values():
        yield from find_unsafe(value, layer)


def _layer_name(config: JsonObject) -> str | None:
    inner = config.get("config")
    name = config.get("name") or (inner.get("name") if isinstance(inner, dict) else None)
    return name[:_NAME] if isinstance(name, str) else None


def _judge(config: JsonObject, class_name: str, layer: str) -> Iterator[Finding]:
    inner = config.get("config")
    module = config.get("module")
    if (vocabulary := vocabulary_file(config)) is not None:
        yield Finding("file", layer, vocabulary)
    if class_name in _CODE:
        yield Finding("code", layer, class_name)
    elif class_name in _OP_LAYERS:
        symbol = inner.get("function") if isinstance(inner, dict) else None
        if not _is_tensor_arithmetic(str(symbol)):
            yield Finding("operation", layer, f"tf.{str(symbol)[:_NAME]}")
    elif class_name not in _STRUCTURE:
        is_function = class_name == "function"
        name = str(inner)[:_NAME] if is_function else class_name[:_NAME]
        # The names that tf_keras looks up: of classes in its newer format, the name they were registered under.
        registered = _is_registered(name if is_function or "module" not in config else config.get("registered_name"))
        of_keras = not isinstance(module, str) or module.split(".")[0] in _KERAS
        if not registered and not (of_keras and name in _known_names()):
            yield Finding("class", layer, name, None if of_keras else str(module)[:_NAME])


def vocabulary_file(config: JsonObject) -> str | None:
    """The file on this disk that a layer of either Keras would read its vocabulary from; None: it reads none."""
    inner = config.get("config")
    vocabulary = inner.get("vocabulary") if isinstance(inner, dict) else None
    return vocabulary if isinstance(vocabulary, str) else None


def reads_a_file(path: object, layer: str, vocabulary: str) -> ModelError:
    """The error for a layer that would read a file which its model only names."""
    return ModelError(
        f"{path}: the layer {layer!r} would read its vocabulary from the file {vocabulary[:200]!r} of this machine.",
        expected="a model that holds its vocabulary",
        fix="pass the vocabulary as a list where the model is built, and save it again; or, if you trust its author, "
        "add --trust-model (in Python: trust=True).",
    )


def _is_tensor_arithmetic(symbol: str) -> bool:
    space, _, name = symbol.removeprefix("compat.v1.").partition(".")
    return symbol in _OP_SYMBOLS or (space in _OP_SPACES if name else space in _OP_NAMES)


def _is_registered(name: object) -> bool:
    import tf_keras

    return isinstance(name, str) and tf_keras.saving.get_registered_object(name) is not None


@functools.cache
def _known_names() -> frozenset[str]:
    """Names of everything tf_keras can build; read from tf_keras, so that its next version brings its own."""
    import tf_keras
    from tf_keras.src.layers import serialization

    serialization.populate_deserializable_objects()
    spaces = [functools.reduce(getattr, space.split("."), tf_keras) for space in _SPACES.split()]
    public = {name for space in spaces for name in vars(space) if not name.startswith("_")}
    # These three turn names and configurations into objects: a file must not reach them.
    return frozenset((public | set(serialization.LOCAL.ALL_OBJECTS)) - {"get", "serialize", "deserialize"})


def _untrusted(path: object, finding: Finding) -> ModelError:
    holds = {
        "code": f"({finding.name}) holds {_CODE.get(finding.name)}, which would run while the file is read",
        "operation": f"calls {finding.name}, which does more than arithmetic on tensors",
    }[finding.kind]
    return ModelError(
        f"{path}: the layer {finding.layer!r} {holds}.",
        expected="a model made of Keras layers only",
        fix="replace it by a Keras layer; or, if you trust its author, add --trust-model (in Python: trust=True).",
    )


def _unknown_class(path: object, finding: Finding) -> ModelError:
    of_module = f" of the Python module {finding.module}" if finding.module else ""
    return ModelError(
        f"{path}: the layer {finding.layer!r} needs {finding.name}{of_module}, which tf_keras does not have.",
        expected="a model made of Keras layers, or of classes that the running program has registered",
        fix="replace it by a Keras layer; or put its class into a Python file and add --trust-model --custom-objects "
        "FILE.py; or, from Python, decorate the class with @tf_keras.saving.register_keras_serializable().",
    )
