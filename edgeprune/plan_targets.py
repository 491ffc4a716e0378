"""Recipes × several targets → one plan, in which what the targets have in common stands once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from edgeprune import stages
from edgeprune.pipeline import Step
from edgeprune.plan import MODEL, OF_BOARD, Board, Plan, Variant, make_plan
from edgeprune.recipe.config import Recipe
from edgeprune.target import Target


def plan_for(
    recipes: Sequence[Recipe], targets: Sequence[Target], *, on_device: bool = False, source: str = MODEL
) -> Plan:
    """The plan of a build for one target or several.

    Each target gets the files that a build for it alone makes. Steps that do the same for several targets are there
    once; where the same name stands for something else, it is followed by ``@`` and the target. Every file is profiled
    on every board. A device stands for the first target.
    """
    plan = make_plan(recipes, targets[0], on_device=on_device, source=source)
    if len(targets) == 1:
        return plan
    steps = {step.name: step for step in plan.steps}
    variants = list(plan.variants)
    boards = [Board(targets[0], tuple(v.name for v in plan.variants), {v.name: v.last for v in plan.variants})]
    for target in targets[1:]:
        alone = make_plan(recipes, target, source=source)
        names = _join(steps, alone, target)
        found = {variant.name: _known(variants, variant.name, names[variant.shared]) for variant in alone.variants}
        called = {name: known.name if known else f"{name}@{target.name}" for name, known in found.items()}
        new = (variant for variant in alone.variants if found[variant.name] is None)
        variants += [_moved(variant, target, called, names) for variant in new]
        last = {called[variant.name]: names[variant.last] for variant in alone.variants}
        boards.append(Board(target, tuple(last), last))
    boards = [_everywhere(board, variants, steps) for board in boards]
    first = tuple(dataclasses.replace(v, last=boards[0].last[v.name]) for v in variants)
    return dataclasses.replace(plan, steps=tuple(steps.values()), variants=first, boards=tuple(boards))


def _known(variants: Sequence[Variant], name: str, shared: str) -> Variant | None:
    """The variant that a file is on other boards: of several recipes that make the same one, that of the same name."""
    same = [variant for variant in variants if variant.shared == shared]
    return next((variant for variant in same if variant.name == name), same[0] if same else None)


def _join(steps: dict[str, Step], alone: Plan, target: Target) -> dict[str, str]:
    """Add the steps of a plan for another target to ``steps``; returns what each of them is called there."""
    names = {alone.source: alone.source}
    for step in alone.steps:
        moved = dataclasses.replace(
            step, after=names[step.after or ""], target=target if step.stage in OF_BOARD else None
        )
        same = (known for known in steps.values() if dataclasses.replace(moved, name=known.name) == known)
        known = moved if steps.get(step.name) == moved else next(same, None)
        if known is None:
            own = f"{step.name}@{target.name}" if step.name in steps else step.name
            known = steps[own] = dataclasses.replace(moved, name=own)
        names[step.name] = known.name
    return names


def _moved(variant: Variant, target: Target, called: Mapping[str, str], names: Mapping[str, str]) -> Variant:
    """A variant of a plan for one target as it is called in a plan for several."""
    return dataclasses.replace(
        variant,
        name=called[variant.name],
        last=names[variant.last],
        model=names[variant.model],
        shared=names[variant.shared],
        series=variant.series and f"{variant.series}@{target.name}",
        control_of=variant.control_of and called[variant.control_of],
        on_device=None,
    )


def _everywhere(board: Board, variants: Sequence[Variant], steps: dict[str, Step]) -> Board:
    """The board with the variants that are for others; adds the steps that profile them there."""
    last = dict(board.last)
    for variant in variants:
        if variant.name not in last:
            name = f"{variant.name}.elsewhere@{board.target.name}"
            steps[name] = Step(name, stages.profile, after=variant.shared, optional=True, target=board.target)
            last[variant.name] = name
    return dataclasses.replace(board, last=last)
