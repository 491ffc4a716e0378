"""The tables that several commands print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.console import Group, JustifyMethod
from rich.table import Table
from rich.text import Text

from edgeprune.files import JsonObject
from edgeprune.report.format import short
from edgeprune.selection import within

if TYPE_CHECKING:
    from edgeprune.searching.results import Front

_BAR = 24  # characters at most


def profile_table(profile: JsonObject) -> Table:
    """Size, memory and operators of a .tflite file."""
    table = Table(title=f"{profile['file']}: {profile['bytes']:,} bytes, about {profile['gzip_bytes']:,} after gzip")
    for column in ("#", "operator", "version", "output", "MACs", "estimated ms"):
        table.add_column(column, justify="right" if column in ("#", "MACs", "estimated ms") else "left")
    for row in profile["operators"]:
        shape = "x".join(map(str, row["output_shape"] or ()))
        table.add_row(
            str(row["index"]), row["name"], str(row["version"]), shape, f"{row['macs']:,}", _milliseconds(row)
        )
    memory = profile["memory"]
    peak = memory["peak_operator"]
    table.caption = "\n".join(
        [
            f"{profile['params']:,} parameters, {profile['weight_bytes']:,} bytes of weights; "
            f"{_zeros(profile['weight_sparsity'])}",
            f"{profile['macs']:,} MACs; arena {memory['arena_bytes']:,} bytes"
            + (f", at most {memory['peak_bytes']:,} in use at once (operator {peak})" if peak else ""),
            *_micro_line(profile),
            f"needs TensorFlow Lite {profile['min_runtime'] or '(not known)'}, or ai-edge-litert "
            f"{profile['min_litert'] or '(not known)'}, or later",
            *placement_lines(profile),
            *_latency_lines(profile),
            *profile["warnings"],
        ]
    )
    return table


def _micro_line(profile: JsonObject) -> Iterator[str]:
    """What the file takes of a microcontroller."""
    if made := profile["micro"]:
        yield (
            f"on {profile['target']}: {made['flash_bytes']:,} bytes of flash, {made['ram_bytes']:,} of RAM (TensorFlow "
            "Lite Micro's arena, estimated; the arena above is LiteRT's)"
        )


def targets_table(profiles: Sequence[JsonObject]) -> Group:
    """How one file does on several targets; below, each warning with the targets that it is about."""
    first = profiles[0]
    title = f"{first['file']}: {first['bytes']:,} bytes, {first['params']:,} parameters, {first['macs']:,} MACs"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("target", "ms", "80 % range", "kernels", "arena bytes", "accelerator"):
        justify: JustifyMethod = "left" if column in ("target", "kernels", "accelerator") else "right"
        table.add_column(column, justify=justify, no_wrap=True)
    said: dict[str, list[str]] = {}
    for profile in profiles:
        found = profile["latency"]["estimated"]
        if found is None:
            said.setdefault(f"No latency estimate: {profile['latency']['unknown']}.", []).append(profile["target"])
        figures = ["–"] * 3
        if found:
            spread = f"{found['low_ms']:.3g} to {found['high_ms']:.3g}" if found["low_ms"] < found["high_ms"] else "–"
            figures = [f"{found['median_ms']:.3g}", spread, found["kernels"]]
        table.add_row(profile["target"], *figures, f"{profile['memory']['arena_bytes']:,}", _on_accelerator(profile))
        for warning in profile["warnings"]:
            said.setdefault(warning, []).append(profile["target"])
    return Group(table, *(Text(f"{', '.join(dict.fromkeys(names))}: {text}") for text, names in said.items()))


def _on_accelerator(profile: JsonObject) -> str:
    place = profile["placement"]
    if place is None:
        return "–"
    return f"{place['accelerator_ops']} of {place['accelerator_ops'] + place['cpu_ops']}"


def _zeros(sparsity: float | None) -> str:
    return "no kernels" if sparsity is None else f"{sparsity:.1%} of the kernels' weights are zero"


def placement_lines(profile: JsonObject) -> Iterator[str]:
    """Where the operators run, one line for each processor, and what the target's compiler estimates."""
    for place in [*([profile["placement"]] if profile["placement"] else []), *profile["delegates"]]:
        total = place["accelerator_ops"] + place["cpu_ops"]
        unsure = f", {place['uncertain_ops']} of them uncertain" if place["uncertain_ops"] else ""
        yield f"{place['processor']} ({place['source']}): {place['accelerator_ops']} of {total} operators{unsure}"
        yield from dict.fromkeys(f"  {row['name']}: {row['status']}" for row in place["not_mapped"])
        yield from dict.fromkeys(f"  {note}" for note in place.get("notes", ()))
        if place["cached_param_bytes"] is not None:
            yield (
                f"  parameters: {place['cached_param_bytes']:,} bytes cached on the chip, "
                f"{place['streamed_param_bytes'] or 0:,} streamed in each inference"
            )
    if profile["performance"]:
        estimate = profile["performance"]
        yield (
            f"  estimated by the compiler: {estimate['cycles']:,} cycles, {estimate['inference_ms']:.3f} ms, "
            f"{estimate['sram_bytes']:,} bytes of SRAM"
        )


