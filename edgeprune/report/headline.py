"""What was built, which variant is the pick and why, in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from edgeprune.report import format as fmt
from edgeprune.report.schema import Report, Variant
from edgeprune.report.variants import Setup
from edgeprune.selection import DEFAULT_MAX_DROP, MaxDrop, recorded, slowdown, target_times

ROLES = {
    "quality": "best on validation data",
    "balanced": "fastest on the target among those within the limits, and the smallest of those as fast",
    "compact": "smallest after compression",
}


@dataclass(frozen=True)
class Tile:
    """One figure of the pick, with the baseline's for comparison."""

    label: str
    value: str
    comparison: str
    exact: str | None = None


def title(report: Report) -> str:
    return f"{report.model.name} for {targets(report)}"


def targets(report: Report) -> str:
    """The target, or several."""
    return ", ".join(one.name for one in report.targets) or report.target.name


def built(report: Report) -> str:
    """What was built, in one sentence."""
    number = len(report.variants)
    made = "one variant" if number == 1 else f"{number} variants"
    names = [entry.name for entry in report.missing]
    lost = f" {' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing: see the warnings." if names else ""
    recipes = report.recipe.split(" + ")
    word = "recipe" if len(recipes) == 1 else "recipes"
    return (
        f"edgeprune built {made} of {report.model.name} for {targets(report)}, with the {word} "
        f"{' and '.join(recipes)}, and measured each file.{lost}"
    )


def pick_figures(report: Report) -> str:
    """The pick and its numbers against the baseline's, in one sentence."""
    pick, base = report.picked, report.baseline
    parts = [part for part in (_quality(report), _size(pick, base), _latency(report)) if part]
    name = f"The pick is {pick.name}" + (", the unpruned baseline itself" if pick.baseline else "")
    return f"{name}: {'; '.join(parts)}."


def why(report: Report) -> str:
    """Why the pick is the pick (the rule is that of :func:`edgeprune.selection.choose`), and what is not faster."""
    return " ".join(part for part in (_reason(report), _slower(report)) if part)


def _slower(report: Report) -> str:
    """The variants that were measured slower than the baseline: people expect the opposite of small numbers."""
    base = report.baseline
    found = [(v.name, slow) for v in report.variants if base and not v.baseline and (slow := slowdown(v, base))]
    if not base or not found:
        return ""
    listed = [
        f"{name} (takes {slow.factor:.2g} times as long on {slow.device.partition(': ')[0]})" for name, slow in found
    ]
    return f"Measured slower than {base.name}: {', '.join(listed)}."


def _reason(report: Report) -> str:
    if len(report.variants) == 1:
        return "It is the only variant."
    if report.pick != report.picks.balanced:
        roles = [words for role, words in ROLES.items() if getattr(report.picks, role) == report.pick]
        return f"It is the {' and the '.join(roles)}." if roles else "It was chosen by the command."
    metric = fmt.metric_word(report.metric)
    gates = {gate.name: gate for gate in report.gates}
    allowed = _rule(report)
    others = {"max_size": "size", "max_latency": "latency", "max_flash": "flash", "max_ram": "RAM"}
    if not _fits(report, allowed) or any(not gates[name].passed for name in others if name in gates):
        return f"No variant keeps all the limits, so it is the one with the best {metric} on validation data."
    limits = [words for name, words in others.items() if name in gates]
    clauses = [f"keep the {' and '.join(limits)} limit{'s' if len(limits) > 1 else ''}"] if limits else []
    base = report.baseline
    if base and any(slowdown(v, base) for v in report.variants) and not slowdown(report.picked, base):
        clauses.append(f"were not measured slower than {base.name}")
    kept = "".join(f" and {clause}" for clause in clauses)
    times = target_times(report.variants)
    source = "measured" if times and times.measured else "estimated"
    fast = f", and of those as fast on the target as the fastest ({source})" if times else ""
    return (
        f"Of the variants that lose at most {allowed.words(report.metric)} of {metric} on validation data{kept}{fast}, "
        f"it is the smallest {'in flash' if report.picked.micro else 'after compression (gzip)'}."
    )


def fits_line(report: Report) -> str:
    """Flash and RAM of the pick on a microcontroller, and whether it fits there; empty for other targets."""
    micro = report.picked.micro
    if micro is None:
        return ""
    limits = {gate.name: gate.limit for gate in report.gates}
    words, over = [], []
    for title, value, limit in (
        ("flash", micro.flash_bytes, limits.get("max_flash")),
        ("RAM", micro.ram_bytes, limits.get("max_ram")),
    ):
        words.append(f"{title} {value:,}" + ("" if limit is None else f" of {limit:,.0f}"))
        if limit is not None and value > limit:
            over.append(f"{value - limit:,.0f} bytes of {title}")
    verdict = f"does not fit, {' and '.join(over)} over" if over else "fits" if limits.keys() & _MEMORY else "takes"
    return f"{verdict}: {', '.join(words)} bytes (RAM: {recorded(micro)})"


# Gates of a microcontroller's memory.
_MEMORY = {"max_flash", "max_ram"}


def gates_line(report: Report) -> str:
    """How many gates were passed, those of all targets; empty if none was set."""
    named = [(f"{board.name}: {gate.name}", gate) for board in report.targets for gate in board.gates]
    named = named or [(gate.name, gate) for gate in report.gates]
    missed = [name for name, gate in named if not gate.passed]
    if not named:
        return ""
    if not missed:
        return f"Gates: {len(named)} of {len(named)} passed."
    return f"Gates: {len(missed)} of {len(named)} missed ({', '.join(missed)})."


