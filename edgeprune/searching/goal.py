"""What a search is after: objectives, limits, the front, and the one file to hand over."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from edgeprune.errors import UsageError, did_you_mean
from edgeprune.hardware.latency.source import latency_source
from edgeprune.report.schema import Metric
from edgeprune.selection import SLOWER_ON_TARGET, Limits, drop_points
from edgeprune.target import Target

T = TypeVar("T")
# Of one file: value (the metric on validation), drop (points, or the metric's unit), latency_ms, bytes, gzip_bytes; of
# one for microcontrollers, flash_bytes and ram_bytes.
Figures = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Objective:
    """Something to make as small as possible.

    Attributes:
        key: the figure; ``drop`` stands for accuracy.
        limit: the gate that limits it, if one can.
        title, unit: for people.
    """

    key: str
    limit: str | None
    title: str
    unit: str


# What can be searched for. The first that the goal does not limit decides which file is handed over.
OBJECTIVES = {
    "latency": Objective("latency_ms", "max_latency", "Latency", "ms"),
    "size": Objective("bytes", "max_size", "Size", "bytes"),
    "flash": Objective("flash_bytes", "max_flash", "Flash", "bytes"),
    "download": Objective("gzip_bytes", None, "Size after gzip", "bytes"),
    "accuracy": Objective("drop", "max_drop", "Accuracy lost", "points"),
}
DEFAULT_OBJECTIVES = ("accuracy", "latency", "size")


def parse_objectives(names: str | Sequence[str]) -> tuple[str, ...]:
    """Objectives by name, each once.

    Raises:
        UsageError: no such objective, or none.
    """
    given = [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]
    for name in given:
        if name not in OBJECTIVES:
            hint = did_you_mean(name, OBJECTIVES) or "."
            raise UsageError(f"There is no objective {name!r}{hint}", expected=f"some of: {', '.join(OBJECTIVES)}.")
    if not given:
        raise UsageError("No objective was given.", expected=f"some of: {', '.join(OBJECTIVES)}.")
    return tuple(dict.fromkeys(given))


def objectives_of(target: Target, asked: Sequence[str] | None, limits: Limits) -> tuple[str, ...]:
    """What the front of a target is about: what was asked for, else what is known of it.

    Raises:
        UsageError: what was asked for is not known of it.
    """
    objectives = tuple(asked or DEFAULT_OBJECTIVES)
    if latency_source(target) is None:
        if "latency" in (asked or ()) or limits.max_latency is not None:
            raise UsageError(
                f"The target {target.name} has no coefficients to estimate a latency by.",
                fix="leave latency out of --objective and --max-latency, or measure files on the board and run "
                "`edgeprune targets fit`.",
            )
        objectives = tuple(name for name in objectives if name != "latency")
    if asked is None and target.micro:
        objectives = tuple("flash" if name == "size" else name for name in objectives)
    if "flash" in objectives and target.micro is None:
        raise UsageError(f"Flash is what a microcontroller has, and {target.name} is none.", fix="use size.")
    return objectives


@dataclasses.dataclass(frozen=True)
class Goal:
    """Objectives and limits for one target.

    Attributes:
        metric: its name, direction and unit.
        reference: the metric of the unpruned float32 file on validation, that drops count from.
    """

    objectives: tuple[str, ...]
    limits: Limits
    metric: Metric
    reference: float

    def drop(self, value: float) -> float:
        return drop_points(self.metric, self.reference, value)

    def costs(self, figures: Figures) -> tuple[float, ...]:
        """A number per objective, the smaller the better."""
        return tuple(float(figures.get(OBJECTIVES[name].key, math.inf)) for name in self.objectives)

    def bounds(self) -> dict[str, tuple[str, float]]:
        """The limits that are set, and the drop that is allowed anyway: gate → (figure, the most)."""
        found = {"max_drop": ("drop", self.limits.drop.limit(self.metric, self.reference))}
        if self.limits.max_latency is not None:
            found["max_latency"] = ("latency_ms", self.limits.max_latency)
        if self.limits.max_size is not None:
            found["max_size"] = ("bytes", float(self.limits.max_size))
        return found | {f"max_{what}": (f"{what}_bytes", float(most)) for what, most in self.limits.of_micro.items()}

    def lacks_latency(self, figures: Figures) -> bool:
        """Whether an objective or a limit is about the latency of a file that has no estimate."""
        is_asked = "latency" in self.objectives or self.limits.max_latency is not None
        return is_asked and figures["latency_ms"] is None

    def excess(self, figures: Figures) -> dict[str, float]:
        """How far each limit is missed (above 0) or kept, relative to the limit; of drops in their own unit."""
        return {
            # A file that is not made for microcontrollers has neither flash nor RAM.
            gate: figures[key] - most if gate == "max_drop" else figures.get(key, math.inf) / most - 1
            for gate, (key, most) in self.bounds().items()
        }

    def met(self, figures: Figures) -> bool:
        return all(value <= 0 for value in self.excess(figures).values())

    def front(self, items: Sequence[T], figures: Callable[[T], Figures]) -> list[T]:
        """The items that no other one beats: as good in all objectives, and better in one. Of equals, the first."""
        costs = [self.costs(figures(item)) for item in items]
        return [
            item
            for index, item in enumerate(items)
            if not any(
                beats(other, costs[index]) or (other == costs[index] and place < index)
                for place, other in enumerate(costs)
            )
        ]

    def best(self, items: Sequence[T], figures: Callable[[T], Figures]) -> T | None:
        """The item to hand over; None: there is none.

        Of those that keep all limits, the smallest in the first objective without a limit, in the order of the table
        ``OBJECTIVES``; of those within a tenth of it, the one that loses least. Where none keeps the limits, the one
        that misses them least.
        """
        if not items:
            return None
        good = [item for item in items if self.met(figures(item))]
        if not good:
            return min(items, key=lambda item: sum(max(value, 0) for value in self.excess(figures(item)).values()))
        limited = {"accuracy", *(name for name, one in OBJECTIVES.items() if one.limit in self.bounds())}
        if self.limits.max_drop is None and len(limited) > 1:  # the allowed drop is nobody's wish
            limited.discard("accuracy")
        free = [name for name in OBJECTIVES if name in self.objectives and name not in limited]
        key = OBJECTIVES[free[0] if free else "accuracy"].key
        least = min(figures(item)[key] for item in good)
        near = [item for item in good if figures(item)[key] <= max(SLOWER_ON_TARGET * least, least)]
        return min(near, key=lambda item: (figures(item)["drop"], self.costs(figures(item))))


def beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether costs are nowhere above others, and somewhere below them."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)
