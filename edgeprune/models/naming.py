"""Names of layers: which ones TensorFlow takes, and which layer a name in a converted file comes from."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeprune.models.layer_facts import KERNEL_ATTRIBUTES

if TYPE_CHECKING:
    import tf_keras


def scope_name(name: str) -> str:
    """A name of a model or layer as TensorFlow takes it for a scope; unchanged if it is one."""
    return re.sub(r"^(?![A-Za-z0-9.])", "layer_", re.sub(r"[^A-Za-z0-9_./>-]", "_", name))


@functools.cache
def plain_scopes() -> None:
    """Let tf_keras name the operations of a layer as TensorFlow takes it: a backslash passes its check of names, and
    the graph that holds it does not run."""
    from tf_keras.src.engine import base_layer

    named = base_layer.Layer._name_scope

    @functools.wraps(named)
    def plain(self: tf_keras.layers.Layer) -> str:
        return _in_graphs(str(named(self)))

    base_layer.Layer._name_scope = plain


def layers_of(names: Sequence[str], model: tf_keras.Model) -> tuple[str, ...]:
    """The layers that graph names such as ``model/block/conv/BiasAdd;model/block/conv/Conv2D`` come from, in order."""
    known = sorted((layer.name for layer in model.layers), key=len, reverse=True)
    layers = (_layer_in(part, known) for name in names for part in name.split(";"))
    return tuple(dict.fromkeys(layer for layer in layers if layer))


def layer_of(tensor: str, model: tf_keras.Model) -> str | None:
    """The layer that computes a tensor of a .tflite.

    What is fused into one operator is named together; of these, the layer with a kernel does the computing.
    """
    names = layers_of([tensor], model)
    weighted = (n for n in names if any(hasattr(model.get_layer(n), key) for key in KERNEL_ATTRIBUTES))
    return next(weighted, names[0] if names else None)


def _layer_in(scope: str, known: Sequence[str]) -> str | None:
    """The longest layer name that is whole path parts of ``scope``; layer names may hold slashes themselves."""
    inner = f"/{scope.partition('@')[0]}/"
    return next((name for name in known if f"/{_in_graphs(name)}/" in inner), None)


def _in_graphs(name: str) -> str:
    """A name of tf_keras as :func:`plain_scopes` has it in graphs."""
    return name.replace("\\", "_")
