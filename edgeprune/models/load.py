"""A model file or model object → a functional tf_keras model."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import logging
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune._tensorflow import import_tf, use_usual_defaults
from edgeprune.errors import EdgepruneError, ModelError
from edgeprune.files import JsonObject
from edgeprune.models.archive import open_archive
from edgeprune.models.bytecode import refuse_foreign_code
from edgeprune.models.compiled import Compiled, Unknown, compile_as, live_config, live_objects, output_names
from edgeprune.models.custom import is_keras2_class, register_known_layers, under_stored_names
from edgeprune.models.formats import (
    ModelFile,
    check_saved_model,
    is_tflite_file,
    open_weights,
    read_model_file,
    subclassed,
    without_vocabulary,
)
from edgeprune.models.hdf5 import weight_bytes
from edgeprune.models.layout import channels_last
from edgeprune.models.limits import calls_that_come, check_tensors, variables_within
from edgeprune.models.naming import plain_scopes, scope_name
from edgeprune.models.noise import with_usable_noise
from edgeprune.models.old_layers import explained, in_new_terms
from edgeprune.models.precision import in_float32
from edgeprune.models.reasons import not_rebuilt, refuse_lost_calls
from edgeprune.models.safety import refuse_unsafe, refuse_vocabulary_files
from edgeprune.models.stored_weights import load_keras_weights, load_saved_variables, turn_theano_kernels
from edgeprune.models.types import AnyModel, CustomObjects
from edgeprune.models.wrappers import built_when_called, wrapper_classes

if TYPE_CHECKING:
    import h5py
    import keras
    import tf_keras

    from edgeprune.models.from_tflite.check import Checked
    from edgeprune.models.front import Front
    from edgeprune.models.sizes import InputShapes

_log = logging.getLogger(__name__)


def load_model(
    source: str | Path | tf_keras.Model | keras.Model,
    *,
    trust: bool = False,
    custom_objects: Mapping[str, object] | None = None,
    input_shape: InputShapes | None = None,
) -> tf_keras.Model:
    """Load a model of Keras 2 or Keras 3 as a flat functional tf_keras model.

    Args:
        source: a ``.keras``, ``.h5`` or ``.hdf5`` file, a SavedModel folder written by Keras 2, a ``.tflite`` file
            (:mod:`edgeprune.models.from_tflite`), or a model of tf_keras or Keras 3. A flat functional tf_keras object
            is returned as it is; a Sequential model, and a subclass of ``Model`` that was given inputs and outputs or
            only calls layers, become a functional model of the same layer objects. Everything of Keras 3 is translated
            (:mod:`edgeprune.models.keras3`).
        trust: let code in the file run (Lambda layers); see :mod:`edgeprune.models.safety` for what is trusted without.
        custom_objects: classes and functions that are not of Keras, by name: of tf_keras, or of Keras 3 for reading its
            files; see :func:`edgeprune.models.custom.custom_objects_from`.
        input_shape: sizes for inputs of open size, such as ``(224, 224, 3)`` for ``Input((None, None, 3))``; of several
            inputs a shape for each, in order or by name. The model is rebuilt for them, verified to compute the same.

    Returns:
        The model, compiled with the loss and metrics of its file as far as they can be loaded (see
        :func:`edgeprune.models.compiled.compile_as`), by output. Nested models are opened
        (:func:`edgeprune.models.flatten.flatten`).

    Raises:
        ModelError: the source is missing, damaged, foreign, unsafe, or of a kind that edgeprune cannot use; or it
            cannot take inputs of this shape.
        UsageError: an input shape that does not fit the inputs.
    """
    opened = _open(source, trust, custom_objects, input_shape)
    for what, error in opened.left_out:
        _log.warning("The model's %s %s cannot be loaded and is left out: %s.", what, error.name, error.reason)
    if opened.imported:
        for note in opened.imported.notes:
            _log.warning("%s: %s.", source, note)
    return opened.model if input_shape is None or opened.imported else sized(opened.model, input_shape)


def sized(model: tf_keras.Model, input_shape: InputShapes | None) -> tf_keras.Model:
    """The model with the open sizes of its inputs as given.

    Raises:
        UsageError, ModelError: as :func:`load_model`.
    """
    from edgeprune.models.sizes import Inputs, with_sizes

    return with_sizes(model, Inputs.of(model).filled(input_shape))


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model, and what it was compiled with: all of it, also what could not be restored.

    ``left_out``: what the model itself is not compiled with, "loss" or "metric", and why. ``front``: the part that
    looks words up and was cut off, see :mod:`edgeprune.models.front`. ``rounded``: of a model that tfmot trained for
    int8, or that was a quantized .tflite, the same with the rounding of its kernels and activations, by operations, not
    compiled. ``imported``: how the model of a .tflite compares with it.
    """

    model: tf_keras.Model
    compiled: Compiled
    left_out: tuple[tuple[str, Unknown], ...] = ()
    front: Front | None = None
    rounded: tf_keras.Model | None = None
    imported: Checked | None = None


