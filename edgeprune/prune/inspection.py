"""What can be pruned from a model, and what it would save: the facts behind ``edgeprune inspect``."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgeprune.files import JsonObject
from edgeprune.models.count import count
from edgeprune.models.finite import first_not_finite
from edgeprune.models.shapes import shapes_with_batch
from edgeprune.models.sizes import for_a_look
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.channels.graph import Group
from edgeprune.prune.choice.budget import unit_savings

if TYPE_CHECKING:
    import tf_keras


def inspect_model(model: tf_keras.Model) -> JsonObject:
    """Layers with parameters and MACs, and groups with size, layers, reasons of what is frozen, saving per channel.

    ``uncounted``: layers whose MACs no rule knows; they count 0. ``note``: for which sizes the figures are, where the
    model leaves its inputs' open, and which weights are no numbers; None where there is nothing to say.
    """
    model, sizes = for_a_look(model)
    notes = [said for said in (sizes, first_not_finite(model)) if said]
    graph, counts = analyse(model), count(model)
    saved = {what: unit_savings(graph, graph.groups, what) for what in ("params", "macs")}
    return {
        "name": model.name,
        "input_shape": shapes_with_batch(model.inputs),
        "note": "\n".join(notes) or None,
        "params": counts.params,
        "macs": counts.macs,
        "uncounted": list(counts.uncounted),
        "layers": [dataclasses.asdict(layer) for layer in counts.layers],
        "groups": [_group(group, {what: saved[what][group.name] for what in saved}) for group in graph.groups],
    }


def _group(group: Group, saved: Mapping[str, float]) -> JsonObject:
    return {
        "name": group.name,
        "size": group.size,
        "prunable": len(group.free),
        "frozen": group.frozen,
        "reasons": dict(collections.Counter(group.reasons.values())),
        "layers": list(group.layers),
        "members": [{"layer": m.layer, "weight": m.weight, "axis": m.axis, "role": m.role} for m in group.members],
        "saves_params_per_channel": round(saved["params"]),
        "saves_macs_per_channel": saved["macs"],
    }
