"""How important each channel is: one small function per criterion.

A criterion gives a score per unit of every group; the lowest go first. Scores by weights are computed member by member
(the weights that make a channel, or that follow it), normalized to mean one within a member so that a large layer does
not drown a small one (Fang et al. 2023, arXiv:2301.12900, section 3.3), and averaged over members. Scores by data are
sums over everything that consumes a channel: first-order effects add up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.models.types import Layer, Tensor, Variable
from edgeprune.prune.channels.block_units import inside
from edgeprune.prune.channels.graph import Binding, Graph

if TYPE_CHECKING:
    import tensorflow as tf

    from edgeprune.data.source import Batches
    from edgeprune.tasks.task import Task

Scores = dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]  # group name → [units]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a criterion may look at beside the weights.

    Attributes:
        batches: a function that gives training batches anew at each call: (x, y) with arrays [batch, ...], prepared as
            the model takes them; None: no data.
        task: whose loss counts, as :func:`edgeprune.tasks.resolve.resolve_task` gives it; None: no data.
        seed: for the criteria that draw.
    """

    batches: Batches | None = None
    task: Task | None = None
    seed: int = 0


Score = Callable[[Graph, Evidence], Scores]


@dataclasses.dataclass(frozen=True)
class Criterion:
    """A way to score.

    Attributes:
        needs_data: from training batches.
        predicts: its scores add up to what the answers lose, in nats per sample, once the rest is refitted. That can
            be compared with what a choice is measured to lose (:mod:`edgeprune.prune.choice.effects`).
    """

    score: Score
    needs_data: bool
    predicts: bool


CRITERIA: dict[str, Criterion] = {}


def criterion(name: str, needs_data: bool = False, predicts: bool = False) -> Callable[[Score], Score]:
    """Enter a function ``(graph, evidence) -> scores`` into the table."""

    def enter(score: Score) -> Score:
        CRITERIA[name] = Criterion(score, needs_data, predicts)
        return score

    return enter


@criterion("l1")
def l1(graph: Graph, evidence: Evidence) -> Scores:
    """Sum of absolute weights of a filter (Li et al. 2017, arXiv:1608.08710)."""
    return _by_members(graph, lambda rows: np.abs(rows).sum(1))


@criterion("l2")
def l2(graph: Graph, evidence: Evidence) -> Scores:
    """Euclidean norm of a filter (He et al. 2018, arXiv:1808.06866)."""
    return _by_members(graph, _norm)


@criterion("fpgm")
def geometric_median(graph: Graph, evidence: Evidence) -> Scores:
    """Sum of distances to the other filters of the layer: what is close to the others can be replaced by them.

    He et al. 2019, arXiv:1811.00250.
    """

    def distances(rows: np.ndarray) -> np.ndarray:
        squares = np.square(rows).sum(1)
        return np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0)).sum(1)

    return _by_members(graph, distances)


@criterion("bn_scale")
def batch_norm_scale(graph: Graph, evidence: Evidence) -> Scores:
    """Absolute scale of the batch normalization behind a channel (Liu et al. 2017, arXiv:1708.06519).

    Channels without batch normalization are scored by the L2 norm of their filters.
    """
    scaled = np.zeros(len(graph.units), bool)
    for layer in graph.model.layers:
        weights = layer.weights
        for binding in graph.layers[layer.name].bindings:
            scaled[binding.vector] |= _is_scale(weights[binding.weight], binding)
    scales = _by_unit(graph, lambda rows: np.abs(rows).sum(1), _is_scale)
    return _for_groups(graph, np.where(scaled, scales, _by_unit(graph, _norm)))


@criterion("random")
def random(graph: Graph, evidence: Evidence) -> Scores:
    """Uniform: the baseline that every other criterion has to beat (Mittal et al. 2018, arXiv:1801.10447)."""
    generator = np.random.default_rng(evidence.seed)
    return {group.name: generator.random(group.size) for group in graph.groups}


