"""What each group really costs: measured while the others are as chosen, and everything is refitted.

The error of a group's consumers says what they lack. It does not say how much of it the layers behind make up for, nor
that errors of several groups add up to more than their sum: on a MobileNet, choices of the same predicted loss lay
between 0.24 and 0.61 nats. Both depend on which groups are pruned together, so that is where they are measured: from
the model as it would be, one group at a time gets its channels back, everything is refitted, and the outputs are
compared. What a group then saves, over what was predicted, weighs its losses in the next choice. This is sequential
linear programming on a function that is only known by measuring it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgeprune.progress import Progress
from edgeprune.prune.channels.block_units import without_blocks
from edgeprune.prune.channels.graph import Graph
from edgeprune.prune.choice.allocation import Allocation
from edgeprune.prune.choice.criteria import Scores
from edgeprune.reconstruction.fisher import divergence
from edgeprune.reconstruction.forward import in_pieces
from edgeprune.reconstruction.journal import Memory
from edgeprune.reconstruction.linear import products_of
from edgeprune.reconstruction.moments import ROWS, ROWS_PER_TERM
from edgeprune.reconstruction.refit import refit

# Choices after the first, and groups that are measured for each: those that are predicted to cost most.
ROUNDS = 2
MEASURED = 8
# A choice that is measured to be better by less is the last one.
_WORTH = 0.02
# What a group saves is the difference of two measurements: it counts no less than this share of what it was taken for.
_LEAST = 0.1
# Samples that the models are refitted to, and others that their outputs are compared on.
_FITTED, _COMPARED = 512, 512
_AT_ONCE = 32
# Multiplications in all these refits. In larger models fewer groups are measured, or none, and all count as predicted.
_WORK = 2.5e12


def in_company(
    graph: Graph,
    scores: Scores,
    choose: Callable[[Scores], Allocation],
    batches: Sequence[Sequence[np.ndarray]],
    seed: int = 0,
    progress: Progress | None = None,
) -> Allocation:
    """The choice, of several, whose refitted model answers most like the original one.

    Args:
        scores: group → float64 [units], whose sums are predicted losses of the answers, in nats per sample.
        choose: what goes, by such scores.
        batches: per batch the inputs, in the order of the graph's model.
        seed: of the rows that are looked at, where there are more than enough.
    """
    chosen = choose(scores)
    measured = min(MEASURED, int(_WORK // _work_of_a_refit(graph)) // ROUNDS - 1)
    if measured < 2:
        return chosen
    pieces = in_pieces(batches, _AT_ONCE)
    most = max(1, min(3 * len(pieces) // 4, _FITTED // _AT_ONCE))
    fitted, compared = pieces[:most], pieces[most : most + _COMPARED // _AT_ONCE] or pieces
    memory = Memory()

    def cost(keep: np.ndarray) -> float:
        from edgeprune.prune.channels import surgery

        inner, kept = without_blocks(graph, keep)
        pruned = surgery.remove(inner, kept)
        refit(graph.model, pruned, fitted, inner.kept_outputs(kept), seed=seed, memory=memory)
        return divergence(graph.model, pruned, compared)

    best, least = chosen, cost(chosen.keep)
    factors = dict.fromkeys(scores, 1.0)
    now = least
    for number in range(ROUNDS):
        if progress:
            progress.note(f"measured: the answers differ by {now:.3f} nats; chooses again by what each group costs")
        found = _ratios(graph, scores, factors, chosen.keep, now, cost, measured)
        if not found:
            break
        # What was not measured is taken to be wrong as the rest is on average, the less so the less was measured.
        logs = [float(np.log(ratio / factors[name])) for name, ratio in found.items()]
        shift = float(np.exp(np.mean(logs) * (1 - 1 / len(logs))))
        steps = {name: found.get(name, factor * shift) / factor for name, factor in factors.items()}
        # Later steps are halved, so that the choice settles where measurements of both sides of it contradict.
        factors = {name: factors[name] * step ** (0.5 if number else 1.0) for name, step in steps.items()}
        chosen = choose({name: values * factors[name] for name, values in scores.items()})
        now = cost(chosen.keep)
        if now < least:
            enough = now > (1 - _WORTH) * least
            best, least = chosen, now
            if enough:
                break
    return best


def _ratios(
    graph: Graph,
    scores: Scores,
    factors: dict[str, float],
    keep: np.ndarray,
    now: float,
    cost: Callable[[np.ndarray], float],
    measured: int,
) -> dict[str, float]:
    """Group → what it costs in the company of the others, over what its scores say."""
    predicted = {}
    for group in graph.groups:
        if group.name in scores and not keep[group.units].all():
            predicted[group.name] = float(scores[group.name][~keep[group.units]].sum())
    taken_for = {name: value * factors[name] for name, value in predicted.items()}
    most = sorted(taken_for, key=taken_for.__getitem__, reverse=True)[:measured]
    ratios = {}
    for group in graph.groups:
        # What is taken for nothing, channels without any effect for example, gives no ratio.
        if group.name in most and taken_for[group.name] > 0.01 * sum(taken_for.values()):
            back = keep.copy()
            back[group.units] = True
            saved = now - cost(back)
            ratios[group.name] = max(saved, _LEAST * taken_for[group.name]) / predicted[group.name]
    return ratios


def _work_of_a_refit(graph: Graph) -> float:
    products = [product for node in graph.view.nodes if not node.is_input for product in products_of(node.layer)]
    terms = [(product.parts, product.matrix.shape[1]) for product in products]
    return float(sum(parts * size**2 * (max(ROWS, ROWS_PER_TERM * size) + size) for parts, size in terms))