def open_model(
    source: str | Path | tf_keras.Model | keras.Model,
    *,
    trust: bool = False,
    custom_objects: Mapping[str, object] | None = None,
    input_shape: InputShapes | None = None,
) -> Opened:
    """As :func:`load_model`, with the compile information of the source beside the model, and a list of outputs.

    Args:
        input_shape: for a .tflite, which is read at fixed sizes; other models keep their open sizes.

    Raises:
        ModelError: as :func:`load_model`.
    """
    import_tf()
    import tf_keras

    opened = _open(source, trust, custom_objects, input_shape)
    if not isinstance(opened.model._nested_outputs, dict):
        return opened
    model = tf_keras.Model(opened.model._nested_inputs, opened.model.outputs, name=opened.model.name)
    model.trainable = opened.model.trainable
    compile_as(model, opened.compiled, dict(custom_objects or {}))
    return dataclasses.replace(opened, model=model)


def _open(
    source: str | Path | tf_keras.Model | keras.Model,
    trust: bool,
    custom_objects: Mapping[str, object] | None,
    input_shape: InputShapes | None,
) -> Opened:
    is_tflite = isinstance(source, (str, Path)) and is_tflite_file(Path(source))
    file = read_model_file(Path(source)) if isinstance(source, (str, Path)) and not is_tflite else None
    import_tf()
    import tf_keras

    use_usual_defaults(tf_keras.backend)
    plain_scopes()
    register_known_layers()
    if is_tflite:
        return _of_tflite(Path(source), input_shape)
    custom = dict(custom_objects or {})
    if file is not None:
        custom = under_stored_names([file.config, file.training], custom)
    with tf_keras.saving.custom_object_scope({n: value for n, value in custom.items() if is_keras2_class(value)}):
        if file is None:
            return _of_object(source, custom)
        try:
            return _of_file(file, trust, custom)
        except EdgepruneError:
            raise
        # A description can be odd in any way, and only show it when the model is run or changed.
        except Exception as error:
            _log.debug("Loading %s failed.", file.path, exc_info=True)
            said = " ".join(str(error).split())[:300] or type(error).__name__
            raise ModelError(
                f"{file.path}: the model in it cannot be used: {said}",
                expected="a model that Keras loads, and runs on an input",
                fix="try both in Python; if they work, please report it. Else save the model again.",
            ) from error


def _of_tflite(path: Path, input_shape: InputShapes | None) -> Opened:
    from edgeprune.models.from_tflite import import_tflite
    from edgeprune.models.from_tflite.check import check

    imported = import_tflite(path, input_shape)
    checked = check(imported, path)
    return Opened(imported.model, Compiled.of(None, imported.outputs, 2), rounded=imported.rounded, imported=checked)


def _of_file(file: ModelFile, trust: bool, custom_objects: CustomObjects) -> Opened:
    refuse_vocabulary_files(file.path, file.config, trust=trust)
    if file.is_keras3:
        return _of_keras3_file(file, trust, custom_objects)
    if file.format != "h5":
        return _of_keras2_file(file, trust, custom_objects)
    file = dataclasses.replace(file, config=in_new_terms(file.config))
    try:
        return _of_keras2_file(file, trust, custom_objects)
    except ModelError as error:
        raise explained(error, file.path, file.keras_version, file.config) from error


def _of_keras2_file(file: ModelFile, trust: bool, custom_objects: CustomObjects) -> Opened:
    with wrapper_classes(file.config):
        refuse_unsafe(file.path, file.config, trust=trust)
        if file.format == "saved_model":
            check_saved_model(file.path, trust=trust)
        refuse_foreign_code(file.path, file.config)
        refuse_lost_calls(file.path, file.config)
        return _of_layers(_restore(file, trust), file.training, custom_objects)


