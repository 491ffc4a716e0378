"""Why every group got its width: what its last step lost and saved, and what one more would.

A step is worth what it saves at the shadow prices of the limits. If widths were continuous and every group paid for
itself, each would be narrowed until a step loses more than it is worth. Widths are whole steps, and layers share what
they cost, so that this holds but for the difference between the choice and the relaxation that has the prices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from edgeprune.prune.choice.ladders import Widths
from edgeprune.prune.choice.program import Program

# Widths of a curve at most: enough to see its bend.
_POINTS = 12


@dataclasses.dataclass(frozen=True)
class Step:
    """From one width of a group to the next narrower one, with all other groups as they were chosen.

    Attributes:
        channels: how many go.
        loss: by how much it rises.
        saved: by what is limited, how much less is used, in the unit of the limit.
        worth: what that is worth in loss, at the prices of the limits; None: they are not known.
    """

    channels: int
    loss: float
    saved: Mapping[str, float]
    worth: float | None


@dataclasses.dataclass(frozen=True)
class Reason:
    """One group that had a choice.

    Attributes:
        name: of the group.
        channels, kept: before, and as chosen.
        loss: of what went.
        last: the step that led to the chosen width; None: the group kept all.
        next: the step that was not taken; None: the group may not be narrower.
        curve: channels kept → loss, of a dozen widths at most, the chosen one among them; the widest first.
    """

    name: str
    channels: int
    kept: int
    loss: float
    last: Step | None
    next: Step | None
    curve: Mapping[int, float]


def reasons(
    widths: Widths, program: Program, options: np.ndarray, prices: Mapping[str, float], ratios: Sequence[float]
) -> tuple[Reason, ...]:
    """Explain a choice, group by group.

    Args:
        widths: what each group could have been.
        program: of which it is the solution.
        options: int [groups], the choice.
        prices: by limit, by how much the loss falls per percent more.
        ratios: per limit, what the choice really uses, as a multiple of what the program counts; 1, where it is exact.
    """
    return tuple(
        _reason(widths, program, options, prices, ratios, axis)
        for axis, one in enumerate(widths.ladders)
        if np.ptp(one.kept.sum(1)) and not one.group.block
    )


def _reason(
    widths: Widths,
    program: Program,
    options: np.ndarray,
    prices: Mapping[str, float],
    ratios: Sequence[float],
    axis: int,
) -> Reason:
    group, kept, losses = widths.ladders[axis].group, widths.ladders[axis].kept.sum(1), program.loss[axis,]
    chosen = int(options[axis])

    def costs(option: int) -> np.ndarray:
        changed = np.where(np.arange(len(options)) == axis, option, options)
        return np.array([program.cost(limit, changed) for limit in program.limits])

    def step(wide: int, narrow: int) -> Step:
        saved = costs(wide) - costs(narrow)
        named = {limit.name: float(amount) for limit, amount in zip(program.limits, saved * ratios, strict=True)}
        percents = dict(zip(named, 100 * saved / [limit.most for limit in program.limits], strict=True))
        worth = float(sum(prices[name] * percent for name, percent in percents.items())) if prices else None
        return Step(int(kept[wide] - kept[narrow]), float(losses[narrow] - losses[wide]), named, worth)

    # A width at which a layer's minimum came back may equal the one before it.
    wider, narrower = np.flatnonzero(kept > kept[chosen]), np.flatnonzero(kept < kept[chosen])
    shown = {*np.linspace(0, len(kept) - 1, min(_POINTS - 1, len(kept))).round().astype(int).tolist(), chosen}
    return Reason(
        group.name,
        group.size,
        int(kept[chosen]),
        float(losses[chosen]),
        step(int(wider[-1]), chosen) if len(wider) else None,
        step(chosen, int(narrower[0])) if len(narrower) else None,
        {int(kept[option]): float(losses[option]) for option in sorted(shown)},
    )
