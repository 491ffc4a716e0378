"""Scale and shift what the layers of a changed model give, channel by channel, so that its answers are right again.

A refit brings each layer as near to what it gave before as it can. What is left adds up, and some of it matters more to
the answers than the rest. One Gauss-Newton step towards the answers of the original model makes up for that (Martens
2020, arXiv:1412.1193), over a scale and a shift per channel: few enough that some hundreds of samples without labels
determine them, mirrored copies of images among them. How far it goes, samples decide that it was not fitted to.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.errors import ModelError
from edgeprune.models.count import count
from edgeprune.models.graph import View
from edgeprune.models.types import Node, Variable
from edgeprune.progress import Progress
from edgeprune.reconstruction.answers import Answer, in_graph, kinds_of, with_room
from edgeprune.reconstruction.fisher import TAPE_BYTES, watched, with_random_signs
from edgeprune.reconstruction.forward import bytes_per_sample, in_pieces, norm_behind
from edgeprune.reconstruction.linear import Product, product_of
from edgeprune.reconstruction.mirrored_images import mirrored_images

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

_log = logging.getLogger(__name__)

# Parts of the samples, each of which judges a fit to the others.
_FOLDS = 4
# How strongly scales and shifts are held, relative to how much the answers feel one on average; the strongest first.
_DAMPINGS = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1)
# By which part answers must come nearer, and by how many nats; less is what sums of single precision differ by.
_CLEARLY, _ROUNDING = 1e-3, 1e-6
# Scales and shifts that one sample may have to determine. Where there were 16, nothing was gained.
_PER_SAMPLE = 8
# Multiply-accumulates of all runs of the model, about ten per sample. Four fifths of it, 1,000 images of a MobileNet
# 0.25, took 76 s on two cores.
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
        seed: of the random signs that the answers are summed with.
        progress: is told how far it is.

    Returns:
        What became of the answers; None where nothing can be compared or scaled, where sizes of the inputs are open, or
        the samples that there are, or that there is time for, are too few to determine that many scales and shifts.
    """
    view = View(changed)
    channels = _channels_of(view)
    unknowns = 2 * sum(one.count for one in channels.values())
    room = _room(changed, unknowns) if unknowns else 0
    pieces = _pieces(changed, batches, room)
    if len(pieces) < _FOLDS or unknowns > _PER_SAMPLE * _samples(pieces):
        return None
    answer = in_graph(original)  # as those of the changed model, so that equal models give equal answers
    answers = [answer(piece) for piece in pieces]
    kinds = kinds_of(original, [np.concatenate(same) for same in zip(*answers, strict=True)])
    if all(kind.kind == "none" for kind in kinds):
        return None
    folds = np.arange(len(pieces)) % _FOLDS
    copies = _within(mirrored_images(original, pieces, answers, kinds), room - _samples(pieces))
    answers += [answer(piece) for piece in copies]
    # A copy is in the part of its original, so that no part is judged by a fit that has seen its images.
    folds = np.concatenate([folds, folds[: len(copies)]])
    # A refit knows the samples themselves; where there are enough copies, those say what is gained.
    judges = np.arange(len(folds)) >= (len(pieces) if len(copies) >= len(pieces) / 2 else 0)
    return _Fit(view, channels, [*pieces, *copies], answers, kinds, folds, judges, seed).run(progress or Progress())


def _channels_of(view: View) -> dict[str, _Channels]:
    """By layer, of those that are a product of weights, in the order of the model."""
    calls: dict[str, list[Node]] = {}
    for node in view.nodes:
        calls.setdefault(node.layer.name, []).append(node)
    made = {name: product_of(nodes[0].layer) for name, nodes in calls.items()}
    return {name: _Channels(view, calls[name], product) for name, product in made.items() if product is not None}


class _Channels:
    """The channels of one layer of the changed model, and where their scales and shifts go.

    Attributes:
        count: of channels.
    """

    def __init__(self, view: View, calls: Sequence[Node], product: Product):
        self.count = product.parts * product.columns
        self._product, self._matrix = product, product.matrix
        norm = norm_behind(view, calls[0]) if product.bias is None and len(calls) == 1 else None
        # What takes a shift, and as it was; a normalization subtracts it. None: nothing does.
        self._constant: Variable | None = norm.layer.moving_mean if norm else product.bias
        self._start = np.zeros(0) if self._constant is None else self._constant.numpy().astype(np.float64)
        self._is_subtracted = norm is not None
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
        parts = np.moveaxis(self._product.outputs(values, None).numpy(), 0, 1)
        return parts.reshape(samples, -1, self.count)

    @property
    def mean(self) -> np.ndarray:
        """Of each channel; zero where nothing can make up for what a scale does to it."""
        return self._sums[1] / self._sums[0] if self._constant is not None else np.zeros(self.count)

    @property
    def spread(self) -> np.ndarray:
        """The standard deviation of each channel, the unit of its shift; zero where nothing takes one."""
        if self._constant is None:
            return np.zeros(self.count)
        variances = np.maximum(self._sums[2] / self._sums[0] - self.mean**2, 0)
        return np.sqrt(np.maximum(variances, _LEAST_SPREAD**2 * variances.mean()))

    def set(self, scales: np.ndarray, shifts: np.ndarray) -> None:
        """Change what the channels gave at first: around their mean by ``1 + scales``, and by ``shifts`` of spread."""
        shape = self._product.parts, 1, self._product.columns
        self._product.assign(self._matrix * (1 + scales).reshape(shape))
        if self._constant is None:
            return
        moved = (shifts * self.spread - scales * self.mean).reshape(self._start.shape)
        new = self._start - moved if self._is_subtracted else self._start * (1 + scales).reshape(moved.shape) + moved
        self._constant.assign(new.astype(self._constant.dtype.as_numpy_dtype))


