"""The vocabularies in a SavedModel of Keras 2, read as data: nothing of its graph is run.

A table is filled by a function of the graph that imports two constants, words and their numbers. The object graph leads
from a layer to that function, and names the constants that it takes (saved_object_graph.proto).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.models.front import TABLES

if TYPE_CHECKING:
    import tf_keras


def fill_tables(model: tf_keras.Model, folder: Path) -> None:
    """Give the lookup layers of ``model`` their vocabularies; those whose words cannot be found stay empty.

    Args:
        model: built from the configuration in the SavedModel, without weights.
        folder: the SavedModel.
    """
    if not any(type(layer).__name__ in TABLES for layer in model._flatten_layers()):
        return
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((folder / "saved_model.pb").read_bytes())
        graph = saved.meta_graphs[0]
    except (DecodeError, IndexError):
        return
    for layer, node in _layers(model, graph.object_graph_def.nodes, 0):
        words = _words(graph, node)
        mode = getattr(layer, "output_mode", None) or getattr(layer, "_output_mode", None)
        if words and mode != "tf_idf":  # whose weights are elsewhere
            layer.set_vocabulary(words)


def _layers(model: tf_keras.Model, nodes: Any, at: int) -> Iterator[tuple[Any, int]]:
    """Every lookup layer, with the place of its table in the object graph."""
    for number, layer in enumerate(model.layers):
        node = _child(nodes, at, f"layer-{number}")
        if node is None:
            continue
        if type(layer).__name__ in TABLES:
            inner = _child(nodes, node, "_lookup_layer")
            table = _child(nodes, node if inner is None else inner, "lookup_table")
            if table is not None:
                yield layer, table
        elif hasattr(layer, "layers"):
            yield from _layers(layer, nodes, node)


def _child(nodes: Any, at: int, name: str) -> int | None:
    children = nodes[at].children if at < len(nodes) else ()
    return next((int(child.node_id) for child in children if child.local_name == name), None)


def _words(graph: Any, table: int) -> list[str] | list[int] | None:
    """The keys of a table in the order of their numbers."""
    from tensorflow import make_ndarray

    objects = graph.object_graph_def
    initialize = _child(objects.nodes, table, "_initialize")
    if initialize is None or initialize >= len(objects.nodes):
        return None
    functions = objects.nodes[initialize].function.concrete_functions
    bound = objects.concrete_functions[functions[0]].bound_inputs if functions else ()
    constants = {node.name: node for node in graph.graph_def.node if node.op == "Const"}
    names = [objects.nodes[i].constant.operation for i in bound if i < len(objects.nodes)]
    found = [make_ndarray(constants[name].attr["value"].tensor) for name in names if name in constants]
    if len(found) != 2 or found[0].shape != found[1].shape or found[0].ndim != 1:
        return None
    keys, values = found
    ordered = keys[np.argsort(values)]
    if ordered.dtype.kind in "iu":
        return [int(key) for key in ordered]
    return [key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key) for key in ordered]
