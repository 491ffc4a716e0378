"""The ladder that a trial climbs: cheap first, and on only as long as it may still reach the front.

Below the top, a repair matches what layers gave: measuring choices of channels by answers, and scaling channels, takes
several times as long as all else on the first rung.

The rule. What the rungs change of a file is its accuracy: latency and size are known from the first one on, but for
what other channels within the same limits change, which answers may choose at the top. So after each rung a trial goes
on if

- it keeps the limits of latency and size, and
- it might keep the limit of accuracy, where another file keeps all limits already, and
- no file that is known is as small in every objective but accuracy and at least as accurate as the trial might become.

While nothing is known that could stop a trial on a rung between, it is left out: few epochs would be trained for
nothing. A rung that would not end in the time that is left gives way to the one below it.

How accurate it might become is what the trials that climbed to the top before it gained from that rung on: of the
``NEIGHBOURS`` whose accuracy there was nearest, the largest share of the gap to the best known accuracy that one of
them closed. Before ``ENOUGH`` of them are known, all of the gap may be closed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import pydantic

from edgeprune.recipe.config import Recipe
from edgeprune.searching.goal import Figures, Goal

# Sections that change the model. Without any, nothing is trained either, whatever the other sections say.
CHANGING = ("layers", "sparsify", "filters", "weights", "lottery", "cluster", "coded", "qat")
# Sections beside [finetune] that may have epochs of their own.
TRAINED = ("qat", "cluster", "sparsify")
NEIGHBOURS = 5
ENOUGH = 3


@dataclasses.dataclass(frozen=True)
class Rung:
    """A step of the ladder: the share of the recipe's epochs that is trained for."""

    name: str
    share: float


RUNGS = (Rung("reconstructed", 0.0), Rung("few epochs", 0.25), Rung("full", 1.0))


@dataclasses.dataclass(frozen=True)
class Climb:
    """What a trial that reached its top had lost on each rung, by its name; and at the top."""

    drops: dict[str, float]
    top: float


def ladder(recipe: Recipe) -> list[tuple[Rung, Recipe]]:
    """The rungs of a recipe with what is built on each.

    Rungs where nothing new would be built are left out, and so are those that train for half of the epochs or more, for
    few are rounded up: they would cost as much as they save.
    """
    found: list[tuple[Rung, Recipe]] = []
    for rung in RUNGS:
        try:
            made = canonical(at(recipe, rung.share))
        except pydantic.ValidationError:  # such as a lottery, which is nothing without training
            continue
        if rung.share < 1.0 and 0 < epochs_of(recipe) <= 2 * epochs_of(made):
            continue
        if found and found[-1][1] == made:
            if rung.share < 1.0:
                continue
            found.pop()
        found.append((rung, made))
    return found


def epochs_of(recipe: Recipe) -> int:
    """The epochs of all training of a recipe."""
    parts = (recipe.finetune, *(getattr(recipe, name) for name in TRAINED))
    return sum(part.epochs or 0 for part in parts if part)


def at(recipe: Recipe, share: float) -> Recipe:
    """The recipe with a share of its epochs, rounded up, and the quick repair.

    Without any epochs, what only training can do is left out.

    Raises:
        pydantic.ValidationError: it makes no sense with so little training.
    """
    if share == 1.0:
        return recipe

    def part(epochs: int) -> int:
        return math.ceil(share * epochs)

    table = recipe.model_dump()
    table["reconstruct"]["match"] = "layers"
    table["finetune"]["epochs"] = part(recipe.finetune.epochs)
    for name in TRAINED:
        section = table[name]
        if section and section["epochs"] is not None:
            section["epochs"] = part(section["epochs"])
    if table["filters"]:
        table["filters"]["step_epochs"] = part(table["filters"]["step_epochs"])
    if not share:
        table["qat"] = table["sparsify"] = None
        if recipe.weights and not recipe.lottery:
            kept = {"sparsity", "granularity", "scope", "include", "exclude", "sparse_inference"}
            given = {key: value for key, value in table["weights"].items() if key in kept}
            table["weights"] = {**given, "criterion": "reconstruct"}
    return Recipe.model_validate(table)


def canonical(recipe: Recipe) -> Recipe:
    """The recipe without settings that change nothing, so that trials which build the same are known to be the same."""
    changes: dict[str, object] = {"search": {}}
    trained = (recipe.finetune.epochs, recipe.lottery, recipe.sparsify, recipe.qat and recipe.qat.epochs)
    is_changed = any(getattr(recipe, section) for section in CHANGING)
    if not is_changed or not any((*trained, recipe.cluster and recipe.cluster.epochs)):
        default = Recipe()
        batch = {"epochs": 0, "batch_size": recipe.finetune.batch_size}
        changes |= {
            "distill": None,
            "augment": default.augment,
            "finetune": default.finetune.model_copy(update=batch),
        }
    if recipe.filters and recipe.filters.steps == 1:
        changes["filters"] = recipe.filters.model_copy(update={"step_epochs": 1})
    if not (recipe.filters or recipe.weights):  # which alone are repaired
        changes["reconstruct"] = recipe.reconstruct.model_copy(update={"match": "answers"})
    return recipe.model_copy(update=changes)


def following(left: Sequence[Rung], climbs: Sequence[Climb], fits: Callable[[Rung], bool]) -> Rung | None:
    """The rung that a trial takes after its first one; None: there is none that ends in time.

    Args:
        left: those above the ones that it took, from below.
        climbs: of the trials that reached their top.
        fits: whether a rung would end in the time that is left.
    """
    wanted = left[0] if sum(len(climb.drops) > 1 for climb in climbs) >= ENOUGH else left[-1]
    return next((rung for rung in (wanted, *reversed(left)) if fits(rung)), None)


def may_reach(
    rung: str, figures: Figures, goal: Goal, known: Sequence[Figures], climbs: Sequence[Climb]
) -> tuple[bool, str]:
    """Whether a trial goes on after a rung, by the rule above; and why not, in words.

    Args:
        figures: of the trial's file on this rung.
        known: figures of the files of other trials.
        climbs: of the trials that reached their top.
    """
    for gate in ("max_latency", "max_size", "max_ram"):
        if goal.excess(figures).get(gate, 0.0) > 0:
            return False, f"misses {gate}, which training does not change"
    drop = least_drop(rung, figures["drop"], known, climbs)
    hoped = {**figures, "drop": drop}
    if any(map(goal.met, known)) and not goal.met(hoped):
        return False, f"cannot be expected to lose less than {drop:.3g}"
    for other in known:
        if all(a <= b for a, b in zip(goal.costs(other), goal.costs(hoped), strict=True)):
            return False, "another file is expected to stay better"
    return True, ""


def least_drop(rung: str, drop: float, known: Sequence[Figures], climbs: Sequence[Climb]) -> float:
    """The least that a trial may be expected to lose in the end, given what it loses on a rung."""
    near = sorted((c for c in climbs if rung in c.drops), key=lambda c: abs(c.drops[rung] - drop))[:NEIGHBOURS]
    floor = min([drop, *(one["drop"] for one in known), *(c.top for c in near)])
    if len(near) < ENOUGH:
        return floor
    closed = [
        (c.drops[rung] - c.top) / gap for c in near if (gap := c.drops[rung] - floor) > 0
    ]  # shares of the gap between what was lost and the best known
    return drop - max([0.0, *closed]) * (drop - floor)
