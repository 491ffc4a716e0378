"""Which variant is the pick, whether it passes the gates, and what both rest on: how much a metric may drop.

Choices look at validation figures only.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from edgeprune.errors import UsageError
from edgeprune.files import JsonObject
from edgeprune.target import Target

Measurable: TypeAlias = Any  # a variant, as report.json has it or typed: both have their keys in brackets


class Scale(Protocol):
    """Which way a metric is better, and its unit; ``points``: factor from a difference to points, 100 for fractions."""

    @property
    def higher_is_better(self) -> bool: ...
    @property
    def points(self) -> float: ...


def drop_points(metric: Scale, baseline: float, value: float) -> float:
    """How much worse ``value`` is than ``baseline`` (negative: better), in points; in the metric's unit if it is no
    fraction."""
    return (baseline - value) * metric.points * (1 if metric.higher_is_better else -1)


def within(value: float, limit: float) -> bool:
    """Whether a drop, or another cost, keeps its limit. What is not a number keeps none."""
    return value <= limit


@dataclasses.dataclass(frozen=True)
class MaxDrop:
    """The most that a metric may lose against a baseline: one rule for picks, gates, mixed precision, sensitivity.

    At least one of the two is given.

    Attributes:
        points: of a metric that is a fraction.
        part: of the baseline's value: for metrics in their own unit; for fractions, too, if ``points`` is None.
    """

    points: float | None = None
    part: float | None = None

    @staticmethod
    def parse(text: str | float) -> MaxDrop:
        """``1`` and ``"1"`` are points, ``"5%"`` is a part of the baseline's value.

        Raises:
            UsageError: neither, or negative.
        """
        words = str(text).strip()
        try:
            value = float(words.removesuffix("%"))
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise UsageError(
                f"A largest drop of {text!r} is not understood.",
                expected='points of a fraction such as accuracy ("1"), or a part of the metric\'s value ("5%").',
            )
        return MaxDrop(part=value / 100) if words.endswith("%") else MaxDrop(points=value)

    def limit(self, metric: Scale, baseline: float) -> float:
        """The same in what :func:`drop_points` gives.

        Raises:
            UsageError: points of a metric that is no fraction.
        """
        if metric.points == 100 and self.points is not None:
            return self.points
        if self.part is None:
            raise UsageError(
                f"A largest drop of {self.points:g} is in points, and the metric is in its own unit.",
                expected='a part of its value: "5%".',
                fix='write --max-drop 5% (in a recipe: max_drop = "5%").',
            )
        return self.part * abs(baseline) * metric.points

    def require_unit(self, metric: Scale, line: str) -> None:
        """Make sure that it is in a unit that the metric has; ``line``: what to write where it is not.

        Raises:
            UsageError: points of a metric that is no fraction.
        """
        try:
            self.limit(metric, 1.0)
        except UsageError as error:
            raise UsageError(error.what, expected=error.expected, fix=f"write {line}.") from None

    def allows(self, metric: Scale, baseline: float, value: float) -> bool:
        """Whether ``value`` is not too much worse than ``baseline``."""
        return within(drop_points(metric, baseline, value), self.limit(metric, baseline))

    def words(self, metric: Scale) -> str:
        """What is allowed, for people, to be followed by "of" and the metric: "2 points", "5 % of the value"."""
        if metric.points == 100 and self.points is not None:
            return f"{self.points:g} point{'' if self.points == 1 else 's'}"
        return f"{100 * (self.part or 0):g} % of the value"


# What the balanced pick may lose on validation where no --max-drop says otherwise.
DEFAULT_MAX_DROP = MaxDrop(2.0, part=0.05)
# What the metric may lose on test against an earlier build where the recipe does not say.
DEFAULT_REGRESSION_DROP = MaxDrop(1.0, part=0.02)
# From which factor on a variant is slower than the baseline: on the target, past the noise of a measurement; elsewhere,
# where other kernels run than on the target, only what is gross.
SLOWER_ON_TARGET, SLOWER_ELSEWHERE = 1.1, 2.0
# What mixed precision may lose where the recipe does not say.
DEFAULT_MIXED_DROP = MaxDrop(0.5, part=0.01)
# What grids for encoded weights may lose where the recipe does not say.
DEFAULT_CODED_DROP = MaxDrop(1.0, part=0.02)


_MULTIPLES = {"": 1, "k": 2**10, "m": 2**20}


def parse_bytes(text: str) -> int:
    """``64k`` is 65536 and ``1m`` is 1048576, as memories of microcontrollers are counted; ``65536`` is that.

    Raises:
        UsageError: none of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([km]?)\s*", text.lower())
    if match is None or not float(match[1]):
        raise UsageError(f"{text!r} is no amount of memory.", expected="bytes, with k or m for KiB or MiB: 65536, 64k.")
    return int(float(match[1]) * _MULTIPLES[match[2]])