class _Fit:
    """The gradients of all samples, and what follows from them."""

    def __init__(
        self,
        view: View,
        channels: dict[str, _Channels],
        pieces: Sequence[list[np.ndarray]],
        answers: Sequence[list[np.ndarray]],
        kinds: Sequence[Answer],
        folds: np.ndarray,
        judges: np.ndarray,
        seed: int,
    ):
        self.view, self.channels, self.pieces, self.answers, self.kinds = view, channels, pieces, answers, kinds
        self.folds, self.judges, self.seed = folds, judges, seed
        self._answer = in_graph(view.model)
        self.columns = 2 * sum(one.count for one in channels.values())
        self.fold = np.repeat(folds, [len(piece[0]) for piece in pieces])  # of each sample

    def run(self, progress: Progress) -> Scaled:
        rows, slopes = self._gradients(progress)
        before = self._apart(self.judges)
        solvers = [_Damped(rows[self.fold != fold], slopes[self.fold != fold]) for fold in range(_FOLDS)]
        best, damping = before, None
        for trial in _DAMPINGS:
            found = []
            for fold, solver in enumerate(solvers):
                self._set(solver.step(trial))
                found.append(self._divergences(self.judges & (self.folds == fold)))
            after = float(np.concatenate(found).mean())
            _log.debug("scaled channels, held by %g: %.4g nats, %.4g before", trial, after, before)
            if not after < best * (1 - _CLEARLY) - _ROUNDING:  # nor where it is not a number
                break
            best, damping = after, trial
        if damping is not None:
            self._set(_Damped(rows, slopes).step(damping))
            if self._apart(self.judges) < before:
                return Scaled(before, best, damping)
        self._set(np.zeros(self.columns))
        return Scaled(before, before)

    def _gradients(self, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
        """By each scale and shift, of the answers with random signs, and of how far they are from the original ones.

        Returns:
            float32 [samples, scales and shifts] each.
        """
        import tensorflow as tf

        generator = np.random.default_rng(self.seed)
        found: list[list[np.ndarray]] = [[], []]
        progress.begin("fitting scales of channels", len(self.pieces))
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
            progress.advance(1)
        progress.end()
        # In units of the channels' own spread, and with the scale around their mean.
        signed_rows, slopes = (np.concatenate(rows) for rows in found)
        # A root or a logarithm of zero has no slope; such a sample says nothing.
        lost = ~(np.isfinite(signed_rows).all(1) & np.isfinite(slopes).all(1))
        signed_rows[lost], slopes[lost] = 0, 0
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

    def _apart(self, some: np.ndarray) -> float:
        """The mean of :meth:`_divergences`."""
        return float(self._divergences(some).mean())

    def _divergences(self, some: np.ndarray) -> np.ndarray:
        """In nats, of the samples of some pieces, bool [pieces]: float64 [samples]."""
        found = []
        for number in np.flatnonzero(some).tolist():
            triples = zip(self.kinds, self.answers[number], self._answer(self.pieces[number]), strict=True)
            found.append(np.sum([kind.divergences(p, q) for kind, p, q in triples], axis=0))
        return np.concatenate(found)


def _room(model: tf_keras.Model, unknowns: int) -> int:
    """Samples that there is memory and time for."""
    try:
        macs = count(model).macs
    except ModelError:  # sizes are open, so that nobody knows how long the runs take
        return 0
    return min(_ROWS_BYTES // (4 * unknowns), int(_WORK / (_RUNS * max(macs, 1))))


def _pieces(model: tf_keras.Model, batches: Sequence[Sequence[np.ndarray]], room: int) -> list[list[np.ndarray]]:
    """The samples that there is room for, as many at once as a gradient has memory for."""
    samples = min(_samples(batches), room)
    size = max(1, min(TAPE_BYTES // bytes_per_sample(model, all_at_once=True), samples // (2 * _FOLDS)))
    return _within(with_room(model, in_pieces(batches, size)), samples)


def _within(pieces: Sequence[list[np.ndarray]], room: int) -> list[list[np.ndarray]]:
    """The first pieces, of so many samples at most."""
    ends = np.cumsum([len(piece[0]) for piece in pieces])
    return [piece for piece, end in zip(pieces, ends, strict=True) if end <= room]


def _samples(batches: Sequence[Sequence[np.ndarray]]) -> int:
    return sum(len(batch[0]) for batch in batches)


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