def reload_model(path: Path, *, trust: bool = False) -> tf_keras.Model:
    """A fresh copy of a model that edgeprune saved itself; the same checks as for any file."""
    return open_model(path, trust=trust).model


def _of_keras3_file(file: ModelFile, trust: bool, custom_objects: CustomObjects) -> Opened:
    from edgeprune.models.keras3_file import read_keras3

    theirs = {
        n: value for n, value in custom_objects.items() if inspect.isfunction(value) or not is_keras2_class(value)
    }
    model = read_keras3(file, trust=trust, custom_objects=theirs)
    return _of_keras3(model, file.training, custom_objects)


def _of_keras3(model: keras.Model, training: JsonObject | None, custom_objects: CustomObjects) -> Opened:
    from edgeprune.models.front import cut
    from edgeprune.models.keras3 import Keras3, translate

    front, rest = cut(model, Keras3())
    translated, names = translate(rest, custom_objects)
    translated = _plain(translated)
    return _compiled(translated, Compiled.of(training, names, 3), custom_objects, front)


def _of_object(model: AnyModel, custom_objects: CustomObjects) -> Opened:
    import tf_keras

    if isinstance(model, tf_keras.Model):
        return _of_layers(model, live_config(model), {**live_objects(model), **custom_objects})
    from edgeprune.models.keras3_file import is_keras3

    if not is_keras3(model):
        raise ModelError(
            f"A {type(model).__name__} is not a model.", expected="a path or a model of tf_keras or Keras 3"
        )
    return _of_keras3(model, live_config(model), {**live_objects(model), **custom_objects})


def _restore(file: ModelFile, trust: bool) -> tf_keras.Model:
    import tf_keras
    from tf_keras.src.saving.serialization_lib import SafeModeScope

    from edgeprune.models.saved_tables import fill_tables

    try:
        with SafeModeScope(safe_mode=not trust), _open_variables(file) as (weights, held):
            with variables_within(held, file.path), calls_that_come(file.path):
                model = _build(file)
            check_tensors(model, file.path)
            if file.format == "saved_model":
                fill_tables(model, file.path)
            if not file.has_assets:
                _refuse_empty_tables(file, model)
            _load_weights(file, model, weights)
    except ModelError:
        raise
    # Building and filling a model from a file's description can fail in any layer's code, in any way.
    except Exception as error:
        raise not_rebuilt(file.path, error, "tf_keras", tf_keras.__version__, file.keras_version) from error
    return model


@contextlib.contextmanager
def _open_variables(file: ModelFile) -> Iterator[tuple[h5py.File | None, int]]:
    """The open HDF5 file with the weights, None for a SavedModel; and the bytes of all weights."""
    if file.format == "saved_model":
        yield None, sum(part.stat().st_size for part in (file.path / "variables").glob("variables.data-*"))
    else:
        with open_weights(file) as weights:
            yield weights, weight_bytes(weights)


def _build(file: ModelFile) -> tf_keras.Model:
    """The architecture, with fresh weights; layers and regularizers that were shared stay shared."""
    import tf_keras
    from tf_keras.src.saving.legacy.saved_model import json_utils
    from tf_keras.src.saving.legacy.serialization import SharedObjectLoadingScope
    from tf_keras.src.saving.serialization_lib import ObjectSharingScope

    if file.format == "keras":
        with ObjectSharingScope():
            return tf_keras.saving.deserialize_keras_object(built_when_called(file.config))
    with SharedObjectLoadingScope():
        return tf_keras.models.model_from_config(json_utils.decode(json.dumps(file.config)))


def _load_weights(file: ModelFile, model: tf_keras.Model, weights: h5py.File | None) -> None:
    """Fill the model: from an open HDF5 file, or with the variables of a SavedModel."""
    if weights is None:
        load_saved_variables(model, file.path / "variables" / "variables")
    elif file.format == "keras":
        with _assets(file) as assets:
            load_keras_weights(model, weights, assets)
    else:
        _load_h5_weights(model, weights)


