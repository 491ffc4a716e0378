"""Figures of operators as node data for Google's Model Explorer, which lays them over the graph of a .tflite.

A file holds one figure: graph → node → value, as ``model_explorer.node_data_builder.ModelNodeData`` writes it. The
nodes of a .tflite are named by the indices of its operators, and the graph after the main subgraph.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.files import JsonObject, write_json

if TYPE_CHECKING:
    from edgeprune.profiling.profile import Profile
    from edgeprune.tflite.operators import OperatorRow

# Figure, which is a file's name → its value for an operator; an operator without one has no entry.
FIGURES: dict[str, Callable[[OperatorRow], float | str | None]] = {
    "estimated_ms": lambda row: row.estimated_ms,
    "macs": lambda row: row.macs,
    "weight_bytes": lambda row: row.weight_bytes,
    "weight_sparsity": lambda row: row.weight_sparsity,
    "placement": lambda row: {True: "accelerator", False: "CPU", None: None}[row.on_accelerator],
}
_GRADIENT = [{"stop": 0, "bgColor": "#ffffff"}, {"stop": 1, "bgColor": "#6cb0ff"}]
_COLOURS = {"accelerator": "#a8dab5", "CPU": "#f6c7b6"}


def node_data(profile: Profile) -> dict[str, JsonObject]:
    """The documents by figure; figures that no operator has are left out."""
    documents = {}
    for figure, read in FIGURES.items():
        values = {str(row.index): value for row in profile.operators if (value := read(row)) is not None}
        if values:
            coloured = {
                node: {"value": value, **({"bgColor": _COLOURS[value]} if isinstance(value, str) else {})}
                for node, value in values.items()
            }
            look = {} if figure == "placement" else {"gradient": _GRADIENT}
            documents[figure] = {profile.graph or "main": {"name": figure, "results": coloured, **look}}
    return documents


def write_node_data(profile: Profile, folder: Path) -> list[Path]:
    """Write FIGURE.json for each figure; returns the paths.

    Raises:
        OutputError: the folder cannot be written.
    """
    written = []
    for figure, document in node_data(profile).items():
        written.append(folder / f"{figure}.json")
        write_json(written[-1], document)
    return written