@criterion("taylor", needs_data=True)
def taylor(graph: Graph, evidence: Evidence) -> Scores:
    """Magnitude of the first-order change of the loss when a channel is removed.

    Molchanov et al. 2017, arXiv:1611.06440: |mean over data of activation × gradient|. Here it is read off where the
    channel is consumed: for y = W x, the sum of weight × gradient over the weights that read channel i is the sum of
    x_i × dL/dx_i, so one backward pass gives all channels of all groups, and the contributions of consumers add up.
    """
    return _gate_gradients(graph, evidence, lambda per_batch: np.abs(per_batch.mean(0)))


@criterion("fisher", needs_data=True)
def fisher(graph: Graph, evidence: Evidence) -> Scores:
    """Mean square of that change over small batches: the diagonal of the Hessian of the loss in a channel's gate.

    Theis et al. 2018, arXiv:1801.05787, with the empirical Fisher information for the Hessian.
    """
    return _gate_gradients(graph, evidence, lambda per_batch: np.square(per_batch).mean(0))


@criterion("activation", needs_data=True)
def activation(graph: Graph, evidence: Evidence) -> Scores:
    """Mean absolute activation where a channel is consumed (Polyak & Wolf 2015, doi:10.1109/ACCESS.2015.2494536)."""
    return _by_inputs(graph, evidence, lambda moments, weights: moments.mean_abs)


@criterion("apoz", needs_data=True)
def average_percentage_of_zeros(graph: Graph, evidence: Evidence) -> Scores:
    """Fraction of activations that are not zero (Hu et al. 2016, arXiv:1607.03250)."""
    return _by_inputs(graph, evidence, lambda moments, weights: moments.nonzero)


@criterion("reconstruction", needs_data=True)
def reconstruction(graph: Graph, evidence: Evidence) -> Scores:
    """Share of the consumers' output energy that is lost with a channel once its mean is folded into the bias.

    Label-free and layer-wise: variance of the channel times the energy of the weights that read it, relative to the
    sum over the consumer's channels. The objective of ThiNet (Luo et al. 2017, arXiv:1707.06342) with the diagonal
    of its Hessian (Hassibi & Stork 1993); a refit makes up for the mean by the constant behind the consumer.
    """
    return _by_inputs(graph, evidence, lambda moments, weights: _share(moments.variance * weights))


@criterion("reconstruct", needs_data=True, predicts=True)
def reconstruct(graph: Graph, evidence: Evidence) -> Scores:
    """Rise of the loss when a channel goes and its consumers are refitted, one channel after the other.

    The steps of :mod:`edgeprune.prune.choice.elimination`, which needs no labels. A step counts no less than the one
    before it, so that the order stays.
    """
    from edgeprune.prune.choice.elimination import eliminations

    batches = inputs_of(graph, evidence)
    scores, read = np.zeros(len(graph.units)), np.zeros(len(graph.units), bool)
    groups = {group.name: group for group in graph.groups}
    for name, found in eliminations(graph, batches, evidence.seed).items():
        units = groups[name].units[found.order]
        steps = np.maximum.accumulate(np.maximum(np.diff(found.errors), 1e-12))
        scores[units] = steps * (1 + 1e-9 * np.arange(len(steps)))
        read[units] = True
    return _with_unread(graph, scores, read)


def inputs_of(graph: Graph, evidence: Evidence) -> list[list[np.ndarray]]:
    """Per batch of the evidence the inputs, in the order of the graph's model."""
    from edgeprune.reconstruction.forward import in_order

    assert evidence.batches is not None
    return [in_order(graph.model, x) for x, *_ in evidence.batches()]