def _refuse_empty_tables(file: ModelFile, model: tf_keras.Model) -> None:
    """Refuse lookups that would find nothing."""
    from edgeprune.models.front import TABLES

    for layer in model._flatten_layers():
        if type(layer).__name__ in TABLES and layer.vocabulary_size() <= _special_tokens(layer):
            raise without_vocabulary(file, layer.name)


def _special_tokens(layer: tf_keras.layers.Layer) -> int:
    lookup = getattr(layer, "_lookup_layer", layer)
    return int(lookup._token_start_index())


@contextlib.contextmanager
def _assets(file: ModelFile) -> Iterator[zipfile.ZipFile | None]:
    """The vocabularies in a ``.keras`` file, as an archive of checked members."""
    if not file.has_assets:
        yield None
        return
    with open_archive(file.path) as archive, zipfile.ZipFile(archive.copy(file.config)) as copy:
        yield copy


def _load_h5_weights(model: tf_keras.Model, file: h5py.File) -> None:
    from tf_keras.src.saving.legacy import hdf5_format

    group = file["model_weights"]
    hdf5_format.load_weights_from_hdf5_group(group, model)
    backend = group.attrs.get("backend", file.attrs.get("backend"))
    if backend in ("theano", b"theano"):
        turn_theano_kernels(model)


def _of_layers(model: tf_keras.Model, training: JsonObject | None, custom_objects: CustomObjects) -> Opened:
    """The model as a flat functional one."""
    from edgeprune.models.flatten import Keras2, flatten, with_rounding
    from edgeprune.models.front import cut, has_host_layers
    from edgeprune.models.rebuild import copy_model

    given, front = _as_graph(model), None
    if has_host_layers(given):
        front, rest = cut(given, Keras2())
        given = copy_model(rest)
    functional = _plain(flatten(given))
    rounded = with_rounding(given, functional.output_names)
    compiled = Compiled.of(training, output_names(functional), 2)
    functional = _named_for_scopes(functional)
    if functional is model and model._is_compiled:
        return Opened(model, compiled)  # the user's own object stays as it is
    return dataclasses.replace(_compiled(functional, compiled, custom_objects, front), rounded=rounded)


def _named_for_scopes(model: tf_keras.Model) -> tf_keras.Model:
    """The model under a name with which TensorFlow can run it in a graph."""
    import tf_keras

    name = scope_name(model.name)
    if name == model.name:
        return model
    renamed = tf_keras.Model(model._nested_inputs, model._nested_outputs, name=name)
    renamed.trainable = model.trainable
    _log.warning("The model is renamed, because TensorFlow does not take its name: %r is now %r.", model.name, name)
    return renamed


def _compiled(
    model: tf_keras.Model, compiled: Compiled, custom_objects: CustomObjects, front: Front | None = None
) -> Opened:
    """The model, compiled as far as that can be restored."""
    if front:
        _log.warning(
            "Cut behind %s: what comes before stays on the host, and the model takes the numbers that it makes.",
            ", ".join(front.layers),
        )
    return Opened(model, compiled, tuple(compile_as(model, compiled, custom_objects)), front)


def _as_graph(model: tf_keras.Model) -> tf_keras.Model:
    """The model as a functional one."""
    import tf_keras
    from tf_keras.src.engine.functional import Functional

    if type(model) is Functional:
        return model
    if isinstance(model, tf_keras.Sequential) and not model.inputs:
        raise ModelError(
            f"The Sequential model {model.name!r} does not know the shape of its input.",
            expected="a built model",
            fix="call model.build((None, ...)) with the input's shape, or begin with an Input layer.",
        )
    if getattr(model, "_is_graph_network", False):
        return tf_keras.Model(model.input, model.output, name=model.name)
    return _traced(model)


def _plain(model: tf_keras.Model) -> tf_keras.Model:
    """A flat functional model as boards compute it: in float32, with the channels last."""
    return channels_last(in_float32(with_usable_noise(model)))


def _traced(model: tf_keras.Model) -> tf_keras.Model:
    """A subclassed model as a functional one of the same layers, if its code only calls layers."""
    from edgeprune.models.flatten import trace
    from edgeprune.models.verify import check_same

    spec = model.save_spec()
    if spec is None or len(spec[0]) != 1:
        raise subclassed(f"The model {model.name!r}", type(model).__name__)
    functional = trace(model, spec[0][0])
    check_same(model, functional, "its calls are followed")
    return functional