@dataclasses.dataclass(frozen=True)
class Limits:
    """The gates that the user set; None: not set. ``max_drop`` as :meth:`MaxDrop.parse` takes it.

    Raises:
        UsageError: ``max_drop`` is not understood, or another limit is no positive number.
    """

    max_drop: str | float | None = None
    max_size: int | None = None  # bytes
    max_latency: float | None = None  # ms
    max_flash: int | None = None  # bytes, of the file as it is flashed on a microcontroller
    max_ram: int | None = None  # bytes, of its arena

    def __post_init__(self) -> None:
        _ = self.drop  # which parses it
        for field in dataclasses.fields(self):
            most = getattr(self, field.name)
            if field.name != "max_drop" and most is not None and not (math.isfinite(most) and most > 0):
                option = f"--{field.name.replace('_', '-')}"
                raise UsageError(
                    f"{option} {most:g} is no limit for a file.",
                    expected="a number above 0: of milliseconds for --max-latency, of bytes for the others.",
                )

    @property
    def drop(self) -> MaxDrop:
        """What the balanced pick may lose."""
        return DEFAULT_MAX_DROP if self.max_drop is None else MaxDrop.parse(self.max_drop)

    @property
    def of_micro(self) -> dict[str, int]:
        """The limits of memory on a microcontroller that are set."""
        limits = {"flash": self.max_flash, "ram": self.max_ram}
        return {what: most for what, most in limits.items() if most is not None}

    def check(self, targets: Sequence[Target]) -> None:
        """Refuse limits that are about none of the targets.

        Raises:
            UsageError: flash or RAM, and no target is a microcontroller.
        """
        if (self.max_flash is None and self.max_ram is None) or any(target.micro for target in targets):
            return
        names = " and ".join(target.name for target in targets)
        raise UsageError(
            f"--max-flash and --max-ram are about microcontrollers, and {names} is none.",
            fix="use --max-size, or a target with [micro]: `edgeprune targets list` has them.",
        )

    def on(self, target: Target) -> Limits:
        """The limits on a target: flash and RAM are those of the board where nothing else was said, and none on what
        is no microcontroller."""
        own = target.micro
        if own is None:
            return dataclasses.replace(self, max_flash=None, max_ram=None)
        return dataclasses.replace(
            self,
            max_flash=own.flash_bytes if self.max_flash is None else self.max_flash,
            max_ram=own.ram_bytes if self.max_ram is None else self.max_ram,
        )


def on_micro(variant: Measurable, key: str) -> float:
    """``flash_bytes`` or ``ram_bytes`` of a variant; of one that is not made for microcontrollers, infinite."""
    made = variant.get("micro")
    return made[key] if made else math.inf


def choose(variants: list[JsonObject], limits: Limits, metric: Scale) -> dict[str, str]:
    """The picks, by name of variant.

    quality: best on validation. compact: fewest bytes after gzip. balanced: of the variants within the gates that lose
    no more points on validation than allowed, and of these of those that were not measured slower than the baseline
    (:func:`slowdown`) if that leaves any, the fastest on the target (:func:`target_times`); of those that are as fast,
    the most compact. quality if none is within. Controls are there to be compared with, and never picked. On a
    microcontroller only what is made for it is picked, and compact means the fewest bytes of flash.
    """
    variants = [v for v in variants if not v.get("control_of")]
    sign = 1 if metric.higher_is_better else -1
    reference = next(v for v in variants if v["baseline"])
    baseline = reference["validation"]["value"]
    variants = [v for v in variants if v.get("micro")] or variants

    def size(variant: JsonObject) -> tuple[float, int]:
        return (on_micro(variant, "flash_bytes") if variant.get("micro") else variant["gzip_bytes"]), variant["bytes"]

    def value(variant: JsonObject) -> float:
        figure = sign * variant["validation"]["value"]
        return -math.inf if math.isnan(figure) else figure

    quality = max(variants, key=lambda v: (value(v), -v["gzip_bytes"]))
    fitting = [
        v
        for v in variants
        if limits.drop.allows(metric, baseline, v["validation"]["value"])
        and (limits.max_size is None or within(v["bytes"], limits.max_size))
        and (limits.max_latency is None or within(latency_ms(v), limits.max_latency))
        and all(within(on_micro(v, f"{what}_bytes"), most) for what, most in limits.of_micro.items())
    ]
    left = [v for v in fitting if slowdown(v, reference) is None] or fitting
    if times := target_times(left):
        fastest = min(times.ms.values())
        left = [v for v in left if times.ms[v["name"]] <= SLOWER_ON_TARGET * fastest]
    balanced = min(left, key=size) if left else quality
    return {"quality": quality["name"], "balanced": balanced["name"], "compact": min(variants, key=size)["name"]}


@dataclasses.dataclass(frozen=True)
class Slowdown:
    """A variant that was measured slower than the baseline: how many times its latency, and on which device."""

    factor: float
    device: str


