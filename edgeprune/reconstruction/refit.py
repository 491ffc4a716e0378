"""Refit a changed model: each layer, in order, to what the original one gives, from what the changed ones before give.

After channel pruning by least squares (He et al. 2017, arXiv:1707.06168; Luo et al. 2017, ThiNet, arXiv:1707.06342),
without labels and without gradients. The inputs of a layer are those of the changed model, with all earlier layers
refitted, so that errors are made up for instead of added up; the layer before a sum also makes up for what the other
branches lost.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.models.graph import CallKey, View, flat
from edgeprune.models.types import Layer, Node, Tensor
from edgeprune.progress import Progress
from edgeprune.reconstruction.forward import (
    BATCH_BYTES,
    Forward,
    Values,
    bytes_per_sample,
    call,
    in_pieces,
    joined,
    norm_behind,
)
from edgeprune.reconstruction.journal import Journal, Memory, key_of
from edgeprune.reconstruction.linear import Index, Product, products_of
from edgeprune.reconstruction.moments import Moments, choose_ridge, fit, sample
from edgeprune.reconstruction.rectified import Rectifier, Rows
from edgeprune.reconstruction.rounding import Grid
from edgeprune.reconstruction.sums import Sum, is_sum, sum_behind

if TYPE_CHECKING:
    import tf_keras

_log = logging.getLogger(__name__)

RIDGE = 1e-4
# What the tensors that are kept for all samples may fill.
MEMORY_BYTES = 1_000_000_000
# How often targets are set anew to what a rectifier lets through of the errors.
SWEEPS = 3


@dataclasses.dataclass(frozen=True)
class Refitted:
    """What became of one layer.

    Attributes:
        layer: its name.
        before, after: its mean square error relative to its targets' variance, as it was and refitted; None where it
            was not refitted.
        rows: that it was fitted to.
        seconds: that its moments and its solution took.
        reason: why it stayed as it was; None where it was refitted, or had nothing to make up for.
    """

    layer: str
    before: float | None = None
    after: float | None = None
    rows: int = 0
    seconds: float = 0.0
    reason: str | None = None


def refit(
    original: tf_keras.Model,
    changed: tf_keras.Model,
    batches: Sequence[Sequence[np.ndarray]],
    kept: Mapping[str, np.ndarray] | None = None,
    *,
    ridge: float = RIDGE,
    grids: Mapping[str, Grid] | None = None,
    seed: int = 0,
    folder: Path | None = None,
    memory: Memory | None = None,
    progress: Progress | None = None,
) -> list[Refitted]:
    """Refit the layers of ``changed``, in place. Weights that are zero stay zero.

    Biases are refitted with the weights. A layer without one, with a batch normalization behind it, leaves what its
    output lacks on average in that one's mean.

    Args:
        original: flat functional tf_keras model.
        changed: the same calls, with fewer channels or other weights; residual blocks may be missing.
        batches: per batch the inputs, in the models' order; no labels.
        kept: layer → int, which channels of its output are left; layers that are not in it kept all.
        ridge: see :func:`edgeprune.reconstruction.moments.fit`.
        grids: layer → what its weights are rounded to, with a scale per output channel
            (:func:`edgeprune.reconstruction.rounding.round_weights`); layers that are not in it are not rounded.
        seed: of the rows that are looked at, where there are more than enough.
        folder: where solved layers are kept until the end, for an interrupted refit to go on from; None: nowhere.
        memory: in the place of a folder: of refits to the same samples with the same settings, of models that were
            pruned differently.
        progress: is told of each layer.

    Returns:
        One entry per product of weights in a layer, in the order in which they were done.

    Raises:
        OutputError: the folder cannot be written to.
    """
    progress = progress or Progress()
    fitting = _fitting(original, changed, batches)
    samples = [sum(len(batch[0]) for batch in some) for some in (fitting, batches)]
    if samples[0] < samples[1]:
        progress.note(f"refits to {samples[0]:,} of {samples[1]:,} samples: more would not fit into memory")
    settings = (ridge, sorted((grids or {}).items()), seed, samples[0])
    journal = Journal.open(folder, key_of(changed, kept or {}, settings)) if folder else None
    store = memory or journal
    found = _Refitting(original, changed, fitting, kept or {}, ridge, grids or {}, seed, store).run(progress)
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _fitting(
    original: tf_keras.Model, changed: tf_keras.Model, batches: Sequence[Sequence[np.ndarray]]
) -> list[list[np.ndarray]]:
    """The first samples, as many as fit into memory, in batches that do; two batches at least."""
    each = bytes_per_sample(original) + bytes_per_sample(changed)
    size = max(1, BATCH_BYTES // each)
    split = in_pieces(batches, size)
    left, count = MEMORY_BYTES, 0
    for batch in split:
        left -= each * len(batch[0])
        count += left >= 0
    return joined(split[: max(count, 2)], size)


class _Refitting:
    """Both models, run side by side over all batches, up to the layers that are refitted next.

    Attributes:
        current: the calls of the pass that is under way.
        exact: ids of tensors of ``changed`` that are the same in both models.
        samples: in the smaller half of the batches.
    """

    def __init__(
        self,
        original: tf_keras.Model,
        changed: tf_keras.Model,
        batches: Sequence[Sequence[np.ndarray]],
        kept: Mapping[str, np.ndarray],
        ridge: float,
        grids: Mapping[str, Grid],
        seed: int,
        store: Journal | Memory | None,
    ):
        self.original, self.changed = Forward(original, batches), Forward(changed, batches)
        self._both = self.changed, self.original
        self.kept, self.ridge, self.grids, self.store = kept, ridge, grids, store
        self.seed = seed
        self.count = len(batches)
        self.samples = min(sum(len(batch[0]) for batch in batches[half::2]) for half in range(2))
        self.current: Sequence[CallKey] = ()
        self.exact = {id(tensor) for tensor in changed.inputs}
        self.found: list[Refitted] = []
        self._weights = {layer.name: _digest(layer) for layer in changed.layers} if isinstance(store, Memory) else {}
        # Layer → its products that are still to be refitted, in order.
        self.pending: dict[str, list[Product]] = {}
        self.calls: dict[str, list[CallKey]] = {}
        for key, node in self.changed.view.calls.items():
            self.calls.setdefault(key[0], []).append(key)
            if key[1] == 0 and any(len(weight.shape) > 1 for weight in node.layer.weights):
                if products := products_of(node.layer):
                    self.pending[key[0]] = list(products)
                else:
                    self._leave(key[0], f"{type(node.layer).__name__} is not a plain product of its weights")

    def _leave(self, layer: str, reason: str) -> None:
        self.pending.pop(layer, None)
        self.found.append(Refitted(layer, reason=reason))

    def run(self, progress: Progress) -> list[Refitted]:
        waiting = [key for key in self.changed.view.calls if key not in self.changed.done]
        progress.begin("refitting layers", len(self.pending))
        while waiting:
            keys = self._ready(waiting)
            waiting = [key for key in waiting if key not in keys]
            due = [layer for layer in self.pending if all(self._is_there(key, keys) for key in self.calls[layer])]
            if not keys and not due:  # a call of a layer waits for another of the same layer, directly or not
                self._leave(next(key[0] for key in waiting if key[0] in self.pending), "one of its calls reads another")
                continue
            self._pass(keys, due)
            for layer in due:
                self.pending[layer].pop(0)
                if not self.pending[layer]:
                    del self.pending[layer]
                    progress.advance(1)
        progress.end()
        return self.found

    def _is_there(self, key: CallKey, keys: Sequence[CallKey]) -> bool:
        return self.changed.has(self.changed.view.calls[key], keys)

    def _ready(self, waiting: Sequence[CallKey]) -> list[CallKey]:
        """The calls that need no layer that is still to be refitted."""
        keys: list[CallKey] = []
        for key in waiting:
            node = self.changed.view.calls[key]
            if key[0] not in self.pending and self.changed.has(node, keys):
                keys.append(key)
                if self._is_exact(key):
                    self.exact |= set(map(id, flat(node.outputs)))
        return keys

    def _is_exact(self, key: CallKey) -> bool:
        """Whether a call gives the same in both models: inputs and weights are the same, and no channel is gone."""
        node, theirs = self.changed.view.calls[key], self.original.view.calls[key]
        return self.reads_the_same(node, theirs) and all(
            ours.shape == other.shape and np.array_equal(ours.numpy(), other.numpy())
            for ours, other in zip(node.layer.weights, theirs.layer.weights, strict=True)
        )

    def place(self, number: int, layer: str) -> str:
        """What the store knows a product by: its number, and in a memory all that its solution rests on.

        That are the calls up to the layer with their weights as they came, from which all before it was solved, and
        those behind it that take its constant, or through which it makes up for other terms of a sum.
        """
        if not isinstance(self.store, Memory):
            return str(number)
        view = self.changed.view
        behind = [key for call_ in self.calls[layer] for key in map(self.changed.key, _behind(view, view.calls[call_]))]
        digest = hashlib.sha256(self.kept[layer].tobytes() if layer in self.kept else b"")
        for name, call_number in sorted({*self.changed.done, *self.current, *self.calls[layer], *behind}):
            digest.update(f"{name}/{call_number}/{self._weights[name]};".encode())
        return f"{number}-{digest.hexdigest()}"

    def _with_missing(self, keys: Sequence[CallKey]) -> list[CallKey]:
        """These calls, and those of missing blocks that can be made in the original model by then, in its order."""
        found: list[CallKey] = []
        for key, node in self.original.view.calls.items():
            is_missing = key not in self.changed.view.calls and key not in self.original.done
            if key in keys or (is_missing and self.original.has(node, found)):
                found.append(key)
        return found

    def reads_the_same(self, node: Node, theirs: Node) -> bool:
        """Whether a call has the same inputs in both models."""
        return all(map(self.is_the_same, node.keras_inputs, theirs.keras_inputs))

    def is_the_same(self, ours: Tensor, theirs: Tensor) -> bool:
        """Whether two tensors have the same values. Where a block is gone, what went into it stands in for its end."""
        makers = (forward.key(forward.view.maker(x)) for forward, x in zip(self._both, (ours, theirs), strict=True))
        return id(ours) in self.exact and len(set(makers)) == 1

    def _pass(self, keys: Sequence[CallKey], due: Sequence[str]) -> None:
        """One pass over the batches: ``keys`` are called, and a product of the layers ``due`` refitted to its input."""
        self.current, their_keys = keys, self._with_missing(keys)
        fits = [_Fit(self, layer, len(self.found) + place) for place, layer in enumerate(due)]
        for batch in range(self.count):
            ours, theirs = self.changed.run(keys, batch), self.original.run(their_keys, batch)
            for each in fits:
                if not each.is_exact and each.is_followed and each.solved is None:
                    each.add(ours, theirs, batch)
            self.changed.keep(keys, batch, ours)
            self.original.keep(their_keys, batch, theirs)
        self.changed.done.update(keys)
        self.original.done.update(their_keys)
        self.found += [each.outcome() for each in fits]


class _Fit:
    """The refit of one product of a layer, from the first batch to the last."""

    def __init__(self, whole: _Refitting, layer: str, number: int):
        self.whole, self.layer, self.product, self.number = whole, layer, whole.pending[layer][0], number
        self.place = whole.place(number, layer)
        self.solved = whole.store.load(self.place) if whole.store else None
        self.generator = np.random.default_rng([whole.seed, number])  # the same rows after an interruption
        self.seconds = 0.0
        view = whole.changed.view
        self.nodes = [(view.calls[key], whole.original.view.calls[key]) for key in whole.calls[layer]]
        node, their_node = self.nodes[0]
        done = len(products_of(node.layer)) - len(whole.pending[layer])
        self.theirs = products_of(their_node.layer)[done]
        self.kept = whole.kept.get(layer)
        self.grid = None if self.product.inner else whole.grids.get(layer)
        self.halves = [Moments(*self.product.matrix.shape) for _ in range(2)]
        self.is_alone = len(self.nodes) == 1 and not self.product.inner
        self.sum = self._sum() if self.is_alone else None
        self.rows = self._rectified() if self.is_alone else None
        self.is_exact = self._is_exact()
        self.is_followed = self._is_followed()

    def _is_exact(self) -> bool:
        """Whether the layer gives what the original one gives, with fewer outputs perhaps, as it is."""
        if self.grid or self.sum:
            return False
        if not all(self.whole.reads_the_same(node, theirs) for node, theirs in self.nodes):
            return False
        ours, others = self.product.matrix, self.theirs.matrix
        if self.kept is not None and others.shape[0] == 1:
            others = others[:, :, self.theirs.kept_columns(self.kept)]
        return ours.shape == others.shape and np.array_equal(ours, others)

    def _sum(self) -> Sum | None:
        """The sum behind the layer, if its other terms lack something that the layer can make up for."""
        changed, original = self.whole.changed, self.whole.original
        if (found := sum_behind(changed.view, self.nodes[0][0])) is None:
            return None
        reader, own, scale = found
        theirs = original.view.calls[changed.key(reader)]
        pairs = zip(reader.keras_inputs, theirs.keras_inputs, strict=True)
        others = [(ours, other) for ours, other in pairs if ours is not own]
        there = {*changed.done, *self.whole.current}
        known = all(
            tuple(ours.shape) == tuple(own.shape) and changed.key(changed.view.maker(ours)) in there
            for ours, _ in others
        )
        if not known or not others or all(self.whole.is_the_same(ours, other) for ours, other in others):
            return None
        return Sum(tuple(id(ours) for ours, _ in others), tuple(id(other) for _, other in others), scale)

    def _is_followed(self) -> bool:
        """Whether it is known which of the original product's outputs those of this one are."""
        ours, others = (product.parts * product.columns for product in (self.product, self.theirs))
        return ours == others or (self.kept is not None and ours == len(self.theirs.kept_columns(self.kept)))

    def add(self, ours: Values, theirs: Values, batch: int) -> None:
        """Count what the layer reads and should give in one batch."""
        started = time.monotonic()
        moments = self.halves[batch % 2]
        for node, their_node in self.nodes:
            read, their_read = self.product.read(node, ours), self.theirs.read(their_node, theirs)
            shape = tuple(read.shape) if self.product.inner else _shape_of(their_node, theirs)
            size = shape[-1] if self.product.inner else self.theirs.parts * self.theirs.columns
            positions = int(np.prod(shape)) // size
            count = self.whole.count * len(self.nodes)
            index = sample(positions, moments.inputs.shape[1], count, self.generator)
            # Only at these positions: a large feature map has many times more than are counted.
            linear = self.theirs.given(their_read, index)
            targets = self._of_kept(linear)
            if self.sum:
                targets = targets + self._lost(ours, theirs, index)
            rows = self.product.rows(read, index).numpy()
            moments.add(rows, targets)
            if self.rows:
                reached = self._reached(self.rows.rectifier, linear, their_node, theirs, shape, index)
                self.rows.add(rows, targets.astype(np.float32), reached)
        self.seconds += time.monotonic() - started

    def _of_kept(self, values: np.ndarray) -> np.ndarray:
        """Of the original product's outputs [parts, rows, columns], those that are left, as the layer has them."""
        if self.kept is None or len(values) * values.shape[-1] == self.product.parts * self.product.columns:
            return values
        return self._in_parts(_side_by_side(values)[:, self.theirs.kept_columns(self.kept)])

    def _in_parts(self, values: np.ndarray) -> np.ndarray:
        """[rows, outputs] → [parts, rows, columns]."""
        return np.moveaxis(values.reshape(len(values), self.product.parts, -1), 1, 0)

    def _lost(self, ours: Values, theirs: Values, index: Index) -> np.ndarray:
        """What the other terms of the sum behind lack, before their scale: [parts, rows, columns]."""
        assert self.sum
        there = sum(self.theirs.outputs(theirs[number], index).numpy() for number in self.sum.theirs)
        here = sum(self.product.outputs(ours[number], index).numpy() for number in self.sum.ours)
        one = ours[self.sum.ours[0]][:1].numpy()
        factor = self.product.outputs(np.broadcast_to(self.sum.inverse, one.shape), np.zeros(1, int)).numpy()
        return (self._of_kept(there) - here) * factor

    def _reached(
        self,
        rectifier: Rectifier,
        linear: np.ndarray,
        their_node: Node,
        theirs: Values,
        shape: tuple[int, ...],
        index: Index,
    ) -> np.ndarray:
        """What the rectifier reads in the original model, at some positions: float32 [parts, rows, columns]."""
        import tensorflow as tf

        def placed(values: np.ndarray) -> tf.Tensor:
            """Each row as a sample of one position, so that the calls behind take it."""
            flat_rows = _side_by_side(values)
            return tf.constant(flat_rows.reshape(-1, *[1] * (len(shape) - 2), shape[-1]), tf.float32)

        others = {
            number: placed(self.theirs.outputs(tf.broadcast_to(theirs[number], shape), index).numpy())
            for number in rectifier.others(their_node)
        }
        reached = rectifier.reached(their_node, placed(linear), others).reshape(-1, shape[-1])
        return self._in_parts(reached if self.kept is None else reached[:, self.kept])

    def _rectified(self) -> Rows | None:
        """The rows to be kept, where a rectifier behind the layer cuts values off."""
        _, node = self.nodes[0]
        forward = self.whole.original
        known = {*forward.done, *self.whole.current}
        rectifier = Rectifier.behind(
            forward.view, node, lambda tensor: forward.key(forward.view.maker(tensor)) in known
        )
        if rectifier is None or rectifier.slope.size != self.theirs.parts * self.theirs.columns:
            return None
        slope = rectifier.slope if self.kept is None else rectifier.slope[self.kept]
        return Rows(dataclasses.replace(rectifier, slope=slope))

    def outcome(self) -> Refitted:
        """What becomes of the product, once all batches are added."""
        if self.is_exact:
            return Refitted(self.layer)
        if not self.is_followed:
            name = self.product.weight.name.split(":")[0]
            return Refitted(self.layer, reason=f"which columns of {name} are left is not known")
        return self.solve()

    def solve(self) -> Refitted:
        """Set the weights, and where the constant goes."""
        started = time.monotonic()
        start, bias = self.product.matrix, self.product.bias
        norms = None if bias is not None else self._norms()
        constant_in = bias if bias is not None else norms[0].moving_mean if norms else None
        if self.solved is not None:
            self.product.weight.assign(self.solved["weight"])
            if constant_in is not None:
                constant_in.assign(self.solved["constant"])
            before, after, rows, seconds = self.solved["facts"].tolist()
            return Refitted(self.layer, before, after, int(rows), seconds)
        if not all(half.is_finite for half in self.halves):
            return Refitted(self.layer, reason="what it reads or should give is NaN or infinite on some samples")
        intercept = bool(bias is not None or norms)
        mask = None if start.all() else start != 0
        ridge = choose_ridge(self.halves, self.whole.samples, start, self.whole.ridge, intercept=intercept, mask=mask)
        moments = self.halves[0] + self.halves[1]
        self.halves.clear()
        if self.rows and self.rows.fits and ridge != np.inf:
            for _ in range(SWEEPS):
                found = fit(moments, start, ridge, intercept=intercept, mask=mask)
                cut = moments.with_targets(self.rows.targets(found.matrix, found.constant))
                if not cut.is_finite:
                    break
                moments = cut
        found = fit(moments, start, ridge, intercept=intercept, mask=mask, grid=self.grid)
        self.rows = None
        self.product.assign(found.matrix)
        constant = found.constant.reshape(-1)
        if bias is not None:
            bias.assign(constant.reshape(tuple(bias.shape)).astype(bias.dtype.as_numpy_dtype))
        elif norms:
            mean = norms[1].moving_mean.numpy()
            mean = mean if self.kept is None else mean[self.kept]
            norms[0].moving_mean.assign(mean - constant.astype(mean.dtype))
        self.seconds += time.monotonic() - started
        _log.debug("refitted %s in %.2f s: error %.3g to %.3g", self.layer, self.seconds, found.before, found.after)
        if self.whole.store:
            arrays = {} if constant_in is None else {"constant": constant_in.numpy()}
            facts = np.array([found.before, found.after, moments.rows, self.seconds])
            self.whole.store.save(self.place, {"weight": self.product.weight.numpy(), "facts": facts, **arrays})
        return Refitted(self.layer, found.before, found.after, moments.rows, self.seconds)

    def _norms(self) -> tuple[Layer, Layer] | None:
        """The batch normalization behind the layer, here and in the original model; None: nothing takes a constant."""
        reader = norm_behind(self.whole.changed.view, self.nodes[0][0]) if self.is_alone else None
        if reader is None:
            return None
        return reader.layer, self.whole.original.view.calls[self.whole.changed.key(reader)].layer


def _behind(view: View, node: Node) -> list[Node]:
    """The calls that read what a call makes, and where that is one only, those that read what that one makes."""
    found: list[Node] = []
    while readers := view.readers(node.outputs):
        found += readers
        if len(readers) > 1 or is_sum(readers[0].layer):
            break
        (node,) = readers
    return found


def _digest(layer: Layer) -> str:
    digest = hashlib.sha256()
    for weight in layer.get_weights():
        digest.update(f"{weight.shape}".encode() + np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _shape_of(node: Node, values: Values) -> tuple[int, ...]:
    """The shape of what a call makes; it is only made where the model leaves sizes open."""
    samples, shape = values[id(node.keras_inputs[0])].shape[0], node.outputs.shape[1:]
    return (samples, *shape) if None not in shape else tuple(call(node, values).shape)


def _side_by_side(values: np.ndarray) -> np.ndarray:
    """[parts, rows, columns] → [rows, outputs of all parts]."""
    return np.moveaxis(values, 0, 1).reshape(values.shape[1], -1)
