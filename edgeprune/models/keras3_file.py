"""Import Keras 3 when it is needed, and read its files; code in them runs only if trusted."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import json
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

from edgeprune._tensorflow import import_tf, keras3_if_loaded, use_usual_defaults
from edgeprune.errors import MissingError, ModelError
from edgeprune.files import JsonObject
from edgeprune.models.archive import open_archive
from edgeprune.models.bytecode import refuse_foreign_code
from edgeprune.models.formats import ModelFile, open_weights
from edgeprune.models.hdf5 import weight_bytes
from edgeprune.models.limits import check_tensors, variables_within
from edgeprune.models.reasons import not_rebuilt, unknown_name
from edgeprune.models.safety import reads_a_file, vocabulary_file
from edgeprune.models.types import ConfigValue, CustomObjects

if TYPE_CHECKING:
    import h5py
    import keras

_SPACES = ("layers", "initializers", "regularizers", "constraints", "losses", "metrics", "optimizers")
# Layers that run code from the file, or load more files.
_CODE = {"Lambda", "__lambda__", "TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper"}
_STRUCTURE = {"__tuple__", "__ellipsis__", "__bytes__", "__tensor__", "__numpy__", "__keras_tensor__", "__slice__"}
# These turn names and configurations into objects: a file must not reach them.
_MAKERS = {"get", "serialize", "deserialize"}
# A file may name functions of these modules only; Keras has others that download or write files.
_FUNCTION_HOMES = ("builtins", "keras.activations", "keras.src.activations", "keras.losses", "keras.metrics")


def import_keras3() -> ModuleType:
    """The module ``keras``, version 3, on TensorFlow.

    Raises:
        MissingError: it is another version, or runs on another backend.
    """
    import_tf()
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    keras = importlib.import_module("keras")
    if not keras.__version__.startswith("3.") or keras.backend.backend() != "tensorflow":
        raise MissingError(
            f"Keras {keras.__version__} runs on {keras.backend.backend()} here.",
            expected="Keras 3 on TensorFlow",
            fix="set KERAS_BACKEND=tensorflow before keras is imported, or save the model and pass its file.",
        )
    use_usual_defaults(keras.config)
    return keras


def is_keras3(model: object) -> bool:
    """Whether an object is a model of Keras 3; does not import it."""
    keras = keras3_if_loaded()
    return keras is not None and isinstance(model, keras.Model)


def read_keras3(file: ModelFile, *, trust: bool, custom_objects: CustomObjects) -> keras.Model:
    """The Keras 3 model in a ``.keras`` or ``.h5`` file, not compiled. Keras's safe mode is on without ``trust``.

    Args:
        custom_objects: Keras 3 classes that the file needs, by name.

    Raises:
        ModelError: Keras cannot rebuild it, it holds code, or it needs a class that is not registered.
    """
    keras = import_keras3()
    if file.format == "h5":
        file = dataclasses.replace(file, config=_with_operations(file.config))
    _refuse_unsafe(file, trust, custom_objects)
    refuse_foreign_code(file.path, file.config)
    with open_weights(file) as weights:
        held = weight_bytes(weights)
        # Rebuilding a model from a file's description can fail in any layer's code, in any way.
        try:
            with variables_within(held, file.path):
                model = _READERS[file.format](file, weights, trust, custom_objects)
        except ModelError:
            raise
        except Exception as error:
            raise not_rebuilt(file.path, error, "Keras 3", keras.__version__, file.keras_version) from error
    check_tensors(model, file.path)
    return model


def _read_archive(file: ModelFile, _: h5py.File, trust: bool, custom_objects: CustomObjects) -> keras.Model:
    from keras.src.saving import saving_lib

    with open_archive(file.path) as archive:
        checked = archive.copy(file.config)
    return saving_lib.load_model(checked, custom_objects=custom_objects, compile=False, safe_mode=not trust)


def _read_h5(file: ModelFile, weights: h5py.File, trust: bool, custom_objects: CustomObjects) -> keras.Model:
    """As ``load_model_from_hdf5`` of Keras, with the description that was checked."""
    import keras
    from keras.src.legacy.saving import json_utils, legacy_h5_format, saving_options, saving_utils
    from keras.src.saving.serialization_lib import SafeModeScope

    known = {**keras.saving.get_custom_objects(), **custom_objects, **_operations()}
    config = json_utils.decode(json.dumps(file.config))
    with saving_options.keras_option_scope(use_legacy_config=True), SafeModeScope(not trust):
        model = saving_utils.model_from_config(config, custom_objects=known)
        legacy_h5_format.load_weights_from_hdf5_group(weights["model_weights"], model)
    return model


_OPERATION = "operation>{}"


@functools.cache
def _operations() -> CustomObjects:
    """The operations of ``keras.ops``, under names that are none of layers'."""
    from keras.src.ops.operation import Operation

    found, classes = {}, [Operation]
    while classes:
        classes += (one := classes.pop()).__subclasses__()
        if one.__module__.startswith("keras.src.ops."):
            found[_OPERATION.format(one.__name__)] = one
    return found