def _milliseconds(row: JsonObject) -> str:
    return "–" if row["estimated_ms"] is None else f"{row['estimated_ms']:.3f}"


def _latency_lines(profile: JsonObject) -> Iterator[str]:
    """The default estimate first, then those with other kernels."""
    latency = profile["latency"]
    if latency["estimated"] is None:
        yield f"no latency estimate: {latency['unknown']}"
        return
    if latency["estimated"]["origin"] == "compiler":  # its figure stands with the placement
        return
    for entry in (latency["estimated"], *latency["others"]):
        yield (
            f"{entry['median_ms']:.3g} ms estimated on {profile['target']} with {entry['kernels']} kernels, "
            f"{entry['threads']} thread{'s' if entry['threads'] != 1 else ''}; 80 % range {entry['low_ms']:.3g} to "
            f"{entry['high_ms']:.3g} ms ({entry['origin']})"
        )
        if entry["range_note"]:
            yield f"  the range is wide: {entry['range_note']}"


def inspection_tables(inspection: JsonObject) -> Iterator[Table]:
    """Layers and groups of a model."""
    layers = Table(
        title=f"{inspection['name']}: {inspection['params']:,} parameters, {inspection['macs']:,} MACs per sample",
        caption="?: no rule counts the MACs; they are missing in the sum." if inspection["uncounted"] else None,
    )
    for column in ("layer", "kind", "output", "parameters", "MACs"):
        layers.add_column(column, justify="right" if column in ("parameters", "MACs") else "left")
    for row in inspection["layers"]:
        shape = str(row["output_shape"])
        macs = "?" if row["name"] in inspection["uncounted"] else f"{row['macs']:,}"
        layers.add_row(row["name"], row["kind"], shape, f"{row['params']:,}", macs)
    yield layers
    groups = Table(
        title=f"{len(inspection['groups'])} groups of channels that can only be removed together",
        caption="One channel removed from a group saves the parameters and MACs given, in all layers together.",
    )
    costs = inspection.get("on_target")
    saving = ("saves parameters", "saves MACs", *(("saves µs",) if costs else ()))
    for column in ("group", "channels", "prunable", "made by", *saving, "frozen because"):
        groups.add_column(column, justify="right" if column.startswith(("channels", "prun", "saves")) else "left")
    for row in inspection["groups"]:
        made_by = ", ".join(row["layers"][:3]) + (
            f" and {len(row['layers']) - 3} more" if len(row["layers"]) > 3 else ""
        )
        saves = [f"{row[f'saves_{what}_per_channel']:,.0f}" if row["prunable"] else "–" for what in ("params", "macs")]
        reasons = row["frozen"] or "; ".join(f"{number}: {reason}" for reason, number in row["reasons"].items())
        if costs:
            saved = costs["groups"].get(row["name"])
            saves.append("–" if saved is None or not row["prunable"] else f"{1e3 * saved:.3g}")
        groups.add_row(row["name"], f"{row['size']:,}", f"{row['prunable']:,}", made_by, *saves, reasons)
    yield groups
    if costs:
        yield _budgets_table(costs)


