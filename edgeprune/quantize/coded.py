"""Which integers the weights of each tensor are rounded to, for the fewest bytes after encoding at the least loss.

On a microcontroller that decodes its weights (:mod:`edgeprune.tflite.decode`), a tensor takes as many bytes as its
weights are hard to tell: a coarse grid makes few different values, a wide dead zone many zeros, and Huffman codes,
look-up tables and bits for zeros make use of both. So a tensor has options, one for each grid: the bytes of its
smallest code with all ancillary data, and the loss, which is the error of what the layer gives, weighted by what the
model's answers feel of it (:mod:`edgeprune.reconstruction.fisher`). Weights make up for each other's rounding as far as
their moments say. One option of every tensor is chosen by an integer program: quantization under a limit of entropy
(Chou et al. 1989, doi:10.1109/29.17498), with the loss measured as in optimal brain compression (arXiv:2208.11580).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.models.graph import View
from edgeprune.progress import Progress
from edgeprune.prune.choice.program import Limit, Program, Tables
from edgeprune.quantize.rounding import EIGHT_BITS
from edgeprune.reconstruction.fisher import output_fisher
from edgeprune.reconstruction.inputs import input_moments
from edgeprune.reconstruction.linear import Product, product_of
from edgeprune.reconstruction.moments import DAMPING, with_ridge
from edgeprune.reconstruction.rounding import Grid, round_weights
from edgeprune.tflite.decode import stored_bytes

if TYPE_CHECKING:
    import tf_keras

# The grids that are tried; of the coarse ones, with dead zones of so many steps.
_LEVELS = (EIGHT_BITS, 63, 31, 15, 10, 7, 5, 4, 3, 2, 1)
_DEAD = (0.5, 0.65, 0.8)
_COARSE = 10
# Of the operator that decodes a tensor, with its tensors and buffers, in the file.
OPERATOR_BYTES = 180
# A limit that is exceeded is lowered so often at most, and by a little at least.
_CORRECTED, _LOWERED = 4, 0.99


@dataclasses.dataclass(frozen=True)
class Option:
    """A grid for the weights of a layer, the bytes of the smallest code, and the loss in nats per sample."""

    grid: Grid
    bytes: int
    loss: float


@dataclasses.dataclass(frozen=True)
class Choices:
    """What the weights of a layer may be rounded to: the most bytes and the least loss first.

    Attributes:
        weights: how many there are.
    """

    layer: str
    weights: int
    options: tuple[Option, ...]


def choices(
    model: tf_keras.Model,
    batches: Sequence[Sequence[np.ndarray]],
    *,
    ridge: float,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Choices]:
    """The options of every layer that is one product of weights and called once.

    Args:
        model: flat functional tf_keras model. Weights that are zero stay zero.
        batches: per batch the inputs, in the model's order; no labels.
        ridge: see :func:`edgeprune.reconstruction.moments.fit`.
        seed: of the rows that are looked at, and of the Fisher information.
        progress: is told of each layer.
    """
    progress = progress or Progress()
    view = View(model)
    products = {
        layer.name: product
        for layer in model.layers
        if (product := product_of(layer)) is not None and len(view.uses(layer)) == 1
    }
    moments = input_moments(model, batches, list(products), seed)
    fisher = output_fisher(model, batches, seed)
    progress.begin("measuring grids", len(products))
    found = []
    for name, product in products.items():
        squares, *_ = moments.pop(name).centered(intercept=True)
        shape = (product.parts, product.columns)
        importance = fisher[name].reshape(shape) if name in fisher else np.zeros(shape)
        found.append(Choices(name, product.matrix.size, _options(product, squares, importance, ridge)))
        progress.advance(1)
    progress.end()
    return found


def _options(product: Product, squares: np.ndarray, importance: np.ndarray, ridge: float) -> tuple[Option, ...]:
    matrix = product.matrix
    loaded, mask = with_ridge(squares, max(ridge, DAMPING)), None if matrix.all() else matrix != 0
    tried = []
    for levels in _LEVELS:
        for dead in _DEAD if levels <= _COARSE else _DEAD[:1]:
            grid = Grid(levels, dead, EIGHT_BITS)
            parts = zip(loaded, matrix, [None] * len(matrix) if mask is None else mask, strict=True)
            rounded = np.stack([round_weights(some, weights, grid, kept) for some, weights, kept in parts])
            change = rounded - matrix
            errors = np.maximum((change * (squares @ change)).sum(1), 0)
            loss = 0.5 * float((importance * errors).sum())
            tried.append(Option(grid, coded_bytes(rounded), loss))
    return _useful(tried)


def _useful(options: Sequence[Option]) -> tuple[Option, ...]:
    """Those of which none is smaller and better."""
    found: list[Option] = []
    for one in sorted(options, key=lambda one: (one.bytes, one.loss)):
        if not found or one.loss < found[-1].loss:
            found.append(one)
    return tuple(found[::-1])


def coded_bytes(matrix: np.ndarray) -> int:
    """Bytes of weights [parts, terms, columns] as an int8 file has them, with a scale for each column."""
    columns = np.moveaxis(matrix, 1, 2).reshape(-1, matrix.shape[1])
    scale = np.abs(columns).max(1, keepdims=True) / EIGHT_BITS
    integers = np.round(columns / np.where(scale == 0, 1, scale)).astype(np.int8)
    return min(stored_bytes(integers) + OPERATOR_BYTES, -(-integers.size // 16) * 16)


def model_bytes(model: tf_keras.Model, layers: Sequence[str]) -> int:
    """The same of all weights of some layers, which are products."""
    products = [product_of(model.get_layer(name)) for name in layers]
    return sum(coded_bytes(product.matrix) for product in products if product is not None)


def allocate(tensors: Sequence[Choices], most: float) -> tuple[dict[str, Option], float]:
    """The options of the least loss that take at most so many bytes, by layer, and that loss.

    Raises:
        Infeasible: the smallest ones take more.
    """
    loss: Tables = {(axis,): np.array([option.loss for option in one.options]) for axis, one in enumerate(tensors)}
    cost: Tables = {(axis,): np.array([float(o.bytes) for o in one.options]) for axis, one in enumerate(tensors)}
    solution = Program([len(one.options) for one in tensors], loss, [Limit("size", (cost,), most)]).solve()
    chosen = zip(tensors, solution.options.tolist(), strict=True)
    return {one.layer: one.options[number] for one, number in chosen}, solution.loss


@dataclasses.dataclass(frozen=True)
class Trial:
    """A model with rounded weights.

    Attributes:
        options: by layer, as the program chose them.
        loss: the sum over them, in nats per sample.
        bytes: of the rounded weights, encoded.
        drop: how much worse the model is than before, as ``measure`` says.
        met: whether bytes or drop are within what is allowed.
        model: None, where it is not the one that was chosen.
    """

    options: Mapping[str, Option]
    loss: float
    bytes: int
    drop: float
    met: bool
    model: tf_keras.Model | None


Make = Callable[[Mapping[str, Option]], "tf_keras.Model"]


def smallest(
    tensors: Sequence[Choices],
    make: Make,
    measure: Callable[[tf_keras.Model], float],
    allows: Callable[[float], bool],
    steps: int,
) -> list[Trial]:
    """The fewest bytes whose drop is allowed: sizes are halved on a logarithmic scale. The last trial is the choice.

    Args:
        tensors: what may be chosen.
        make: rounds a model.
        measure: the drop of one, of which ``allows`` says whether it is little enough.
        steps: how many sizes are tried.
    """
    low, high = (float(sum(one.options[end].bytes for one in tensors)) for end in (-1, 0))
    trials: list[Trial] = []
    for _ in range(steps):
        middle = max(math.sqrt(low * high), low)  # not below it by rounding
        trial = _trial(tensors, middle, make, measure, lambda _, drop: allows(drop))
        low, high = (low, middle) if trial.met else (middle, high)
        trials = _with(trials, trial)
    if not trials[-1].met:
        trials = _with(trials, _trial(tensors, high, make, measure, lambda _, drop: allows(drop)))
    return trials


def _with(trials: Sequence[Trial], trial: Trial) -> list[Trial]:
    """One more trial; the best is the last, and the only one whose model is kept."""
    if trials and trials[-1].met and not trial.met:
        return [*trials[:-1], dataclasses.replace(trial, model=None), trials[-1]]
    return [*(dataclasses.replace(one, model=None) for one in trials), trial]


def within_size(
    tensors: Sequence[Choices], most: float, make: Make, measure: Callable[[tf_keras.Model], float]
) -> list[Trial]:
    """The least loss at no more than so many bytes, as they are after rounding. The last trial is the choice.

    Where it is not met, refitted weights take more bytes than those that the options were counted with.

    Raises:
        Infeasible: the smallest options take more.
    """
    limit, trials = most, list[Trial]()
    least = sum(one.options[-1].bytes for one in tensors)
    for _ in range(_CORRECTED):
        trial = _trial(tensors, limit, make, measure, lambda size, _: size <= most)
        trials = _with(trials, trial)
        if trial.met:
            break
        limit = max(min(limit * _LOWERED, limit * most / trial.bytes), least)
    return trials


def _trial(
    tensors: Sequence[Choices],
    limit: float,
    make: Make,
    measure: Callable[[tf_keras.Model], float],
    met: Callable[[int, float], bool],
) -> Trial:
    options, loss = allocate(tensors, limit)
    model = make(options)
    size, drop = model_bytes(model, list(options)), measure(model)
    return Trial(options, loss, size, drop, met(size, drop), model)