@criterion("sampling", needs_data=True)
def importance_sampling(graph: Graph, evidence: Evidence) -> Scores:
    """Keep channels at random, with a probability proportional to what they contribute to their consumers.

    Contribution: mean absolute activation times the norm of the weights that read the channel (Baykal et al. 2019,
    arXiv:1804.05345; Liebenwein et al. 2020, arXiv:1911.07412). Drawing without replacement is taking the largest of
    log-probability plus Gumbel noise (Kool et al. 2019, arXiv:1903.06059), which is what is returned, made positive.
    """
    scores = _by_inputs(graph, evidence, lambda moments, weights: _share(moments.mean_abs * np.sqrt(weights)))
    generator = np.random.default_rng(evidence.seed)
    noisy = {name: np.log(score + 1e-12) + generator.gumbel(size=len(score)) for name, score in scores.items()}
    return {name: score - score.min() + 1e-6 for name, score in noisy.items()}


def _share(values: np.ndarray) -> np.ndarray:
    return values / max(float(values.sum()), 1e-30)


def _is_kernel(weight: Variable, binding: Binding) -> bool:
    return binding.role in ("produced", "matched") and len(weight.shape) > 1


def _is_scale(weight: Variable, binding: Binding) -> bool:
    return binding.role == "followed" and "gamma" in weight.name


def _by_members(
    graph: Graph, measure: Callable[[np.ndarray], np.ndarray], chosen: Callable[[Variable, Binding], bool] = _is_kernel
) -> Scores:
    """Average over a group's members of ``measure(rows [positions, weights of one position]) -> [positions]``."""
    return _for_groups(graph, _by_unit(graph, measure, chosen))


def _by_unit(
    graph: Graph, measure: Callable[[np.ndarray], np.ndarray], chosen: Callable[[Variable, Binding], bool] = _is_kernel
) -> np.ndarray:
    total, members = np.zeros(len(graph.units)), np.zeros(len(graph.units))
    for layer in graph.model.layers:
        weights = layer.weights
        for binding in graph.layers[layer.name].bindings:
            weight = weights[binding.weight]
            if not chosen(weight, binding):
                continue
            rows = np.moveaxis(weight.numpy(), binding.axis, 0).reshape(weight.shape[binding.axis], -1)
            values = measure(rows.astype(np.float64))
            np.add.at(total, binding.vector, values / max(float(values.mean()), 1e-30))
            np.add.at(members, binding.vector, 1.0)
    return total / np.maximum(members, 1)


def _norm(rows: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(rows).sum(1))


def _with_unread(graph: Graph, scores: np.ndarray, read: np.ndarray) -> Scores:
    """The scores of units that are read, and the L2 scores of the others.

    Units that no weights read (the factors of a product, say) get no score from the data. Their L2 scores are scaled to
    the mean of the others.
    """
    free = [unit for group in graph.groups if not group.frozen for unit in group.units.tolist() if read[unit]]
    scale = float(scores[free].mean()) if free else 1.0
    return _for_groups(graph, np.where(read, scores, scale * _by_unit(graph, _norm)))


def scores_of_blocks(graph: Graph, scores: Scores) -> Scores:
    """What the blocks of a graph are worth, [1] each: all channels of a group inside of it, of the group that is worth
    most. A block does nothing without them but for a constant."""
    return {
        group.name: np.array([max(float(scores[inner.name].sum()) for inner in inside(graph, group.block))])
        for group in graph.groups
        if group.block
    }


def _for_groups(graph: Graph, by_unit: np.ndarray) -> Scores:
    return {group.name: by_unit[group.units] for group in graph.groups}