def slowdown(variant: Measurable, baseline: Measurable) -> Slowdown | None:
    """How much slower a variant was measured than the baseline under the same conditions; None: not clearly slower.

    Measurements on the target decide where there are any. The median must lie above the baseline's 95th percentile,
    so that noise on a busy machine decides nothing.

    Args:
        variant: as in report.json, or of the typed report.
        baseline: the unpruned float32 variant, likewise.
    """
    measured = variant["latency"]["measured"]
    on_target = [entry for entry in measured if entry.get("target")]
    for entry in on_target or measured:
        others = [other for other in baseline["latency"]["measured"] if _conditions(other) == _conditions(entry)]
        if not others:
            continue
        other = min(others, key=lambda row: row["median_ms"])
        least = SLOWER_ON_TARGET if on_target else SLOWER_ELSEWHERE
        if entry["median_ms"] > max(least * other["median_ms"], other.get("p95_ms") or 0):
            return Slowdown(entry["median_ms"] / other["median_ms"], str(entry.get("device", "this machine")))
        return None
    return None


@dataclasses.dataclass(frozen=True)
class TargetTimes:
    """Milliseconds on the target by name of variant, all of one kind: measured there, or estimated for it."""

    ms: dict[str, float]
    measured: bool


def target_times(variants: Sequence[Measurable]) -> TargetTimes | None:
    """The times of variants on the target that can be compared; None where some have no such figure."""
    measured = {
        v["name"]: entry["median_ms"] for v in variants for entry in v["latency"]["measured"] if entry.get("target")
    }
    estimated = {v["name"]: known["median_ms"] for v in variants if (known := v["latency"].get("estimated"))}
    for times, is_measured in ((measured, True), (estimated, False)):
        if variants and len(times) == len(variants):
            return TargetTimes(times, is_measured)
    return None


def _conditions(entry: Any) -> tuple[object, ...]:
    """What must be equal for two latencies to be compared. Which kernels ran is a property of the file."""
    return tuple(entry.get(key) for key in ("device", "runtime", "threads"))


def latency_ms(variant: JsonObject) -> float:
    """The figure that ``--max-latency`` looks at; see :func:`gate_latency`."""
    return gate_latency(variant)[0]


def gate_latency(variant: JsonObject) -> tuple[float, str]:
    """Milliseconds to hold against the limit, and where they come from.

    The limit is about the target. A measurement made there (one that names its ``target``) decides; else the estimate
    for it. What was measured on the machine that builds says little about the board, and stands in only where there is
    no estimate either; the words say so.
    """
    measured, estimated = variant["latency"]["measured"], variant["latency"].get("estimated")
    on_target = [entry for entry in measured if entry.get("target")]
    if on_target:
        return on_target[0]["median_ms"], f"measured on {on_target[0]['device']}"
    if estimated:
        low, high = estimated["low_ms"], estimated["high_ms"]
        spread = f"80 % range {low:.3g} to {high:.3g} ms, latency model" if low < high else "without a range, by"
        return estimated["median_ms"], (
            f"estimated for the target, {spread} {estimated['model_version']}; not measured there"
        )
    return measured[0]["median_ms"], (
        f"measured on {measured[0].get('device', 'this machine')}, not on the target, for which there is no estimate"
    )


def _micro_figure(pick: JsonObject, what: str) -> tuple[float, str | None]:
    """Bytes of flash or RAM, and who says so."""
    made = pick.get("micro")
    said = None if made is None else recorded(made) if what == "ram" else f"{made['plain_bytes']:,} bytes not encoded"
    return on_micro(pick, f"{what}_bytes"), said


def recorded(micro: Measurable) -> str:
    """Where a figure of RAM comes from."""
    took, by = micro["activation_bytes"] + micro["persistent_bytes"], micro["recorded_by"]
    how = f"recorded by {by}" if by else "estimated from the file, which edgeprune[micro] records"
    return f"{took:,} {how}, {micro['scratch_bytes']:,} for optimized kernels"


def check_gates(pick: JsonObject, limits: Limits, metric: Scale, baseline: float) -> list[JsonObject]:
    """The gates that are set, with the pick's value on each and its source; accuracy is the one on test.

    Limit and value of ``max_drop`` are in points for fractions, else in the metric's own unit.

    Args:
        baseline: the metric of the unpruned float32 file on test.
    """
    latency, source = gate_latency(pick)
    max_drop = None if limits.max_drop is None else limits.drop.limit(metric, baseline)
    rows = [
        ("max_drop", max_drop, pick["drop_points"], None),
        ("max_size", limits.max_size, pick["bytes"], None),
        ("max_latency", limits.max_latency, latency, source),
        *((f"max_{what}", most, *_micro_figure(pick, what)) for what, most in limits.of_micro.items()),
    ]
    return [
        {
            "name": name,
            "limit": limit,
            "value": value if math.isfinite(value) else None,
            "passed": within(value, limit),
            **({"source": words} if words else {}),
        }
        for name, limit, value, words in rows
        if limit is not None
    ]
