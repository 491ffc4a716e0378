"""How fast the pruning of a training advances: one set of schedules for weights and for filters.

A schedule says which fraction of the final sparsity is reached at a progress in [0, 1] between the beginning and the
end of pruning. When a schedule is asked, and over how many steps, is decided by :func:`updates`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edgeprune.recipe.config import WeightsConfig

# More updates than this change nothing but the time they take.
MAX_UPDATES = 50


class Schedule(Protocol):
    """How far pruning has advanced at each moment; a pure function."""

    def fraction(self, progress: float) -> float:
        """Fraction of the final sparsity, in [0, 1], reached at ``progress`` in [0, 1]; 1 at the end."""


@dataclasses.dataclass(frozen=True)
class Constant:
    """All of it from the beginning on; what is removed may still change until the end."""

    def fraction(self, progress: float) -> float:
        return 1.0


@dataclasses.dataclass(frozen=True)
class OneShot:
    """All of it in one update at the beginning; the masks do not change afterwards."""

    def fraction(self, progress: float) -> float:
        return 1.0


@dataclasses.dataclass(frozen=True)
class Polynomial:
    """``1 - (1 - t)^power``; power 3 is automated gradual pruning (Zhu & Gupta 2017, arXiv:1710.01878)."""

    power: float = 3.0

    def fraction(self, progress: float) -> float:
        return 1 - (1 - progress) ** self.power


@dataclasses.dataclass(frozen=True)
class Exponential:
    """What is kept falls exponentially: equal times remove equal shares of what is left (Han et al. 2015,
    arXiv:1506.02626, iterative pruning).

    Attributes:
        final: the final sparsity, in (0, 1).
    """

    final: float

    def fraction(self, progress: float) -> float:
        return (1 - (1 - self.final) ** progress) / self.final


@dataclasses.dataclass(frozen=True)
class OneCycle:
    """Slow, fast, slow: a logistic curve (Hubens et al. 2021, arXiv:2107.02086)."""

    alpha: float = 14.0
    beta: float = 5.0

    def fraction(self, progress: float) -> float:
        return (1 + math.exp(self.beta - self.alpha)) / (1 + math.exp(self.beta - self.alpha * progress))


# Name → schedule, from the final sparsity and the power that the recipe gives to "polynomial".
SCHEDULES: dict[str, Callable[[float, float], Schedule]] = {
    "constant": lambda final, power: Constant(),
    "one_shot": lambda final, power: OneShot(),
    "polynomial": lambda final, power: Polynomial(power),
    "cubic": lambda final, power: Polynomial(3.0),
    "exponential": lambda final, power: Exponential(final),
    "one_cycle": lambda final, power: OneCycle(),
}


@dataclasses.dataclass(frozen=True)
class Updates:
    """The optimizer steps, counted from 1, at which masks change: ``begin``, every ``frequency``, up to ``end``."""

    begin: int
    end: int
    frequency: int

    def at(self, step: int) -> bool:
        return self.begin <= step <= self.end and (step - self.begin) % self.frequency == 0

    def progress(self, step: int) -> float:
        return 1.0 if self.begin == self.end else (step - self.begin) / (self.end - self.begin)


def updates(config: WeightsConfig, total_steps: int, first: int = 0) -> Updates:
    """When masks change within ``total_steps`` optimizer steps; the last update falls exactly on ``end``.

    Args:
        first: the first step at which they can; tfmot also asks before the first step, at 0.
    """
    begin = max(min(round(config.begin * total_steps), total_steps - 2), first)
    if config.schedule == "one_shot":
        return Updates(max(begin, 1), max(begin, 1), 1)
    length = max(round(config.end * total_steps) - 1 - begin, 1)
    frequency = max(length // MAX_UPDATES, 1)
    return Updates(begin, begin + length // frequency * frequency, frequency)


def final_epoch(config: WeightsConfig, epochs: int) -> int:
    """The first epoch (from 0) at whose end the target sparsity is reached."""
    if config.criterion == "reconstruct":
        return 0
    if config.schedule == "one_shot":
        return min(math.floor(config.begin * epochs), max(epochs - 1, 0))
    return max(math.ceil(config.end * epochs) - 1, 0)
