"""A model file or model object → a functional tf_keras model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune._tensorflow import import_tf
from edgeprune.errors import ModelError
from edgeprune.models.compiled import compile_as
from edgeprune.models.formats import ModelFile, read_model_file, subclassed
from edgeprune.models.safety import refuse_unsafe

if TYPE_CHECKING:
    import tf_keras


def load_model(source: str | Path | tf_keras.Model, *, trust: bool = False) -> tf_keras.Model:
    """Load a Keras 2 model as a functional tf_keras model.

    Args:
        source: a ``.keras``, ``.h5`` or ``.hdf5`` file, a SavedModel folder written by Keras 2, or a tf_keras model.
            A functional model object is returned as it is; a Sequential model, and a subclass of ``Model`` that was
            given inputs and outputs, become a functional model of the same layer objects.
        trust: let code in the file run (Lambda layers); see :mod:`edgeprune.models.safety` for what is trusted without.

    Returns:
        The model, compiled with the loss and metrics of its file as far as they can be loaded (see
        :func:`edgeprune.models.compiled.compile_as`). Nested models stay nested.

    Raises:
        ModelError: the source is missing, damaged, foreign, unsafe, or of a kind that edgeprune cannot use.
    """
    if not isinstance(source, (str, Path)):
        import_tf()
        return _functional(source)
    file = read_model_file(Path(source))
    if file.is_keras3:
        return _keras3(file)
    import_tf()
    refuse_unsafe(file.path, file.config, trust=trust)
    model = _restore(file, trust)
    compile_as(model, file.training)
    return _functional(model)


def reload_model(path: Path, *, trust: bool = False) -> tf_keras.Model:
    """A fresh copy of a model that edgeprune saved itself; the same checks as for any file."""
    return load_model(path, trust=trust)


def _keras3(source: ModelFile | Any) -> tf_keras.Model:
    """The door for Keras 3 files and objects: where their translation to tf_keras belongs."""
    name = f"{source.path} was written by" if isinstance(source, ModelFile) else "The model is an object of"
    raise ModelError(
        f"{name} Keras 3, which edgeprune does not translate yet.",
        expected="a model of Keras 2 or tf_keras",
        fix="build the model with tf_keras (pip install tf_keras, import tf_keras), copy the weights with "
        "set_weights(model.get_weights()), and save it with model.save('NAME.keras').",
    )


def _restore(file: ModelFile, trust: bool) -> tf_keras.Model:
    from tf_keras.src.saving.serialization_lib import SafeModeScope

    try:
        with SafeModeScope(safe_mode=not trust):
            model = _build(file)
        _load_weights(file, model)
    # Building and filling a model from a file's description can fail in any layer's code, in any way.
    except Exception as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(
            f"{file.path}: tf_keras cannot rebuild the model: {said}",
            expected="a whole file that tf_keras.models.load_model reads",
            fix="copy the file again, it may be cut short; if tf_keras refuses it too, rebuild the model in Python and "
            "save it with model.save('NAME.keras').",
        ) from error
    return model


def _build(file: ModelFile) -> tf_keras.Model:
    """The architecture, with fresh weights; layers and regularizers that were shared stay shared."""
    import tf_keras
    from tf_keras.src.saving.legacy.saved_model import json_utils
    from tf_keras.src.saving.legacy.serialization import SharedObjectLoadingScope
    from tf_keras.src.saving.serialization_lib import ObjectSharingScope

    if file.format == "keras":
        with ObjectSharingScope():
            return tf_keras.saving.deserialize_keras_object(file.config)
    with SharedObjectLoadingScope():
        return tf_keras.models.model_from_config(json_utils.decode(json.dumps(file.config)))


def _load_weights(file: ModelFile, model: tf_keras.Model) -> None:
    if file.format == "keras":
        model.load_weights(file.path)
    elif file.format == "saved_model":
        # Only the variables: no graph of the SavedModel is loaded, so no code of it can run.
        status = model.load_weights(file.path / "variables" / "variables")
        status.assert_existing_objects_matched().expect_partial()
    else:
        _load_h5_weights(file.path, model)


def _load_h5_weights(path: Path, model: tf_keras.Model) -> None:
    import h5py
    from tf_keras.src.saving.legacy import hdf5_format

    with h5py.File(path, "r") as file:
        hdf5_format.load_weights_from_hdf5_group(file["model_weights"], model)


def _functional(model: Any) -> tf_keras.Model:
    import tf_keras
    from tf_keras.src.engine.functional import Functional

    if not isinstance(model, tf_keras.Model):
        if any(base.__module__.split(".")[0] == "keras" for base in type(model).__mro__):
            return _keras3(model)
        raise ModelError(f"A {type(model).__name__} is not a model.", expected="a path or a tf_keras model")
    if type(model) is Functional:
        return model
    if isinstance(model, tf_keras.Sequential) and not model.inputs:
        raise ModelError(
            f"The Sequential model {model.name!r} does not know the shape of its input.",
            expected="a built model",
            fix="call model.build((None, ...)) with the input's shape, or begin with an Input layer.",
        )
    if not getattr(model, "_is_graph_network", False):
        raise subclassed(f"The model {model.name!r}", type(model).__name__)
    functional = tf_keras.Model(model.input, model.output, name=model.name)
    if model.get_compile_config():
        functional.compile(**model._get_compile_args())
    return functional