def _budgets_table(costs: JsonObject) -> Table:
    """What is left under budgets of latency."""
    table = Table(
        title=f"{costs['target']}, {costs['mode']}: {costs['latency_ms']:.3g} ms as estimated; what less would leave",
        caption="Lost: the share of the norms of the weights that goes; no data was looked at. Channels in multiples "
        f"of {costs['multiple']} where that suffices. "
        '`\\[filters] max_latency` takes the milliseconds, or a share such as "60%".',
    )
    for column in ("ms", "of latency", "MACs", "parameters", "lost"):
        table.add_column(column, justify="right")
    table.add_column("", max_width=_BAR)
    most = max((row["lost"] for row in costs["budgets"]), default=0.0)
    for row in costs["budgets"]:
        shares = [f"{100 * row[what]:.1f} %" for what in ("latency", "macs", "params", "lost")]
        # Budgets are evenly spaced, so that the bars are a plot of loss against latency.
        table.add_row(f"{row['latency_ms']:.3g}", *shares, Bar(most, 0, row["lost"]))
    return table


def sensitivity_table(document: JsonObject) -> Table:
    """The drop of each group at each rate, the rate that it tolerates, and the recommended one."""
    metric, measured = document["metric"], [group for group in document["groups"] if group["points"]]
    baseline, percent = document["baseline"]["metric"], metric["points"] == 100
    budget = ", ".join(f"{key} = {value:g}" for key, value in document["budget"].items())
    table = Table(
        title=f"Drop of {metric['name']}{' in points' if percent else ''}, each group pruned alone, without training",
        caption=f"Unpruned: {f'{100 * baseline:.2f} %' if percent else f'{baseline:.4g}'} on "
        f"{document['data']['samples']:,} validation samples. Tolerated: the rate at which the group alone costs "
        f"at most {document['allowed_drop']:.3g}{' points' if percent else ''}. "
        f"Take: {document['recommendation']} ({budget}).",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("group", overflow="fold", min_width=min(12, max((len(g["name"]) for g in measured), default=5)))
    for column in ("filters", *(f"{100 * rate:g} %" for rate in document["rates"]), "tolerated", "take"):
        table.add_column(column, justify="right")
    for group in measured:
        drops = [_nearest(group["points"], rate)["drop_points"] for rate in document["rates"]]
        cells = [
            Text(f"{drop:.2f}" if percent else short(drop), "" if within(drop, document["allowed_drop"]) else "red")
            for drop in drops
        ]
        rates = (group["tolerated_rate"], group["recommended_rate"])
        cells += [Text("–" if rate is None else f"{100 * rate:.0f} %", "bold") for rate in rates]
        table.add_row(Text(group["name"]), str(group["channels"]), *cells)
    return table


def _nearest(points: list[JsonObject], rate: float) -> JsonObject:
    """The point that a rate was rounded to."""
    return min(points, key=lambda point: abs(point["rate"] - rate))


def front_table(front: Front) -> Table:
    """The files of a search that no other one beats, and the one that is handed over."""
    table = Table(title=f"Front for {front.target}", box=SIMPLE_HEAD)
    for column in ("trial", "trained", "validation", "test", "drop on test", "latency ms", "bytes", "after gzip"):
        table.add_column(column, justify="left" if column == "trained" else "right")
    for trial in front.trials:
        is_best = front.best is not None and (trial.number, trial.rung) == (front.best.number, front.best.rung)
        table.add_row(
            f"{trial.number}{' (pick)' if is_best else ''}",
            trial.rung,
            f"{trial.value:.5g}",
            "–" if trial.test_value is None else f"{trial.test_value:.5g}",
            "–" if trial.test_drop is None else f"{trial.test_drop:.3g}",
            "–" if trial.latency_ms is None else f"{trial.latency_ms:.4g}",
            f"{trial.bytes:,}",
            f"{trial.gzip_bytes:,}",
        )
    return table
