"""Tables that commands print."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table


def profile_table(found: dict[str, Any]) -> Table:
    """Size, memory and operators of a .tflite file."""
    table = Table(title=f"{found['file']}: {found['bytes']:,} bytes, {found['gzip_bytes']:,} after gzip")
    for column in ("#", "operator", "version", "output", "MACs"):
        table.add_column(column, justify="right" if column in ("#", "MACs") else "left")
    for row in found["operators"]:
        shape = "x".join(map(str, row["output_shape"] or ()))
        table.add_row(str(row["index"]), row["name"], str(row["version"]), shape, f"{row['macs']:,}")
    memory = found["memory"]
    table.caption = "\n".join(
        [
            f"{found['params']:,} parameters, {_zeros(found['weight_sparsity'])}",
            f"{found['macs']:,} MACs; arena {memory['arena_bytes']:,} bytes, most in use at {memory['peak_operator']}",
            *placement_lines(found),
            *found["warnings"],
        ]
    )
    return table


def _zeros(sparsity: float | None) -> str:
    return "no kernels" if sparsity is None else f"{sparsity:.1%} of the kernel weights are zero"


def placement_lines(found: dict[str, Any]) -> Iterator[str]:
    """Where the operators run, one line for each processor, and what the target's compiler estimates."""
    for place in [*([found["placement"]] if found["placement"] else []), *found["delegates"]]:
        total = place["accelerator_ops"] + place["cpu_ops"]
        unsure = f", {place['uncertain_ops']} of them in doubt" if place["uncertain_ops"] else ""
        yield f"{place['processor']} ({place['source']}): {place['accelerator_ops']} of {total} operators{unsure}"
        yield from dict.fromkeys(f"  {row['name']}: {row['status']}" for row in place["not_mapped"])
        if place["cached_param_bytes"] is not None:
            yield (
                f"  parameters: {place['cached_param_bytes']:,} bytes cached on the chip, "
                f"{place['streamed_param_bytes'] or 0:,} streamed in each inference"
            )
    if found["performance"]:
        estimate = found["performance"]
        yield (
            f"  estimated by the compiler: {estimate['cycles']:,} cycles, {estimate['inference_ms']:.3f} ms, "
            f"{estimate['sram_bytes']:,} bytes of SRAM"
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
