"""Layer classes beyond tf_keras.layers: those of keras.applications, and those that the user brings."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from pathlib import Path

from edgeprune._tensorflow import import_tf
from edgeprune.code import import_file
from edgeprune.errors import ModelError
from edgeprune.models.types import ConfigValue, CustomObjects


def custom_objects_from(path: str | Path) -> CustomObjects:
    """Layers, losses and metrics of a Python file, for ``custom_objects`` of :func:`edgeprune.models.load.load_model`.

    Importing the file runs it. What it registers by a decorator of tf_keras or Keras stays registered in this process.

    Returns:
        The functions, and the classes of layers, losses, metrics, initializers, regularizers and constraints, that the
        file defines at its top level, of tf_keras and of Keras 3, by name.

    Raises:
        ModelError: no such file, or it raises.
    """
    import_tf()
    import tf_keras

    register_known_layers()
    module = import_file(Path(path), str(path), ModelError)
    found = {
        name: value
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and (inspect.isfunction(value) or _is_kerases(value))
    }
    # Later stages read models that hold these from disk.
    tf_keras.saving.get_custom_objects().update({n: thing for n, thing in found.items() if is_keras2_class(thing)})
    return found


def _is_kerases(value: object) -> bool:
    """Whether a value is a class of layers, or of another kind that a layer or a compiled model holds."""
    return inspect.isclass(value) and any(
        base.__name__ in _BASES and base.__module__.split(".")[0] in _KERASES for base in value.__mro__
    )


_BASES = {"Layer", "Loss", "Metric", "Initializer", "Regularizer", "Constraint"}
_KERASES = {"keras", "tf_keras"}


def is_keras2_class(value: object) -> bool:
    """Whether a class or function is one that tf_keras can use: not a class of Keras 3."""
    return not (inspect.isclass(value) and any(base.__module__.split(".")[0] == "keras" for base in value.__mro__))


def under_stored_names(config: ConfigValue, custom_objects: CustomObjects) -> CustomObjects:
    """The objects, also under the names with a package (``package>Class``) that a description has for them.

    A file names a class as it was registered where the model was made; who brings the class need not register it.
    """
    found = {name: custom_objects[name.rpartition(">")[2]] for name in _packaged(config, custom_objects)}
    return {**found, **custom_objects}


def _packaged(config: ConfigValue, custom_objects: CustomObjects) -> Iterator[str]:
    if isinstance(config, str):
        if ">" in config and config.rpartition(">")[2] in custom_objects:
            yield config
    elif isinstance(config, dict | list):
        for item in config.values() if isinstance(config, dict) else config:
            yield from _packaged(item, custom_objects)


def register_known_layers() -> CustomObjects:
    """The layer classes that tf_keras has and its reader does not know, made loadable by name; again, where the program
    has cleared what was registered.

    Those that tf_keras.applications defines for itself, and SpectralNormalization: of any file that holds one, tf_keras
    says "'str' object is not callable"."""
    import_tf()
    import tf_keras

    known = _known_layers()
    for name, layer in known.items():
        # A file names a class as it was registered: "Custom>CustomScaleLayer".
        for key in (name, tf_keras.saving.get_registered_name(layer)):
            tf_keras.saving.get_custom_objects().setdefault(key, layer)
    return known


@functools.cache
def _known_layers() -> CustomObjects:
    from tf_keras.src.applications.convnext import LayerScale, StochasticDepth
    from tf_keras.src.applications.inception_resnet_v2 import CustomScaleLayer
    from tf_keras.src.layers import SpectralNormalization

    return {layer.__name__: layer for layer in (LayerScale, StochasticDepth, CustomScaleLayer, SpectralNormalization)}


def find_layer_class(name: str, custom_objects: CustomObjects) -> type | None:
    """The tf_keras class for a layer class of this name, or ``None``.

    Looked up among ``custom_objects``, among what the program has registered with tf_keras, and in tf_keras.
    """
    import tf_keras

    given: type | None = custom_objects.get(name)
    if given is not None and is_keras2_class(given):
        return given
    registered = tf_keras.saving.get_custom_objects()
    for key in (name, f"Custom>{name}", *(key for key in registered if key.endswith(f">{name}"))):
        if key in registered:
            return registered[key]
    return register_known_layers().get(name) or getattr(tf_keras.layers, name, None)
