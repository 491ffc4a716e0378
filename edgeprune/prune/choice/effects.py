"""Which choice answers most like the original model: predicted losses, put right by measuring refitted models.

The error of a group's consumers says what they lack. It does not say how much of it the layers behind make up for, nor
that errors of several groups add up to more than their sum: on a MobileNet, choices of the same predicted loss lay
between 0.24 and 0.61 nats. So the losses of a group are taken to be wrong by a factor. For one group after the other
they count twice, or half, the program chooses anew, everything is refitted, and what makes the answers better stays:
a compass search (Kolda, Lewis & Torczon 2003, doi:10.1137/S003614450242889) over the factors. Its steps are large, for
smaller ones follow the samples at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from edgeprune.progress import Progress
from edgeprune.prune.channels.block_units import without_blocks
from edgeprune.prune.channels.graph import Graph
from edgeprune.prune.choice.allocation import Allocation
from edgeprune.prune.choice.criteria import Scores
from edgeprune.reconstruction.answers import answers_of, divergence, kinds_of, with_room
from edgeprune.reconstruction.forward import BATCH_BYTES, bytes_per_sample, in_pieces, joined
from edgeprune.reconstruction.journal import Memory
from edgeprune.reconstruction.linear import products_of
from edgeprune.reconstruction.moments import ROWS, ROWS_PER_TERM
from edgeprune.reconstruction.refit import refit

# Factors that are tried: of each group that is predicted to cost most, and one of all the others.
MEASURED = 8
# Up and down; the larger ones where the smaller ones change nothing.
_STEPS = ((2.0, 4.0, 16.0, 256.0), (1 / 2, 1 / 4, 1 / 16, 1 / 256))
# How much smaller a divergence counts if all parameters are left. On the samples of one seed the answers of two choices
# differ by a few percent that they do not on others; what would be left to chance is left to the parameters, which
# training can use. Without this, four seeds chose 52,000 to 60,000 parameters for half of a ResNet8's
# multiply-accumulates, with it 59,800 to 60,900; five others, by Fisher information as it is now, 54,700 to 60,400.
_ROOM = 0.6
# Samples that the models are refitted to: so many, or a quarter where that is more. Their outputs are compared on the
# others, which takes less time and leaves less to chance.
_FITTED = 1024
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

    Of choices that answer alike, the one that keeps more parameters.

    Args:
        scores: group → float64 [units], whose sums are predicted losses of the answers, in nats per sample.
        choose: what goes, by such scores.
        batches: per batch the inputs, in the order of the graph's model.
        seed: of the rows that are looked at, where there are more than enough.
    """
    best = choose(scores)
    together = _tried_together(graph, scores, best.keep)
    if len(together) < 2:
        return best
    cost = _cost(graph, batches, seed)
    least = cost(best.keep)
    factors = dict.fromkeys(scores, 1.0)
    for number, names in enumerate(together, 1):
        if progress:
            progress.note(f"measures choices of channels after their repair: {number} of {len(together)}")
        for steps in _STEPS:
            every = ({**factors, **{name: factors[name] * step for name in names}} for step in steps)
            changed, chosen = next(_others(every, choose, scores, best), (factors, best))
            now = cost(chosen.keep)
            if now < least:
                best, least, factors = chosen, now, changed
                break
    return best


def _others(
    factors: Iterator[dict[str, float]], choose: Callable[[Scores], Allocation], scores: Scores, best: Allocation
) -> Iterator[tuple[dict[str, float], Allocation]]:
    """The choices by these factors that are not the best one."""
    for changed in factors:
        chosen = choose({name: values * changed[name] for name, values in scores.items()})
        if not np.array_equal(chosen.keep, best.keep):
            yield changed, chosen


def _tried_together(graph: Graph, scores: Scores, keep: np.ndarray) -> list[list[str]]:
    """Names of the groups whose factors are changed together, those that are predicted to cost most first.

    None where the refits of two such factors would take too long.
    """
    lost = {
        group.name: float(scores[group.name][~keep[group.units]].sum()) for group in graph.groups if len(group.free)
    }
    ranked = sorted(lost, key=lost.__getitem__, reverse=True)
    refits = int(_WORK // _work_of_a_refit(graph))
    alone = min(MEASURED, (refits - 1) // len(_STEPS) - 1)
    together = [*([name] for name in ranked[:alone]), ranked[alone:]] if alone > 0 else []
    return [names for names in together if names]


def _cost(graph: Graph, batches: Sequence[Sequence[np.ndarray]], seed: int) -> Callable[[np.ndarray], float]:
    """How bad a choice is: what the answers differ by once all is refitted, in nats, less for more parameters."""
    from edgeprune.prune.channels import surgery

    pieces = in_pieces(batches, _AT_ONCE)
    most = max(1, min(3 * len(pieces) // 4, max(_FITTED // _AT_ONCE, len(pieces) // 4)))
    fitted, compared = pieces[:most], pieces[most:] or pieces
    compared = joined(with_room(graph.model, compared), BATCH_BYTES // bytes_per_sample(graph.model))
    answers = answers_of(graph.model, compared)
    kinds = kinds_of(graph.model, answers)
    memory = Memory()
    known: dict[bytes, float] = {}

    def cost(keep: np.ndarray) -> float:
        choice = keep.tobytes()
        if choice not in known:
            inner, kept = without_blocks(graph, keep)
            pruned = surgery.remove(inner, kept)
            refit(graph.model, pruned, fitted, inner.kept_outputs(kept), seed=seed, memory=memory)
            share = graph.count_params(keep) / graph.totals["params"]
            known[choice] = divergence(kinds, answers, answers_of(pruned, compared)) * (1 - _ROOM * share)
        return known[choice]

    return cost


def _work_of_a_refit(graph: Graph) -> float:
    products = [product for node in graph.view.nodes if not node.is_input for product in products_of(node.layer)]
    terms = [(product.parts, product.matrix.shape[1]) for product in products]
    return float(sum(parts * size**2 * (max(ROWS, ROWS_PER_TERM * size) + size) for parts, size in terms))
