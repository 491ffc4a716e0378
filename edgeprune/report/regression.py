"""A build against an earlier one: which figures of the pick, and of variants of the same name, got worse."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeprune.errors import UsageError
from edgeprune.files import JsonObject
from edgeprune.recipe.config import RegressionConfig
from edgeprune.report.reading import read_report
from edgeprune.report.schema import Measured, Metric, Report, Variant, parse
from edgeprune.selection import DEFAULT_REGRESSION_DROP, MaxDrop, Scale, drop_points, within

COST = Metric(name="cost", higher_is_better=False, points=1.0)  # of what is better when there is less of it


@dataclasses.dataclass(frozen=True)
class Baseline:
    """An earlier build to compare with, and how much worse than it the files may be.

    Attributes:
        report: the earlier report.json, or its run folder.
        max_drop: of the metric on test: points of a fraction (1), or a part of any metric's value ("2%").
        max_size: of the file: "1%".
        max_latency: under the same conditions: "10%".

    What is None is as ``[regression]`` of the recipe says.

    Raises:
        UsageError: a tolerance is not understood.
    """

    report: str | Path
    max_drop: str | float | None = None
    max_size: str | None = None
    max_latency: str | None = None

    def __post_init__(self) -> None:
        if self.max_drop is not None:
            MaxDrop.parse(self.max_drop)
        for option, value in {"size": self.max_size, "latency": self.max_latency}.items():
            if value is None:
                continue
            expected = f'a part of the earlier {option}, such as "5%".'
            try:
                part = MaxDrop.parse(value).part
            except UsageError:  # which speaks of metrics
                raise UsageError(f"--max-regression-{option} {value} is not understood.", expected=expected) from None
            if part is None:
                raise UsageError(
                    f"--max-regression-{option} {value} has no unit.",
                    expected=expected,
                    fix=f"write --max-regression-{option} {value}%.",
                )

    def read(self, recipe: RegressionConfig) -> Earlier:
        """The earlier report, with every tolerance settled.

        Raises:
            UsageError: it cannot be read.
        """
        given = {key: getattr(self, key) for key in ("max_drop", "max_size", "max_latency")}
        settled = recipe.model_copy(update={key: value for key, value in given.items() if value is not None})
        return Earlier(str(self.report), read_report(self.report), settled)


@dataclasses.dataclass(frozen=True)
class Pair:
    """One figure of a variant, then and now; ``noise``: how much more it may be by chance."""

    before: float
    after: float
    noise: float = 0.0
    source: str | None = None


def _same(entry: Measured, other: Measured) -> bool:
    return all(entry[key] == other[key] for key in ("device", "runtime", "threads"))


def _measured(first: Measured, entry: Measured) -> Pair:
    noise = max(0.0, (first.p95_ms or 0.0) - first.median_ms)
    return Pair(first.median_ms, entry.median_ms, noise, f"on {entry.device}")


def _latencies(before: Variant, after: Variant) -> Pair | None:
    """Measured on the target, else estimated for it, else measured elsewhere; each under the same conditions only."""
    measured = [
        (bool(entry.get("target")), _measured(first, entry))
        for entry in after.latency.measured
        for first in before.latency.measured
        if _same(entry, first)
    ]
    on_target = [pair for is_there, pair in measured if is_there]
    first, second = before.latency.estimated, after.latency.estimated
    if on_target:
        return on_target[0]
    if first and second and (first.threads, first.model_version) == (second.threads, second.model_version):
        return Pair(first.median_ms, second.median_ms, source="estimated for the target")
    return measured[0][1] if measured else None


@dataclasses.dataclass(frozen=True)
class Figure:
    """Something that may get worse.

    Attributes:
        name: its key in rows.
        tolerance: the key of its tolerance.
        words: what notes call it.
        read: its value; None: both are read together, see :func:`_latencies`.
    """

    name: str
    tolerance: str
    words: str
    read: Callable[[Variant], float | None] | None

    def pair(self, before: Variant, after: Variant) -> Pair | None:
        """Both values; None if one of the variants has none."""
        if self.read is None:
            return _latencies(before, after)
        first, second = self.read(before), self.read(after)
        return None if first is None or second is None else Pair(first, second)

    def lacking(self, before: Variant, after: Variant) -> str | None:
        """Which report alone has no value; None: both have one, or neither."""
        without = [self.read is not None and self.read(variant) is None for variant in (before, after)]
        return None if without[0] == without[1] else "the earlier report" if without[0] else "this report"


FIGURES = (
    Figure("metric", "max_drop", "metric", lambda variant: variant.metric.value if variant.metric else None),
    Figure("bytes", "max_size", "size", lambda variant: variant.bytes),
    Figure("latency_ms", "max_latency", "latency", None),
    Figure("arena_bytes", "max_memory", "memory", lambda variant: variant.memory.arena_bytes),
    Figure("cpu_ops", "max_cpu_operators", "placement", lambda v: v.placement.cpu_ops if v.placement else None),
)


@dataclasses.dataclass(frozen=True)
class Earlier:
    """An earlier report that a build is compared with; ``source``: where it was read."""

    source: str
    report: Report
    tolerances: RegressionConfig

    def require_comparable(self, target: str, metric: Metric | Any) -> None:
        """Make sure that figures of this build can be compared with the earlier ones, before anything is trained.

        Raises:
            UsageError: another target or metric; a tolerance in points of a metric that is no fraction.
        """
        directions = [f"{'more' if one.higher_is_better else 'less'} is better" for one in (self.report.metric, metric)]
        pairs = {
            "target": (self.report.target.name, target),
            "metric": (self.report.metric.name, metric.name),
            "direction": (directions[0], directions[1]),
        }
        for what, (before, now) in pairs.items():
            if before != now:
                raise UsageError(
                    f"{self.source} cannot be compared with: its {what} is {before}, and that of this build {now}.",
                    expected=f"the report of a build with the same {what}.",
                    fix="give --baseline the report.json of such a build, or leave it out.",
                )
        if self.tolerances.max_drop is not None:
            line = '--max-regression-drop 2% (in a recipe: max_drop = "2%" under [regression])'
            MaxDrop.parse(self.tolerances.max_drop).require_unit(metric, line)

    def compare(self, document: Mapping[str, Any]) -> JsonObject:
        """The key ``regression`` of the report of this build.

        Args:
            document: that report; neither views nor answers are needed.
        """
        now = parse(document)
        rows = [row for before, after in _pairs(self.report, now) for row in self._rows(now.metric, before, after)]
        return {
            "baseline": {
                "source": self.source,
                "created": self.report.created,
                "edgeprune_version": self.report.edgeprune_version,
                "pick": self.report.pick,
            },
            "tolerances": self.tolerances.model_dump(mode="json"),
            "rows": rows,
            "notes": list(self._notes(now, rows)),
        }

    def _rows(self, metric: Metric, before: Variant, after: Variant) -> Iterator[JsonObject]:
        for figure in FIGURES:
            pair = figure.pair(before, after)
            if pair is None:
                continue
            scale = metric if figure.name == "metric" else COST
            allowed = max(self._allowed(figure.name, figure.tolerance, scale, pair.before), pair.noise)
            worse = drop_points(scale, pair.before, pair.after)
            yield {
                "variant": after.name,
                "before_variant": before.name,
                "figure": figure.name,
                "before": pair.before,
                "after": pair.after,
                "limit": pair.before + (-1 if scale.higher_is_better else 1) * allowed / scale.points,
                "passed": within(worse, allowed),
                "source": pair.source,
            }

    def _allowed(self, name: str, key: str, scale: Scale, before: float) -> float:
        """How much worse a figure may be, as :func:`~edgeprune.selection.drop_points` counts."""
        given = getattr(self.tolerances, key)
        if name == "cpu_ops":
            return float(given)
        return (DEFAULT_REGRESSION_DROP if given is None else MaxDrop.parse(given)).limit(scale, before)

    def _notes(self, now: Report, rows: list[JsonObject]) -> Iterator[str]:
        """What makes the comparison weaker than it looks."""
        before = self.report
        if before.model.name != now.model.name:
            yield f"The earlier report is about the model {before.model.name}, this one about {now.model.name}."
        if before.data.test != now.data.test:
            yield f"The earlier report was measured on {before.data.test} test samples, this one on {now.data.test}."
        elif before.data.source != now.data.source:
            yield f"The earlier report was measured on {before.data.source}, this one on {now.data.source}."
        elif before.seed != now.seed:
            yield (
                f"The earlier report has seed {before.seed}, this one {now.seed}: of data without a test part, other "
                "samples were held out."
            )
        if others := [board.name for board in now.targets[1:]]:
            yield (
                f"Latency, memory and placement are compared on {now.target.name}, the first target, and not on "
                f"{', '.join(others)}."
            )
        names = {variant.name for variant in now.variants}
        if gone := [variant.name for variant in before.variants if variant.name not in names]:
            yield f"Not made any more, and not compared: {', '.join(gone)}."
        for first, second in _pairs(before, now):
            for figure in FIGURES:
                if lacking := figure.lacking(first, second):
                    yield f"The {figure.words} of {second.name} is not compared: {lacking} has none."
        timed = {row["variant"] for row in rows if row["figure"] == "latency_ms"}
        if untimed := sorted({row["variant"] for row in rows} - timed):
            yield (
                f"Latencies of {', '.join(untimed)} are not compared: the two reports have none that were measured "
                "under the same conditions, or estimated by the same model."
            )


def _pairs(before: Report, now: Report) -> Iterator[tuple[Variant, Variant]]:
    """The picks, then the variants of the same name."""
    yield before.picked, now.picked
    earlier = {variant.name: variant for variant in before.variants}
    for variant in now.variants:
        first = earlier.get(variant.name)
        if first and (first.name, variant.name) != (before.pick, now.pick):
            yield first, variant
