"""What channels cost on a board, before anything is trained: milliseconds per channel, and loss against latency."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgeprune.errors import RecipeError
from edgeprune.files import JsonObject
from edgeprune.hardware.latency.source import latency_source
from edgeprune.target import ChannelSteps, Target

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.prune.channels.graph import Graph
    from edgeprune.prune.choice.budget import Resource

# Shares of the unpruned model's latency that are asked for.
BUDGETS = tuple(number / 100 for number in range(95, 35, -5))


def channel_costs(model: tf_keras.Model, target: Target, mode: Literal["float32", "int8"]) -> JsonObject:
    """The estimated latency that channels of each group save, and what each budget of latency would leave.

    No data is looked at: the loss of a choice is the share of the weights' norms that goes (criterion ``l2``).

    Args:
        model: flat functional tf_keras model with one size.
        target: a board with coefficients of latency, or a compiler that estimates it.
        mode: the format that the model would be built in.

    Returns:
        ``latency_ms`` of the whole model; ``groups``: name → milliseconds per channel, over the first step of the
        target's channel multiple; ``budgets``: of those that can be met and are worth it, the shares of latency, MACs
        and parameters left, ``lost``: the share of the norms, and the ``gap`` of the solution.

    Raises:
        RecipeError: the speed of the target is not known, or that of what its compiler leaves to the processor.
        ConversionError: the model cannot be converted, or the target's compiler refuses it.
        MissingError: the target's compiler is not installed.
        ModelError: the file does not follow the channels of the model.
    """
    from edgeprune.prune.channels.analyse import analyse
    from edgeprune.prune.choice import file_costs
    from edgeprune.prune.choice.file_shapes import FileShapes

    if latency_source(target) is None:
        raise RecipeError(
            f"The target {target.name} has no coefficients to estimate a latency by.",
            fix="measure files on the board and run `edgeprune targets fit`, or take another target.",
        )
    graph = analyse(model)
    io = target.quantization.io if mode == "int8" else "float"
    shapes = FileShapes.of(graph, lambda changed: converted(changed, mode, io))
    latency = file_costs.latency(shapes, target)
    steps = target.channel_steps(mode)
    return {
        "target": target.name,
        "mode": mode,
        "latency_ms": latency.whole,
        "multiple": steps.multiple,
        "groups": _per_channel(graph, latency, steps),
        "budgets": _undominated(list(_budgets(graph, latency, steps))),
    }


def converted(
    model: tf_keras.Model, mode: Literal["float32", "int8"], io: Literal["float", "int8", "uint8"] = "float"
) -> bytes:
    """The file that a model is converted to, with such inputs and outputs; the ranges of int8 mean nothing in it."""
    from edgeprune.convert.converter import convert
    from edgeprune.quantize.plan import QuantizationPlan

    plan = QuantizationPlan(mode, io, needs_samples=mode == "int8")
    generator = np.random.default_rng(0)

    def samples() -> Iterator[list[np.ndarray]]:
        yield [  # sizes do not depend on values
            generator.random([1, *tensor.shape[1:]]).astype(tensor.dtype.as_numpy_dtype) for tensor in model.inputs
        ]

    return convert(model, plan, samples if plan.needs_samples else None)


def _per_channel(graph: Graph, latency: Resource, steps: ChannelSteps) -> dict[str, float]:
    found = {}
    for group in graph.groups:
        gone = min(steps.at(group.size), len(group.free), group.size - 1)
        if gone < 1:
            continue
        keep = np.ones(len(graph.units), bool)
        keep[group.units[group.free[:gone]]] = False
        found[group.name] = (latency.whole - latency.exact(keep)) / gone
    return found


def _undominated(rows: list[JsonObject]) -> list[JsonObject]:
    """Those beside which no other takes less time and loses less: finer channels may be worth more time saved."""
    return [
        row
        for row in rows
        if not any(other["latency"] <= row["latency"] and other["lost"] < row["lost"] for other in rows)
    ]


def _budgets(graph: Graph, latency: Resource, steps: ChannelSteps) -> Iterator[JsonObject]:
    from edgeprune.prune.choice.allocation import allocate
    from edgeprune.prune.choice.budget import Budget, Constraints
    from edgeprune.prune.choice.criteria import CRITERIA, Evidence
    from edgeprune.prune.choice.program import relative_gap

    scores = CRITERIA["l2"].score(graph, Evidence())
    everything = sum(float(values.sum()) for values in scores.values())
    constraints = Constraints(min_channels=2, steps=steps)
    for share in BUDGETS:
        limited = latency.limited(share * latency.whole)
        try:
            found = allocate(graph, scores, Budget(), "global", constraints, resources=[limited])
        except RecipeError:  # those below cannot be met either
            return
        milliseconds, _ = found.costs["latency"]
        yield {
            "asked": share,
            "latency_ms": milliseconds,
            "latency": milliseconds / latency.whole,
            "macs": graph.count_macs(found.keep) / graph.totals["macs"],
            "params": graph.count_params(found.keep) / graph.totals["params"],
            "lost": found.loss / everything,
            "gap": relative_gap(found.loss, found.bound),
        }
