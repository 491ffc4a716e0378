"""Tables that commands print."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table


def profile_table(found: dict[str, Any]) -> Table:
    """Size, memory and operators of a .tflite file."""
    table = Table(title=f"{found['file']}: {found['bytes']:,} bytes, {found['gzip_bytes']:,} after gzip")
    for column in ("#", "operator", "version", "output", "MACs", "estimated ms"):
        table.add_column(column, justify="right" if column in ("#", "MACs", "estimated ms") else "left")
    for row in found["operators"]:
        shape = "x".join(map(str, row["output_shape"] or ()))
        table.add_row(
            str(row["index"]), row["name"], str(row["version"]), shape, f"{row['macs']:,}", _milliseconds(row)
        )
    memory = found["memory"]
    table.caption = "\n".join(
        [
            f"{found['params']:,} parameters, {found['weight_sparsity']:.1%} of the kernel weights are zero",
            f"{found['macs']:,} MACs; arena {memory['arena_bytes']:,} bytes, most in use at {memory['peak_operator']}",
            *_latency_lines(found),
            *found["warnings"],
        ]
    )
    return table


def _milliseconds(row: dict[str, Any]) -> str:
    return "–" if row["estimated_ms"] is None else f"{row['estimated_ms']:.3f}"


def _latency_lines(found: dict[str, Any]) -> Iterator[str]:
    """The default estimate first, then those with other kernels."""
    latency = found["latency"]
    if latency["estimated"] is None:
        yield f"no latency estimate: nothing is known about the speed of {found['target']}"
        return
    for entry in (latency["estimated"], *latency["others"]):
        yield (
            f"{entry['median_ms']:.3g} ms estimated on {found['target']} with {entry['kernels']} kernels, "
            f"{entry['threads']} thread{'s' if entry['threads'] != 1 else ''}; 80 % range {entry['low_ms']:.3g} to "
            f"{entry['high_ms']:.3g} ms ({entry['origin']})"
        )


def inspection_tables(found: dict[str, Any]) -> Iterator[Table]:
    """Layers and groups of a model."""
    layers = Table(title=f"{found['name']}: {found['params']:,} parameters, {found['macs']:,} MACs per sample")
    for column in ("layer", "kind", "output", "parameters", "MACs"):
        layers.add_column(column, justify="right" if column in ("parameters", "MACs") else "left")
    for row in found["layers"]:
        shape = str(row["output_shape"])
        layers.add_row(row["name"], row["kind"], shape, f"{row['params']:,}", f"{row['macs']:,}")
    yield layers
    groups = Table(
        title=f"{len(found['groups'])} groups of channels that can only be removed together",
        caption="One channel removed from a group saves the parameters and MACs given, in all layers together.",
    )
    for column in ("group", "channels", "made by", "saves parameters", "saves MACs", "frozen because"):
        groups.add_column(column, justify="right" if column.startswith(("channels", "saves")) else "left")
    for row in found["groups"]:
        made_by = ", ".join(row["layers"][:3]) + (
            f" and {len(row['layers']) - 3} more" if len(row["layers"]) > 3 else ""
        )
        saves = [f"{row[f'saves_{what}_per_channel']:,.0f}" if row["prunable"] else "–" for what in ("params", "macs")]
        groups.add_row(row["name"], f"{row['size']:,}", made_by, *saves, row["frozen"] or "")
    yield groups
