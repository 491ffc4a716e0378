"""Refit a changed model: each layer, in order, to what the original one gives, from what the changed ones before give.

After channel pruning by least squares (He et al. 2017, arXiv:1707.06168; Luo et al. 2017, ThiNet, arXiv:1707.06342),
without labels and without gradients. The inputs of a layer are those of the changed model, with all earlier layers
refitted, so that errors are made up for instead of added up; the layer before a sum also makes up for what the other
branches lost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.models.graph import CallKey, View, activation_name, symbol_of
from edgeprune.models.types import Layer, Node, Variable
from edgeprune.progress import Progress
from edgeprune.reconstruct.forward import Forward, Values, call
from edgeprune.reconstruct.linear import Product, product_of
from edgeprune.reconstruct.moments import Moments, fit

if TYPE_CHECKING:
    import tf_keras

Kept = Mapping[str, np.ndarray]

RIDGE = 1e-4
# More rows than so many times the terms tell nothing new, and fewer than this are never left out.
ROWS_PER_TERM, ROWS = 32, 20_000


@dataclasses.dataclass(frozen=True)
class Refitted:
    """What became of one layer.

    Attributes:
        layer: its name.
        before, after: its mean square error relative to its targets' variance, as it was and refitted.
        rows: that it was fitted to.
        reason: why it stayed as it was; None where it was refitted.
    """

    layer: str
    before: float | None = None
    after: float | None = None
    rows: int = 0
    reason: str | None = None


def refit(
    original: tf_keras.Model,
    changed: tf_keras.Model,
    batches: Sequence[Sequence[np.ndarray]],
    kept: Kept | None = None,
    *,
    ridge: float = RIDGE,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Refitted]:
    """Refit the layers of ``changed``, in place. Weights that are zero there and not in ``original`` stay zero.

    Args:
        original: flat functional tf_keras model.
        changed: the same calls, with fewer channels or other weights.
        batches: per batch the inputs, in the models' order; no labels.
        kept: layer → int, which channels of its output are left; layers that are not in it kept all.
        ridge: see :func:`edgeprune.reconstruct.moments.fit`.
        seed: of the rows that are looked at, where there are more than enough.

    Returns:
        One entry per layer with weights, in order.
    """
    return _Refitting(original, changed, batches, kept or {}, ridge, seed).run(progress or Progress())


class _Refitting:
    def __init__(
        self,
        original: tf_keras.Model,
        changed: tf_keras.Model,
        batches: Sequence[Sequence[np.ndarray]],
        kept: Kept,
        ridge: float,
        seed: int,
    ):
        self.original, self.changed = Forward(original, batches), Forward(changed, batches)
        self.kept, self.ridge, self.seed = kept, ridge, seed
        self.count = len(batches)
        self.samples = sum(len(batch[0]) for batch in batches)
        self.exact = {id(tensor) for tensor in changed.inputs}  # tensors that are the same in both models
        self.current: Sequence[CallKey] = ()  # the calls of the pass that is under way
        self.found: list[Refitted] = []
        self.products: dict[CallKey, Product] = {}
        for key, node in self.changed.view.calls.items():
            product = product_of(node.layer)
            if product is not None and len(self.changed.view.uses(node.layer)) == 1:
                self.products[key] = product

    def run(self, progress: Progress) -> list[Refitted]:
        waiting = [key for key in self.changed.view.calls if key not in self.changed.done]
        fitted: set[CallKey] = set()
        progress.begin("refitting layers", len(self.products))
        while waiting:
            keys = self._ready(waiting, fitted)
            due = [key for key in waiting if key in self.products and key not in fitted and key not in keys
                   and self.changed.has(self.changed.view.calls[key], keys)]  # fmt: skip
            waiting = [key for key in waiting if key not in keys]
            self._pass(keys, due)
            fitted.update(due)
            progress.advance(len(due))
        progress.end()
        return self.found

    def _ready(self, waiting: Sequence[CallKey], fitted: set[CallKey]) -> list[CallKey]:
        """The calls that need no layer that is still to be refitted."""
        keys: list[CallKey] = []
        for key in waiting:
            node = self.changed.view.calls[key]
            if (key not in self.products or key in fitted) and self.changed.has(node, keys):
                keys.append(key)
                self._note_exact(node)
        return keys

    def _note_exact(self, node: Node) -> None:
        """Outputs are the same where inputs and weights are, and no channel is gone."""
        import tensorflow as tf

        theirs = self.original.view.calls[self.changed.key(node)].layer
        same = all(id(tensor) in self.exact for tensor in node.keras_inputs) and all(
            ours.shape == other.shape and np.array_equal(ours.numpy(), other.numpy())
            for ours, other in zip(node.layer.weights, theirs.weights, strict=True)
        )
        if same:
            self.exact |= {id(tensor) for tensor in tf.nest.flatten(node.outputs)}

    def _pass(self, keys: Sequence[CallKey], due: Sequence[CallKey]) -> None:
        """One pass over the batches: the calls ``keys`` are made, and the layers of ``due`` refitted to what they read."""
        self.current = keys
        fits = [each for each in (_LayerFit.of(self, key) for key in due) if each]
        for batch in range(self.count):
            ours, theirs = self.changed.run(keys, batch), self.original.run(keys, batch)
            for each in fits:
                each.add(ours, theirs, batch)
            self.changed.keep(keys, batch, ours)
            self.original.keep(keys, batch, theirs)
        for forward in (self.changed, self.original):
            forward.done.update(keys)
        self.found += [each.solve() for each in fits]


class _LayerFit:
    """The refit of one layer, from the first batch to the last."""

    def __init__(self, whole: _Refitting, key: CallKey):
        self.key, self.ridge, self.product = key, whole.ridge, whole.products[key]
        self.node, self.theirs = whole.changed.view.calls[key], whole.original.view.calls[key]
        self.kept = whole.kept.get(key[0])
        start = self.product.matrix
        self.mask = self._mask(start)
        self.moments = Moments(*start.shape)
        self.place = _constant_place(whole.changed.view, self.node)
        self.sum = _Sum.behind(whole, self.node)
        self._generator = np.random.default_rng([whole.seed, len(whole.found)])
        self._wanted = max(ROWS, ROWS_PER_TERM * start.shape[1]) / whole.count

    @classmethod
    def of(cls, whole: _Refitting, key: CallKey) -> _LayerFit | None:
        """None where the layer gives what the original one gives already."""
        new = cls(whole, key)
        if new.sum is None and all(id(tensor) in whole.exact for tensor in new.node.keras_inputs):
            weight = kernel = product_of(new.theirs.layer)
            if weight is not None and kernel is not None:
                value = kernel.weight.numpy()
                value = value if new.kept is None else _taken(new, value)
                if value.shape == new.product.weight.shape and np.array_equal(value, new.product.weight.numpy()):
                    return None
        return new

    def _mask(self, start: np.ndarray) -> np.ndarray | None:
        """Which weights may change: those that pruning did not set to zero."""
        return None if start.all() else start != 0

    def add(self, ours: Values, theirs: Values, batch: int) -> None:
        (read,) = self.node.keras_inputs
        wanted = call(self.theirs, theirs, linear=True).numpy()
        if self.kept is not None:
            wanted = np.take(wanted, self.kept, -1)
        if self.sum is not None:
            wanted = wanted + self.sum.lost(ours, theirs, self.kept)
        positions = int(np.prod(wanted.shape[:-1]))
        index = None
        if positions > self._wanted:
            index = self._generator.choice(positions, int(self._wanted), replace=False)
        rows = self.product.rows(ours[id(read)], index)
        self.moments.add(rows.numpy(), self.product.outputs(wanted, index).numpy())

    def solve(self) -> Refitted:
        start = self.product.matrix
        bias = self.product.bias
        intercept = bias is not None or self.place is not None
        result = fit(self.moments, start, self.ridge, intercept=intercept, mask=self.mask)
        self.product.assign(result.matrix)
        constant = result.constant.reshape(-1)
        if bias is not None:
            bias.assign(constant.astype(bias.dtype.as_numpy_dtype))
        elif self.place is not None:
            self.place.assign_sub(constant.astype(self.place.dtype.as_numpy_dtype))
        return Refitted(self.key[0], result.before, result.after, self.moments.rows)


def _taken(each: _LayerFit, value: np.ndarray) -> np.ndarray:
    """The kernel of the original with the channels that were kept."""
    from edgeprune.models.layer_facts import facts_of

    facts = facts_of(each.node.layer)
    if facts is None or len(facts.channel_axes) > 1:
        return value
    return np.take(value, each.kept, facts.channel_axes[0])


def _constant_place(view: View, node: Node) -> Variable | None:
    """The mean of the batch normalization that takes the constant of a layer without bias; None: there is none."""
    if getattr(node.layer, "use_bias", False) or activation_name(node.layer) != "linear":
        return None
    readers = view.readers(node.outputs)
    if len(readers) != 1 or view.is_end(node.outputs) or len(view.uses(readers[0].layer)) > 1:
        return None
    layer = readers[0].layer
    return layer.moving_mean if type(layer).__name__ == "BatchNormalization" else None


@dataclasses.dataclass(frozen=True)
class _Sum:
    """A sum that a layer's output goes into, of which the other terms are known already.

    Attributes:
        ours, theirs: ids of the other terms in both models.
        scale: by which the output is multiplied on the way; float [channels] or 1.
    """

    ours: tuple[int, ...]
    theirs: tuple[int, ...]
    scale: Any

    @classmethod
    def behind(cls, whole: _Refitting, node: Node) -> _Sum | None:
        if activation_name(node.layer) != "linear":
            return None
        view, scale, tensor = whole.changed.view, np.float32(1), node.outputs
        while True:
            readers = view.readers(tensor)
            if len(readers) != 1 or view.is_end(tensor) or len(view.uses(readers[0].layer)) > 1:
                return None
            reader = readers[0]
            if type(reader.layer).__name__ == "BatchNormalization":
                scale = scale * _scale(reader.layer)
            elif type(reader.layer).__name__ == "Add" or symbol_of(reader.layer) in ("math.add", "__operators__.add"):
                break
            elif activation_name(reader.layer) != "linear" or type(reader.layer).__name__ not in (
                "Activation",
                "Dropout",
            ):
                return None
            tensor = reader.outputs
        others = [x for x in reader.keras_inputs if x is not tensor]
        if len(others) != len(reader.keras_inputs) - 1 or not all(
            tuple(x.shape) == tuple(tensor.shape) for x in others
        ):
            return None
        made = {*whole.changed.done, *whole.current}
        if not all(whole.changed.key(view.maker(x)) in made for x in others):
            return None
        if all(id(x) in whole.exact for x in others):
            return None
        their_reader = whole.original.view.calls[whole.changed.key(reader)]
        pairs = list(zip(reader.keras_inputs, their_reader.keras_inputs, strict=True))
        return cls(
            tuple(id(x) for x, _ in pairs if x is not tensor), tuple(id(x) for y, x in pairs if y is not tensor), scale
        )

    def lost(self, ours: Values, theirs: Values, kept: np.ndarray | None) -> np.ndarray:
        """What the other terms lack, before the scale."""
        here = sum(ours[number].numpy() for number in self.ours)
        there = sum(theirs[number].numpy() for number in self.theirs)
        lack = (there if kept is None else np.take(there, kept, -1)) - here
        safe = np.abs(self.scale) > 1e-3 * np.max(np.abs(self.scale))
        return np.where(safe, lack / np.where(safe, self.scale, 1), 0).astype(np.float32)


def _scale(norm: Layer) -> np.ndarray:
    """By which a batch normalization multiplies each channel."""
    scale = 1 / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    return scale * norm.gamma.numpy() if norm.scale else scale
