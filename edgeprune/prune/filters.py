"""Structured pruning of filters and neurons: graph, scores, allocation and surgery in one call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgeprune.errors import DataError, RecipeError
from edgeprune.models.load import load_model
from edgeprune.models.rebuild import refuse_idle
from edgeprune.progress import Progress
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.channels.graph import Graph, Group
from edgeprune.prune.channels.units import Vector
from edgeprune.prune.choice import allocation
from edgeprune.prune.choice.allocation import Allocation
from edgeprune.prune.choice.budget import Budget, Constraints, Resource
from edgeprune.prune.choice.criteria import CRITERIA, Evidence, Scores, inputs_of, scores_of_blocks

if TYPE_CHECKING:
    import keras
    import tf_keras

    from edgeprune.prune.choice.sensitivity import Curves

    MeasureCurves = Callable[[Graph, Scores], Curves]


@dataclasses.dataclass(frozen=True)
class Pruned:
    """The outcome of pruning.

    Attributes:
        model: the new model, a flat functional one.
        removed: by name of group, the numbers of the removed channels within it: int64 [removed channels]; groups that
            lost none are left out.
        difference: largest difference from the oracle, relative to its largest output; None: not verified.
    """

    model: tf_keras.Model
    removed: dict[str, Vector]
    difference: float | None = None


def channel_groups(model: tf_keras.Model | keras.Model) -> tuple[Group, ...]:
    """Find the groups of channels of a model that can only be removed together.

    Args:
        model: of tf_keras or Keras 3; here and below, it is made a flat functional one first, as
            :func:`edgeprune.models.load.load_model` does.

    Returns:
        The groups, in the order in which the layers that make them are called. ``frozen`` says why nothing can be
        removed from a group, ``members`` which axes of which weights shrink with it.

    Raises:
        ModelError: the model is of a kind that edgeprune cannot use.
    """
    return analyse(load_model(model)).groups


def prune_filters(
    model: tf_keras.Model | keras.Model,
    rate: float | None = None,
    *,
    max_params: float | None = None,
    max_macs: float | None = None,
    criterion: str = "l2",
    allocation: Literal["uniform", "global", "sensitivity"] = "global",
    constraints: Constraints | None = None,
    evidence: Evidence | None = None,
    verify: bool = True,
    curves: MeasureCurves | None = None,
) -> Pruned:
    """Remove the least important channels.

    Args:
        model: of tf_keras or Keras 3; it is not changed.
        rate: fraction of filters removed, in (0, 1); or one of the next two, or both.
        max_params: fraction of the parameters that may stay, in (0, 1).
        max_macs: fraction of the multiply-accumulates that may stay, in (0, 1).
        criterion: a key of :data:`edgeprune.prune.choice.criteria.CRITERIA`.
        allocation: how much each group loses; see :func:`edgeprune.prune.choice.allocation.allocate`.
        constraints: what every layer keeps; None: one channel, any multiple, nothing protected.
        evidence: data, for criteria that need it.
        verify: compare with the oracle on random inputs.
        curves: for the allocation "sensitivity": ``(graph, scores) -> curves``, by
            :func:`edgeprune.prune.choice.sensitivity.measure` on validation data.

    Returns:
        The new model, what it lost, and how far it is from the oracle.

    Raises:
        ModelError: the model is of a kind that edgeprune cannot use.
        RecipeError: no budget, or a rate and another; an unknown criterion or allocation; or a budget that cannot be
            reached.
        DataError: the criterion needs data and there is none.
        VerificationError: the pruned model does not equal the oracle.
    """
    budget = check_budget(Budget(rate, max_params, max_macs))
    graph = analyse(load_model(model))
    from edgeprune.prune.channels import surgery  # has layers of its own, so it imports TensorFlow

    keep = choose(
        graph, budget, criterion, allocation, constraints or Constraints(), evidence or Evidence(), curves
    ).keep
    pruned = surgery.remove(graph, keep)
    difference = surgery.verify(pruned, surgery.mask(graph, keep)) if verify else None
    return Pruned(pruned, removed_channels(graph, keep), difference)


def choose(
    graph: Graph,
    budget: Budget,
    criterion: str,
    how: Literal["uniform", "global", "sensitivity"],
    constraints: Constraints,
    evidence: Evidence,
    curves: MeasureCurves | None = None,
    resources: Sequence[Resource] = (),
    progress: Progress | None = None,
    scores: Scores | None = None,
    measure: bool = True,
) -> Allocation:
    """The units that stay, and how good that choice is.

    Args:
        scores: by :func:`score`, where that is known already.
        measure: whether choices are measured by what refitted models answer, where the criterion predicts that.
    """
    if how == "sensitivity" and curves is None:
        raise DataError(
            "The allocation 'sensitivity' measures on data, and none was given.",
            fix="pass curves, or use the allocation 'global'.",
        )
    scores = score(graph, criterion, evidence) if scores is None else scores
    measured = curves(graph, scores) if how == "sensitivity" and curves else None

    def allocate(scores: Scores) -> Allocation:
        return allocation.allocate(graph, scores, budget, how, constraints, measured, resources)

    if not measure or not CRITERIA[criterion].predicts or how != "global":
        return allocate(scores)
    from edgeprune.prune.choice.effects import in_company

    return in_company(graph, scores, allocate, inputs_of(graph, evidence), evidence.seed, progress)


def score(graph: Graph, criterion: str, evidence: Evidence) -> Scores:
    """How important every channel is, and every block that may go: by name of group, float64 [units]."""
    refuse_idle(graph.view)
    if criterion not in CRITERIA:
        raise RecipeError(f"There is no criterion {criterion!r}.", expected=f"one of: {', '.join(CRITERIA)}.")
    chosen = CRITERIA[criterion]
    if chosen.needs_data and evidence.batches is None:
        raise DataError(
            f"The criterion {criterion!r} looks at data, and none was given.",
            fix="pass evidence (edgeprune.Evidence with batches and task), or use a criterion such as 'l2'.",
        )
    scores = chosen.score(graph, evidence)
    return {**scores, **scores_of_blocks(graph, scores)}


def mask_filters(model: tf_keras.Model | keras.Model, removed: Mapping[str, Vector | Sequence[int]]) -> tf_keras.Model:
    """Make the oracle: the model with the removed channels zeroed where they are consumed, nothing made smaller.

    A pruned model is right if its outputs equal those of the oracle.

    Args:
        model: of tf_keras or Keras 3; it is not changed.
        removed: as :attr:`Pruned.removed` gives it: by name of group, the numbers of channels within it, each in
            [0, size of the group). Groups that are not named keep all.

    Returns:
        A new model of the same inputs, outputs and shapes of weights.

    Raises:
        ModelError: the model is of a kind that edgeprune cannot use.
    """
    graph = analyse(load_model(model))
    from edgeprune.prune.channels import surgery

    keep = np.ones(len(graph.units), bool)
    for group in graph.groups:
        keep[group.units[np.asarray(removed.get(group.name, ()), int)]] = False
    return surgery.mask(graph, keep)


def removed_channels(graph: Graph, keep: np.ndarray) -> dict[str, Vector]:
    """The removed channels of each group, by their numbers within it."""
    gone = {group.name: np.flatnonzero(~keep[group.units]) for group in graph.groups}
    return {name: numbers for name, numbers in gone.items() if len(numbers)}


def check_budget(budget: Budget) -> Budget:
    """The budget itself, if it says how much, in (0, 1)."""
    given = {key: value for key, value in dataclasses.asdict(budget).items() if value is not None}
    within = all(np.asarray(value).dtype.kind in "iuf" and 0 < value < 1 for value in given.values())
    if not given or (budget.rate and len(given) > 1) or not within:
        raise RecipeError(
            f"The pruning budget is {given or 'missing'}.",
            expected="rate, or max_params or max_macs or both; all in (0, 1).",
        )
    return budget
