"""What the Edge TPU will make of a .tflite: operators mapped, parameter bytes cached on the chip and streamed."""

from __future__ import annotations

from edgeprune.hardware.edgetpu.parameters import parameters
from edgeprune.hardware.edgetpu.rules import EDGE_TPU
from edgeprune.hardware.placement import Placement, place, summarize
from edgeprune.tflite.graph import Subgraph


def edgetpu_placement(graph: Subgraph, cache_bytes: int | None = None) -> Placement:
    """Predict what edgetpu_compiler 16 makes of a graph.

    Args:
        graph: the main subgraph of a full-integer file.
        cache_bytes: SRAM for parameters.
    """
    placed, partitions = place(EDGE_TPU, graph)
    kept = parameters(graph, {spot.index for spot in placed if spot.on_accelerator}, cache_bytes)
    cached, streamed = sum(kept.cached.values()), sum(kept.streamed.values())
    return summarize(EDGE_TPU, placed, partitions, cached, streamed, list(kept.notes))
