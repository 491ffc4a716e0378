"""What can be pruned from a model, and what it would save: the facts behind ``edgeprune inspect``."""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.models.count import count
from edgeprune.prune.graph import Graph, Group, analyse

if TYPE_CHECKING:
    import tf_keras


def inspect_model(model: tf_keras.Model) -> dict[str, Any]:
    """Layers with parameters and MACs, and groups with size, layers, reasons of what is frozen, saving per channel.

    ``uncounted``: layers whose MACs no rule knows; they count 0.
    """
    graph, counts = analyse(model), count(model)
    return {
        "name": model.name,
        "params": counts.params,
        "macs": counts.macs,
        "uncounted": list(counts.uncounted),
        "layers": [dataclasses.asdict(layer) for layer in counts.layers],
        "groups": [_group(graph, group) for group in graph.groups],
    }


def _group(graph: Graph, group: Group) -> dict[str, Any]:
    keep = np.ones(len(graph.units), bool)
    macs, params = graph.count_macs(keep), graph.count_params(keep)
    free = [number for number in range(group.size) if number not in group.reasons]
    if free:
        keep[group.units[free[0]]] = False
    return {
        "name": group.name,
        "size": group.size,
        "prunable": len(free),
        "frozen": group.frozen,
        "reasons": dict(collections.Counter(group.reasons.values())),
        "layers": list(group.layers),
        "members": [{"layer": m.layer, "weight": m.weight, "axis": m.axis, "role": m.role} for m in group.members],
        "saves_params_per_channel": params - graph.count_params(keep),
        "saves_macs_per_channel": macs - graph.count_macs(keep),
    }