def _gate_gradients(graph: Graph, evidence: Evidence, combine: Callable[[np.ndarray], np.ndarray]) -> Scores:
    """Gradient of the loss in a gate on every unit, batch by batch ([batches, units]), then combined."""
    import tensorflow as tf

    assert evidence.batches is not None
    assert evidence.task is not None
    loss, model = evidence.task.loss_function(), graph.model
    reading = [
        (layer.weights[binding.weight], binding)
        for layer in model.layers
        for binding in graph.layers[layer.name].bindings
        if binding.role in ("consumed", "matched")
    ]
    weights = list({id(weight): weight for weight, _ in reading}.values())

    @tf.function(reduce_retracing=True)
    def products(x: Any, y: Any, *w: Any) -> list[tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            value = loss(y, model(x, training=False), *w)
        gradients = tape.gradient(value, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        by_weight = {id(weight): tf.convert_to_tensor(g) * weight for weight, g in zip(weights, gradients, strict=True)}
        return [
            tf.reduce_sum(by_weight[id(weight)], [a for a in range(len(weight.shape)) if a != binding.axis])
            for weight, binding in reading
        ]

    rows = []
    for batch in evidence.batches():
        row = np.zeros(len(graph.units))
        for (_, binding), value in zip(reading, products(*batch), strict=True):
            np.add.at(row, binding.vector, value.numpy())
        rows.append(row)
    read = np.zeros(len(graph.units), bool)
    for _, binding in reading:
        read[binding.vector] = True
    return _with_unread(graph, combine(np.stack(rows)), read)


@dataclasses.dataclass(frozen=True)
class _Moments:
    """Statistics of each channel where it is consumed: float64 [channels]."""

    mean: np.ndarray
    mean_abs: np.ndarray
    variance: np.ndarray
    nonzero: np.ndarray


def _by_inputs(graph: Graph, evidence: Evidence, measure: Callable[[_Moments, np.ndarray], np.ndarray]) -> Scores:
    """Average over a unit's consumers of ``measure(moments of its inputs, energy of their weights) -> [channels]``."""
    total, readers = np.zeros(len(graph.units)), np.zeros(len(graph.units))
    for layer, binding, moments in input_moments(graph, evidence):
        weight = layer.weights[binding.weight].numpy().astype(np.float64)
        energy = np.square(weight).sum(tuple(a for a in range(weight.ndim) if a != binding.axis))
        values = measure(moments, energy)
        np.add.at(total, binding.vector, values / max(float(values.mean()), 1e-30))
        np.add.at(readers, binding.vector, 1.0)
    return _with_unread(graph, total / np.maximum(readers, 1), readers > 0)


def input_moments(graph: Graph, evidence: Evidence) -> Iterator[tuple[Layer, Binding, _Moments]]:
    """Statistics over data of the input channels of every layer that consumes some along its last input axis."""
    import tensorflow as tf
    import tf_keras

    assert evidence.batches is not None
    taps = list(_taps(graph))
    tapped = tf_keras.Model(graph.model.input, [tensor for _, _, tensor in taps])

    @tf.function(reduce_retracing=True)
    def sums(x: Any) -> list[tf.Tensor]:
        rows = []
        for tensor in tf.nest.flatten(tapped(x, training=False)):
            flat = tf.reshape(tf.cast(tensor, tf.float32), [-1, tensor.shape[-1]])
            parts = [flat, tf.abs(flat), tf.square(flat), tf.cast(flat != 0, tf.float32), tf.ones_like(flat)]
            rows.append(tf.stack([tf.reduce_sum(part, 0) for part in parts]))
        return rows

    totals: list[np.ndarray] = []
    for x, *_ in evidence.batches():
        batch = [np.asarray(row, np.float64) for row in sums(x)]
        totals = batch if not totals else [a + b for a, b in zip(totals, batch, strict=True)]
    for (layer, binding, _), (plain, absolute, square, nonzero, count) in zip(taps, totals, strict=True):
        mean = plain / count
        yield layer, binding, _Moments(mean, absolute / count, np.maximum(square / count - mean**2, 0), nonzero / count)


def _taps(graph: Graph) -> Iterator[tuple[Layer, Binding, Tensor]]:
    """Each call of a layer with each binding that reads the last axis of a tensor, and that tensor."""
    for node in graph.view.nodes:
        for binding in graph.layers[node.layer.name].bindings:
            if binding.role != "consumed":
                continue
            for tensor in node.keras_inputs:
                axes = graph.axes[id(tensor)]
                if axes and axes[-1] is not None and np.array_equal(axes[-1], binding.vector):
                    yield node.layer, binding, tensor
                    break