def _with_operations(config: ConfigValue) -> ConfigValue:
    """The description with operations under the names of :func:`_operations`.

    An .h5 names them as it names layers, among which Keras itself looks them up, in vain or wrongly: there is a layer
    Add and an operation Add. Operations cannot be frozen.
    """
    if isinstance(config, list):
        return [_with_operations(item) for item in config]
    if not isinstance(config, dict):
        return config
    config = {key: _with_operations(value) for key, value in config.items()}
    inner = config.get("config")
    if "inbound_nodes" in config and isinstance(inner, dict) and "trainable" not in inner:
        name = _OPERATION.format(config.get("class_name"))
        return {**config, "class_name": name} if name in _operations() else config
    return config


_READERS = {"keras": _read_archive, "h5": _read_h5}


def _refuse_unsafe(file: ModelFile, trust: bool, custom_objects: CustomObjects) -> None:
    for layer, config in _objects(file.config):
        name, module = str(config["class_name"]), config.get("module")
        if name in _CODE and not trust:
            raise ModelError(
                f"{file.path}: the layer {layer!r} ({name}) holds code, which would run while the file is read.",
                expected="a model made of Keras layers only",
                fix="replace it by a Keras layer; or, if you trust its author, add --trust-model (in Python: "
                "trust=True).",
            )
        vocabulary = vocabulary_file(config)
        if vocabulary is not None and not trust:
            raise reads_a_file(file.path, layer, vocabulary)
        if name in _STRUCTURE or name in _CODE:
            continue
        is_function = name == "function"
        if is_function:
            name = str(config.get("config"))
            known = (module is None or str(module) in _FUNCTION_HOMES) and name not in _MAKERS
        else:
            known = _is_class(module, name)
        # Formats without modules name anything of Keras.
        known = known and (module not in (None, "builtins") or name in _own_names())
        if not known and not _is_registered(name, config.get("registered_name"), custom_objects):
            kind = "function" if is_function else "class"
            what = f"{file.path}: the layer {layer!r} needs the {kind} {name[:100]}, which is not of Keras."
            raise unknown_name(what, name[:100], "Keras 3")


def _is_class(module: ConfigValue, name: str) -> bool:
    """Whether Keras has a class of this name there. Functions, which a file can disguise as classes, are none.

    Modules are not imported: those of all layers are, with Keras.
    """
    import keras
    from keras.src.api_export import get_symbol_from_name

    if module is None or module == "builtins":  # older formats: Keras looks names up among its layers and the like
        found = [vars(getattr(keras, space)).get(name) for space in _SPACES]
        return name in _own_names() and all(thing is None or inspect.isclass(thing) for thing in found)
    known = isinstance(module, str) and module.split(".")[0] == "keras"
    thing = get_symbol_from_name(f"{module}.{name}") or getattr(sys.modules.get(str(module)), name, None)
    return known and inspect.isclass(thing) and hasattr(thing, "from_config")


@functools.cache
def _own_names() -> frozenset[str]:
    """Names of everything in Keras 3 that a configuration without a module can mean."""
    import keras

    spaces = (
        *(keras, keras.layers, keras.initializers, keras.regularizers, keras.constraints, keras.activations),
        *(keras.losses, keras.metrics, keras.optimizers, keras.optimizers.schedules, keras.dtype_policies),
    )
    # Some classes are exported under another name than their own, which is the one in files.
    things = [thing for space in spaces for thing in vars(space).items()]
    classes = (thing.__name__ for _, thing in things if inspect.isclass(thing))
    return frozenset({"Functional", "DTypePolicy", *_operations(), *classes, *(name for name, _ in things)})


def _objects(config: ConfigValue, layer: str = "model") -> Iterator[tuple[str, JsonObject]]:
    """Every object in a configuration, with the name of the layer that holds it."""
    if isinstance(config, list | tuple):
        for item in config:
            yield from _objects(item, layer)
    if not isinstance(config, dict):
        return
    if isinstance(config.get("class_name"), str):
        inner = config.get("config")
        name = inner.get("name") if isinstance(inner, dict) else None
        layer = name[:100] if isinstance(name, str) else layer
        yield layer, config
    for value in config.values():
        yield from _objects(value, layer)


def _is_registered(name: str, registered_name: object, custom_objects: CustomObjects) -> bool:
    import keras

    names = [name, registered_name] if isinstance(registered_name, str) else [name]
    return any(n in custom_objects or keras.saving.get_registered_object(n) is not None for n in names)
