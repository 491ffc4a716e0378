"""Weights out of files whose layout tf_keras no longer reads by itself: each value goes to the variable that it is of.

What tf_keras reads as it was written, it reads (:mod:`edgeprune.models.load`). Here is the rest: the variables of a
SavedModel without its graph, the ``.keras`` files of Keras 2.13 and 2.14, and kernels that Theano wrote.
"""

from __future__ import annotations

import functools
import itertools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import ModelError
from edgeprune.models.types import Layer, Variable

if TYPE_CHECKING:
    import h5py
    import tf_keras

# Where Keras 2.13 and 2.14 put the layers of a model, and where all other versions do.
_OLD_CONTAINER, _CONTAINER = "_layer_checkpoint_dependencies", "layers"


def load_saved_variables(model: tf_keras.Model, prefix: Path) -> None:
    """Give a model the variables of a SavedModel; nothing else of it is read, so no code of it can run.

    A variable is found by its place in the tree of objects, as TensorFlow finds it; where Keras has since moved it,
    by its name. What else the SavedModel tracks (optimizers with their slots, metrics) is left where it is.

    Args:
        model: as the SavedModel's configuration describes it.
        prefix: of the checkpoint: ``FOLDER/variables/variables``.

    Raises:
        ValueError: a weight of the model is in neither place.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    reader = tf.train.load_checkpoint(str(prefix))
    tree = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    stored = [{value.name: value for value in node.attributes}.get("VARIABLE_VALUE") for node in tree.nodes]
    by_place = {id(found): stored[number] for number, found in _matched(model, tree)}
    by_name: dict[str, list[Any]] = {}
    for value in filter(None, stored):
        by_name.setdefault(value.full_name, []).append(value)
    shapes = reader.get_variable_to_shape_map()
    for variable in model.weights:
        if not hasattr(variable, "shape"):  # a vocabulary: see edgeprune.models.saved_tables
            continue
        named = by_name.get(variable.name.removesuffix(":0"), [])
        candidates = [by_place.get(id(variable)), *(named if len(named) == 1 else ())]
        keys = [value.checkpoint_key for value in candidates if value]
        key = next((key for key in keys if shapes.get(key) == list(variable.shape)), None)
        if key is None:
            raise ValueError(f"its variables hold no {variable.name} of the shape {tuple(variable.shape)}")
        variable.assign(reader.get_tensor(key))


def _matched(model: tf_keras.Model, tree: Any) -> Iterator[tuple[int, object]]:
    """The objects of a model with the numbers of the nodes that they stand at, as their parents call them."""
    import tensorflow as tf

    waiting, seen = [(0, model)], {0}
    while waiting:
        number, found = waiting.pop()
        yield number, found
        children = tf.train.TrackableView.children(found)
        for reference in tree.nodes[number].children:
            if reference.local_name in children and reference.node_id not in seen:
                seen.add(reference.node_id)
                waiting.append((reference.node_id, children[reference.local_name]))


def load_keras_weights(model: tf_keras.Model, file: h5py.File, assets: zipfile.ZipFile | None) -> None:
    """Give a model the weights of a ``.keras`` file of any version of Keras 2, and its vocabularies, if it has any."""
    from tf_keras.src.saving import saving_lib

    if _OLD_CONTAINER in file:
        store: Any = _OldStore(file)
    else:
        store = object.__new__(saving_lib.H5IOStore)  # of a file that is open already
        store.h5_file = file
    for layer in model._flatten_layers(include_self=False):
        if type(layer).__name__ == "QuantizeWrapperV2":
            layer.load_own_variables = functools.partial(_load_without_doubles, layer)
    texts = saving_lib.DiskIOStore("assets", archive=assets, mode="r") if assets else None
    try:
        saving_lib._load_state(model, store, texts, inner_path="", visited_trackables=set())
    finally:
        if texts:
            texts.close()


def _load_without_doubles(layer: Layer, store: Mapping[str, Any]) -> None:
    """Load a wrapper of tfmot that was built twice: weights of the layer in it come first, and once more."""
    own = len(layer._trainable_weights) + len(layer._non_trainable_weights)
    doubles = max(len(store) - own, 0)
    values = {str(number): store[str(number + doubles)] for number in range(len(store) - doubles)}
    kind: Any = type(layer)
    kind.load_own_variables(layer, values)


class _OldStore:
    """The weights that Keras 2.13 and 2.14 wrote, under the paths that tf_keras asks for.

    Layers of one class are numbered in the order of the model, but not one by one: Keras 2.13 counted layers with
    weights twice.
    """

    def __init__(self, file: h5py.File):
        self._file = file
        self._names: dict[str, Mapping[str, str]] = {}

    def get(self, path: str) -> Mapping[str, Any]:
        """The values of the object at a path, as ``load_own_variables`` takes them; none if there is no such object."""
        group: h5py.Group = self._file
        parts = iter(path.split("/") if path else [])
        for part in parts:
            if part == _CONTAINER and _OLD_CONTAINER in group:
                group = group[_OLD_CONTAINER]
                part = self._renumbered(group).get(next(parts, ""), "")
            if not part or part not in group:
                return {}
            group = group[part]
        return group.get("vars", {})

    def _renumbered(self, container: h5py.Group) -> Mapping[str, str]:
        """What a layer in a container is called today → what it is called there."""
        if container.name not in self._names:
            parted = sorted((_parted(name), name) for name in container)
            self._names[container.name] = {
                f"{kind}_{place}" if place else kind: name
                for kind, group in itertools.groupby(parted, lambda item: item[0][0])
                for place, (_, name) in enumerate(group)
            }
        return self._names[container.name]


def _parted(name: str) -> tuple[str, int]:
    """``conv2d_4`` → ``("conv2d", 4)``."""
    kind, number = re.fullmatch(r"(.*?)(?:_(\d+))?", name, re.DOTALL).groups()  # type: ignore[union-attr]
    return kind, int(number or 0)


# Layers whose kernels Theano applied turned around, with how many of their weights are such kernels.
_TURNED = {"Conv1D": 1, "Conv2D": 1, "Conv3D": 1, "Conv2DTranspose": 1, "Conv3DTranspose": 1, "ConvLSTM2D": 2}
_NOT_TURNED = {"SeparableConv1D", "SeparableConv2D", "DepthwiseConv2D"}


def turn_theano_kernels(model: tf_keras.Model) -> None:
    """Turn the kernels of a model that Keras saved on Theano: Theano convolves, TensorFlow correlates.

    Keras 2.0 to 2.2 did so when it loaded the file (``keras.utils.conv_utils.convert_kernel``); tf_keras does not.

    Raises:
        ModelError: a layer of a kind that Keras did not turn, so that what it computed depended on the backend.
    """
    for layer in model._flatten_layers(include_self=False):
        kind = type(layer).__name__
        if kind in _NOT_TURNED:
            raise ModelError(
                f"The layer {layer.name!r} ({kind}) was saved by Keras on Theano, whose kernels of that kind no Keras "
                "turned into TensorFlow's.",
                expected="a model that was saved on TensorFlow, or whose convolutions are all ordinary ones",
                fix="load the model in the Keras that wrote it, on TensorFlow, check its accuracy, and save it again.",
            )
        for kernel in layer.weights[: _TURNED.get(kind, 0)]:
            kernel.assign(_turned(kernel))


def _turned(kernel: Variable) -> np.ndarray:
    """A kernel [positions..., channels, channels] with the order of its positions reversed along every axis."""
    values = np.asarray(kernel)
    return np.flip(values, tuple(range(values.ndim - 2)))
