"""Import Keras 3 when it is needed, and read its files; code in them runs only if trusted."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

from edgeprune._tensorflow import import_tf
from edgeprune.errors import MissingError, ModelError
from edgeprune.files import JsonObject
from edgeprune.models.bytecode import refuse_foreign_code
from edgeprune.models.formats import ModelFile
from edgeprune.models.reasons import not_rebuilt, unknown_name
from edgeprune.models.types import ConfigValue, CustomObjects

if TYPE_CHECKING:
    import keras

# Layers that run code from the file, or load more files.
_CODE = {"Lambda", "__lambda__", "TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper"}
_STRUCTURE = {"__tuple__", "__ellipsis__", "__bytes__", "__tensor__", "__numpy__", "__keras_tensor__", "__slice__"}
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
    return keras


def is_keras3(model: object) -> bool:
    """Whether an object is a model of Keras 3; does not import it."""
    keras = sys.modules.get("keras")
    return keras is not None and hasattr(keras, "Model") and isinstance(model, keras.Model)


def read_keras3(file: ModelFile, *, trust: bool, custom_objects: CustomObjects) -> keras.Model:
    """The Keras 3 model in a ``.keras`` or ``.h5`` file, not compiled. Keras's safe mode is on without ``trust``.

    Args:
        custom_objects: Keras 3 classes that the file needs, by name.

    Raises:
        ModelError: Keras cannot rebuild it, it holds code, or it needs a class that is not registered.
    """
    keras = import_keras3()
    _refuse_unsafe(file, trust, custom_objects)
    refuse_foreign_code(file.path, file.config)
    # Rebuilding a model from a file's description can fail in any layer's code, in any way.
    try:
        return keras.models.load_model(file.path, custom_objects=custom_objects, compile=False, safe_mode=not trust)
    except Exception as error:
        raise not_rebuilt(file.path, error, "Keras 3", keras.__version__, file.keras_version) from error


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
        if name in _STRUCTURE or name in _CODE:
            continue
        is_function = name == "function"
        if is_function:
            name = str(config.get("config"))
            known = str(module) in _FUNCTION_HOMES[1:] or name in _own_names()
        else:
            known = str(module).split(".")[0] == "keras" or name in _own_names()
        if not known and not _is_registered(name, config.get("registered_name"), custom_objects):
            kind = "function" if is_function else "class"
            what = f"{file.path}: the layer {layer!r} needs the {kind} {name}, which is not of Keras."
            raise unknown_name(what, name, "Keras 3")


@functools.cache
def _own_names() -> frozenset[str]:
    """Names of everything in Keras 3 that a configuration without a module can mean."""
    import keras

    spaces = (
        *(keras, keras.layers, keras.initializers, keras.regularizers, keras.constraints, keras.activations),
        *(keras.losses, keras.metrics, keras.optimizers, keras.optimizers.schedules, keras.dtype_policies),
    )
    return frozenset({"Functional", "DTypePolicy", *(name for space in spaces for name in vars(space))})


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
        layer = name if isinstance(name, str) else layer
        yield layer, config
    for value in config.values():
        yield from _objects(value, layer)


def _is_registered(name: str, registered_name: object, custom_objects: CustomObjects) -> bool:
    import keras

    names = [name, registered_name] if isinstance(registered_name, str) else [name]
    return any(n in custom_objects or keras.saving.get_registered_object(n) is not None for n in names)
