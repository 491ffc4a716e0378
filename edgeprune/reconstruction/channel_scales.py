"""Scale and shift what the layers of a changed model give, channel by channel, so that its answers are right again.

A refit brings each layer as near to what it gave before as it can. What is left adds up, and some of it matters more to
the answers than the rest. One Gauss-Newton step towards the answers of the original model makes up for that (Martens
2020, arXiv:1412.1193), over a scale and a shift per channel: few enough that some hundreds of samples without labels
determine them. How far it goes, samples decide that it was not fitted to.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.models.count import count
from edgeprune.models.graph import View, activation_name
from edgeprune.models.types import Node, Variable
from edgeprune.progress import Progress
from edgeprune.reconstruction.answers import Answer, answers_of
from edgeprune.reconstruction.fisher import TAPE_BYTES, watched, with_random_signs
from edgeprune.reconstruction.forward import bytes_per_sample, in_pieces
from edgeprune.reconstruction.linear import Product, products_of

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

_log = logging.getLogger(__name__)

# Parts of the samples, each of which judges a fit to the others.
_FOLDS = 4
# How strongly scales and shifts are held, relative to how much the answers feel one on average; the strongest first.
_DAMPINGS = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1)
# Scales and shifts that one sample may have to determine. Where there were 16, nothing was gained.
_PER_SAMPLE = 8
# Multiply-accumulates of all runs of the model, a minute or two on two cores; with too few samples for that, none.
_WORK = 5e11
_RUNS = 10
# What a row per sample, of a gradient for each scale and shift, may fill in all.
_ROWS_BYTES = 400_000_000
# A channel that hardly changes is shifted by no less than this share of what the layer's channels change on average.
_LEAST_SPREAD = 1e-3


@dataclasses.dataclass(frozen=True)
class Scaled:
    """How far the answers are from the original model's, in nats per sample that was not fitted to.

    Attributes:
        before, after: as the model came, and with its channels scaled and shifted.
        damping: how strongly they were held, relative to how much the answers feel one on average; None: no fit was
            better, and the model is as it came.
    """

    before: float
    after: float
    damping: float | None = None


def scale_channels(
    original: tf_keras.Model,
    changed: tf_keras.Model,
    batches: Sequence[Sequence[np.ndarray]],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Scaled | None:
    """Scale and shift the channels of ``changed``, in place. Weights that are zero stay zero.

    A shift goes into the layer's bias, or the mean of the batch normalization behind it; a layer that has neither is
    scaled only.

    Args:
        original: functional tf_keras model.
        changed: with the same inputs and outputs.
        batches: per batch the inputs, in the models' order; no labels.
        seed: of the samples' parts, and of the random signs that the answers are summed with.
        progress: is told how far it is.

    Returns:
        What became of the answers; None where nothing can be compared or scaled.
    """
    fit = _Fit(original, changed, batches, seed, progress or Progress())
    return fit.run() if fit.is_worth_it else None


class _Channels:
    """The channels of one layer of the changed model, and where their scales and shifts go.

    Attributes:
        constant: the variable that takes a shift; None: nothing does.
        count: of channels.
    """

    def __init__(self, view: View, calls: Sequence[Node]):
        (self.product,) = products_of(calls[0].layer)
        self.sign, self.constant = _constant_of(view, calls, self.product)
        self.count = self.product.parts * self.product.columns
        self._matrix = self.product.matrix
        self._constant = None if self.constant is None else self.constant.numpy().astype(np.float64)
        self._sums = np.zeros((3, self.count))  # of ones, values and squares

    def read(self, gradient: tf.Tensor, made: tf.Tensor, samples: int) -> tuple[np.ndarray, np.ndarray]:
        """Gradients by the scale and the shift of each channel: float32 [samples, channels] each."""
        slopes, values = (self._by_sample(x, samples) for x in (gradient, made))
        return np.einsum("spc,spc->sc", slopes, values), slopes.sum(1)

    def count_in(self, made: tf.Tensor, samples: int) -> None:
        """Count what the channels give in some samples."""
        values = self._by_sample(made, samples).reshape(-1, self.count).astype(np.float64)
        self._sums += [np.full(self.count, len(values)), values.sum(0), np.square(values).sum(0)]

    def _by_sample(self, values: tf.Tensor, samples: int) -> np.ndarray:
        """[samples, positions, channels]."""
        parts = np.moveaxis(self.product.outputs(values, None).numpy(), 0, 1)
        return parts.reshape(samples, -1, self.count)

    @property
    def mean(self) -> np.ndarray:
        """Of each channel; zero where nothing can make up for what a scale does to it."""
        return self._sums[1] / self._sums[0] if self.constant is not None else np.zeros(self.count)

    @property
    def spread(self) -> np.ndarray:
        """The standard deviation of each channel, the unit of its shift; zero where nothing takes one."""
        if self.constant is None:
            return np.zeros(self.count)
        variances = np.maximum(self._sums[2] / self._sums[0] - self.mean**2, 0)
        return np.sqrt(np.maximum(variances, _LEAST_SPREAD**2 * variances.mean()))

    def set(self, scales: np.ndarray, shifts: np.ndarray) -> None:
        """Change what the channels gave at first: around their mean by ``1 + scales``, and by ``shifts`` of spread."""
        shape = self.product.parts, 1, self.product.columns
        self.product.assign(self._matrix * (1 + scales).reshape(shape))
        if self.constant is None or self._constant is None:
            return
        moved = shifts * self.spread - scales * self.mean
        old = self._constant.reshape(-1)
        new = old - moved if self.sign < 0 else old * (1 + scales) + moved
        self.constant.assign(new.reshape(tuple(self.constant.shape)).astype(self.constant.dtype.as_numpy_dtype))


def _constant_of(view: View, calls: Sequence[Node], product: Product) -> tuple[int, Variable | None]:
    """What takes a constant, and whether that is added (1) or subtracted (-1)."""
    if product.bias is not None:
        return 1, product.bias
    reader = view.only_reader(calls[0]) if len(calls) == 1 else None
    is_linear = activation_name(calls[0].layer) == "linear"
    if is_linear and reader is not None and type(reader.layer).__name__ == "BatchNormalization":
        return -1, reader.layer.moving_mean
    return 1, None


class _Fit:
    """The gradients of all samples, and what follows from them."""

    def __init__(
        self,
        original: tf_keras.Model,
        changed: tf_keras.Model,
        batches: Sequence[Sequence[np.ndarray]],
        seed: int,
        progress: Progress,
    ):
        self.model, self.view, self.seed, self.progress = changed, View(changed), seed, progress
        calls: dict[str, list[Node]] = {}
        for node in self.view.nodes:
            calls.setdefault(node.layer.name, []).append(node)
        self.channels = {
            name: _Channels(self.view, nodes)
            for name, nodes in calls.items()
            if len(own := products_of(nodes[0].layer)) == 1 and not own[0].inner
        }
        self.columns = 2 * sum(channels.count for channels in self.channels.values())
        self.pieces = _pieces(changed, batches, max(self.columns, 1))
        samples = sum(len(piece[0]) for piece in self.pieces)
        self.is_worth_it = len(self.pieces) >= _FOLDS and 0 < self.columns <= _PER_SAMPLE * samples
        self.answers = [answers_of(original, [piece]) for piece in self.pieces if self.is_worth_it]
        self.kinds = [Answer.like(np.concatenate(same)) for same in zip(*self.answers, strict=True)]
        self.is_worth_it &= any(kind.kind != "none" for kind in self.kinds)
        self.fold = np.repeat(np.arange(len(self.pieces)) % _FOLDS, [len(piece[0]) for piece in self.pieces])

    def run(self) -> Scaled:
        rows, slopes = self._gradients()
        before = self._divergences(range(len(self.pieces)))
        solvers = [_Damped(rows[self.fold != fold], slopes[self.fold != fold]) for fold in range(_FOLDS)]
        best, damping = before, None
        for trial in _DAMPINGS:
            after = np.empty_like(before)
            for fold, solver in enumerate(solvers):
                self._set(solver.step(trial))
                after[self.fold == fold] = self._divergences(range(fold, len(self.pieces), _FOLDS))
            _log.debug("scaled channels, held by %g: %.4g nats, %.4g before", trial, after.mean(), before.mean())
            if after.mean() >= best.mean():
                break
            best, damping = after, trial
        if damping is None:
            self._set(np.zeros(self.columns))
            return Scaled(float(before.mean()), float(before.mean()))
        self._set(_Damped(rows, slopes).step(damping))
        return Scaled(float(before.mean()), float(best.mean()), damping)

    def _gradients(self) -> tuple[np.ndarray, np.ndarray]:
        """By each scale and shift, of the answers with random signs, and of how far they are from the original ones.

        Returns:
            float32 [samples, scales and shifts] each.
        """
        import tensorflow as tf

        generator = np.random.default_rng(self.seed)
        found: list[list[np.ndarray]] = [[], []]
        self.progress.begin("fitting scales of channels", len(self.pieces))
        for piece, answers in zip(self.pieces, self.answers, strict=True):
            with tf.GradientTape(persistent=True) as tape:
                outputs, seen = watched(self.view, piece, tape)
                signed = with_random_signs(self.kinds, outputs, generator)
                lost = tf.constant(0.0)
                for kind, theirs, ours in zip(self.kinds, answers, outputs, strict=True):
                    if kind.kind != "none":
                        lost += tf.cast(kind.loss(tf.constant(theirs), ours), tf.float32)
            made = [(self.channels[node.layer.name], linear) for node, _, linear in seen]
            for channels, linear in made:
                channels.count_in(linear, len(piece[0]))
            for loss, rows in zip((signed, lost), found, strict=True):
                rows.append(self._rows(tape.gradient(loss, [linear for _, linear in made]), made, len(piece[0])))
            del tape
            self.progress.advance(1)
        self.progress.end()
        # In units of the channels' own spread, and with the scale around their mean.
        signed_rows, slopes = (np.concatenate(rows) for rows in found)
        for channels, scales, shifts in self._places():
            for gradients in (signed_rows, slopes):
                gradients[:, scales] -= gradients[:, shifts] * channels.mean.astype(np.float32)
                gradients[:, shifts] *= channels.spread.astype(np.float32)
        return signed_rows, slopes

    def _rows(
        self, gradients: Sequence[tf.Tensor | None], made: Sequence[tuple[_Channels, tf.Tensor]], samples: int
    ) -> np.ndarray:
        """float32 [samples, scales and shifts]; calls of one layer are added."""
        rows = np.zeros((samples, self.columns), np.float32)
        places = {id(channels): (scales, shifts) for channels, scales, shifts in self._places()}
        for gradient, (channels, linear) in zip(gradients, made, strict=True):
            if gradient is not None:
                for place, values in zip(places[id(channels)], channels.read(gradient, linear, samples), strict=True):
                    rows[:, place] += values
        return rows

    def _places(self) -> Iterator[tuple[_Channels, slice, slice]]:
        """The channels of each layer, and the columns of their scales and of their shifts."""
        start = 0
        for channels in self.channels.values():
            middle, end = start + channels.count, start + 2 * channels.count
            yield channels, slice(start, middle), slice(middle, end)
            start = end

    def _set(self, step: np.ndarray) -> None:
        for channels, scales, shifts in self._places():
            channels.set(step[scales], step[shifts])

    def _divergences(self, numbers: Sequence[int]) -> np.ndarray:
        """In nats, of the samples of some pieces: float64 [samples]."""
        found = []
        for number in numbers:
            ours = answers_of(self.model, [self.pieces[number]])
            triples = zip(self.kinds, self.answers[number], ours, strict=True)
            found.append(np.sum([kind.divergences(p, q) for kind, p, q in triples], axis=0))
        return np.concatenate(found)


def _pieces(model: tf_keras.Model, batches: Sequence[Sequence[np.ndarray]], unknowns: int) -> list[list[np.ndarray]]:
    """The samples that there is memory and time for, as many at once as a gradient has memory for."""
    macs = count(model).macs
    room = min(_ROWS_BYTES // (4 * unknowns), int(_WORK / (_RUNS * max(macs, 1))))
    samples = min(sum(len(batch[0]) for batch in batches), room)
    size = max(1, min(TAPE_BYTES // bytes_per_sample(model, all_at_once=True), samples // (2 * _FOLDS)))
    pieces = in_pieces(batches, size)
    ends = np.cumsum([len(piece[0]) for piece in pieces])
    return [piece for piece, end in zip(pieces, ends, strict=True) if end <= samples]


class _Damped:
    """Steps that go down a gradient, as far as the curvature and a damping let them (Levenberg 1944).

    Args:
        rows: float32 [samples, unknowns], whose products with themselves have the curvature as their mean.
        slopes: float32 [samples, unknowns], whose mean is the gradient.
    """

    def __init__(self, rows: np.ndarray, slopes: np.ndarray):
        self._gradient = slopes.mean(0, dtype=np.float64)
        self._mean = float(np.square(rows, dtype=np.float64).mean())  # of the curvature's diagonal
        count, unknowns = rows.shape
        scaled = rows / np.float32(np.sqrt(count))
        if unknowns <= count:
            values, vectors = np.linalg.eigh((scaled.T @ scaled).astype(np.float64))
            self._curvatures, self._directions = values, vectors
        else:  # the same from the samples' side, where they are fewer
            values, vectors = np.linalg.eigh((scaled @ scaled.T).astype(np.float64))
            is_felt = values > 1e-6 * max(values[-1], 1e-30)
            self._curvatures = values[is_felt]
            self._directions = (scaled.T @ vectors[:, is_felt]) / np.sqrt(self._curvatures)
        self._along = self._directions.T @ self._gradient

    def step(self, strength: float) -> np.ndarray:
        """float64 [unknowns]; ``strength``: of the damping, relative to the mean of the curvature's diagonal."""
        damping = strength * max(self._mean, 1e-30)
        across = self._gradient - self._directions @ self._along
        return -(self._directions @ (self._along / (np.maximum(self._curvatures, 0) + damping)) + across / damping)