def warning_messages(report: Report) -> list[tuple[str, str]]:
    """All warnings with what each is about. One that several variants share is given once."""
    about: dict[str, list[str]] = {text: [] for text in report.warnings}
    for variant in report.variants:
        for text in variant.warnings:
            if text not in report.warnings:
                about.setdefault(text, []).append(variant.name)
        for board, there in (variant.targets or {}).items():
            for text in there.warnings:
                if text not in variant.warnings and board not in about.setdefault(text, []):
                    about[text].append(board)
    missing = [(entry.name, " ".join(filter(None, ("Missing.", entry.what, entry.fix)))) for entry in report.missing]
    return [*missing, *((", ".join(names), text) for text, names in about.items())]


def pick_file(report: Report) -> str:
    """Name of the pick's copy at the top of the run folder, NAME.tflite."""
    name = PurePosixPath(report.picked.file).name
    ending = f"-{report.pick}.tflite"
    return name.removesuffix(ending) + ".tflite" if name.endswith(ending) else f"{report.model.name}.tflite"


def tiles(report: Report) -> list[Tile]:
    """The pick's figures that people ask for first."""
    pick, base = report.picked, report.baseline
    other = None if pick.baseline else base
    size, packed = fmt.size(pick.bytes), fmt.size(pick.gzip_bytes)
    value = fmt.metric_value(report.metric, pick.metric.value if pick.metric else None)
    shown = [
        Tile(fmt.metric_name(report.metric), value.text, _against(report, other), value.exact),
        Tile("File", size.text, _beside(pick.bytes, other.bytes if other else None), size.exact),
        Tile(
            "Compressed (gzip)",
            packed.text,
            _beside(pick.gzip_bytes, other.gzip_bytes if other else None),
            packed.exact,
        ),
    ]
    if pick.latency.measured:
        entry = pick.latency.measured[0]
        setup = Setup.of(entry)
        before = setup.find(other) if other else None
        compared = fmt.relative(entry.median_ms, before.median_ms if before else None, "less", "more")
        comparison = f"baseline {fmt.milliseconds(before.median_ms)}, {compared}. " if before else ""
        shown.append(
            Tile(
                f"Latency measured on {setup.place}",
                fmt.milliseconds(entry.median_ms),
                f"{comparison}Median of {entry.runs:,} runs; {setup.software}",
                f"{fmt.plain(entry.median_ms)} ms",
            )
        )
    if pick.latency.estimated:
        guess = pick.latency.estimated
        shown.append(
            Tile(
                f"Latency estimated on {report.target.name}",
                fmt.milliseconds(guess.median_ms),
                f"between {fmt.short(guess.low_ms)} and {fmt.milliseconds(guess.high_ms)} in about 80 % of cases"
                if guess.low_ms < guess.high_ms
                else f"by {guess.model_version}, which gives no range",
                f"{fmt.plain(guess.median_ms)} ms",
            )
        )
    return shown


def _rule(report: Report) -> MaxDrop:
    """What the balanced pick may lose; older reports say it in points, if at all."""
    if report.max_drop is not None:
        return MaxDrop(report.max_drop.points, report.max_drop.part)
    points = next((gate.limit for gate in report.gates if gate.name == "max_drop"), None)
    return DEFAULT_MAX_DROP if points is None or not fmt.is_percent(report.metric) else MaxDrop(points)


def _fits(report: Report, allowed: MaxDrop) -> bool:
    pick, base = report.picked, report.baseline
    if base is None or base.validation is None or pick.validation is None:
        return True  # nothing says otherwise
    return allowed.allows(report.metric, base.validation.value, pick.validation.value)


def _quality(report: Report) -> str:
    pick, base = report.picked, report.baseline
    if pick.metric is None:
        return ""
    text = (
        f"{fmt.metric_value(report.metric, pick.metric.value).text} {fmt.metric_word(report.metric)} on "
        f"{pick.metric.samples:,} {pick.metric.split} samples"
    )
    if pick.baseline or base is None or base.metric is None:
        return text
    change = fmt.change(report.metric, pick, base).text
    return f"{text} ({change} against the baseline's {fmt.metric_value(report.metric, base.metric.value).text})"


def _size(pick: Variant, base: Variant | None) -> str:
    parts = [f"{fmt.size(pick.bytes).text}" + _versus(pick.bytes, base.bytes if base else None, pick.baseline)]
    if pick.gzip_bytes is not None:
        packed = _versus(pick.gzip_bytes, base.gzip_bytes if base else None, pick.baseline)
        parts.append(f"{fmt.size(pick.gzip_bytes).text} compressed{packed}")
    return ", ".join(parts)


def _versus(value: int, base: int | None, is_baseline: bool) -> str:
    words = "" if is_baseline else fmt.relative(value, base)
    return f" ({words})" if words else ""


def _latency(report: Report) -> str:
    pick, base = report.picked, report.baseline
    if not pick.latency.measured:
        return ""
    entry = pick.latency.measured[0]
    before = Setup.of(entry).find(base) if base and not pick.baseline else None
    beside = f" (baseline {fmt.milliseconds(before.median_ms)})" if before else ""
    setup = Setup.of(entry)
    return f"{fmt.milliseconds(entry.median_ms)}{beside} measured on {setup.place}, {setup.software}"


def _against(report: Report, base: Variant | None) -> str:
    if base is None or base.metric is None:
        return ""
    change = fmt.change(report.metric, report.picked, base).text
    return f"baseline {fmt.metric_value(report.metric, base.metric.value).text}, {change}"


def _beside(value: int | None, base: int | None) -> str:
    words = fmt.relative(value, base)
    return f"baseline {fmt.size(base).text}, {words}" if words else ""
