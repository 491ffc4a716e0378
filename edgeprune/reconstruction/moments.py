"""The second moments of a product's rows and of what it should give, and the matrix that fits them best.

With rows x and targets y, the matrix W that gives the smallest sum of |y - W'x|² solves S W = C, where S is the sum of
x x' and C that of x y' (the normal equations). Both are sums, so rows are seen once and not kept.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import scipy.linalg

from edgeprune.reconstruction.rounding import Grid, round_weights
from edgeprune.reconstruction.threads import one_thread

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

# Relative residual at which the solver under a mask stops, and its most steps.
_CLOSE, _STEPS = 1e-6, 300

# More rows than so many times the terms tell nothing new; fewer than this are never left out.
ROWS_PER_TERM, ROWS = 32, 20_000
# Of the moments' mean diagonal, what is added to it at least before weights are rounded (GPTQ's share).
DAMPING = 1e-2
# Of the mean square of a term, the most that is left by rounding where its variance is none.
_ROUNDED = 1e-12
# The mean square error, relative to the targets' mean square, that single precision alone can make.
_ALIKE = 1e-10
# With so many samples per term in each half of them, a weak ridge does no harm.
ENOUGH = 12
# By what the ridge that is best for a layer is divided where rows are many and samples few: less than the best for each
# layer was best for a model. Nats to 500 other images of a MobileNet 0.25 refitted to 400, means of two splits: 1.53 by
# 1, 1.48 by 3, 1.46 by 10, 1.47 by 30, 1.50 with the weakest everywhere.
_SHARE = 10
_FACTORS = (1, 10, 100, 1e3, 1e4, 1e5)


def sample(positions: int, terms: int, batches: int, generator: np.random.Generator) -> np.ndarray | None:
    """Which rows of a batch are enough to count: numbers of positions; None: all of them.

    Args:
        positions: of all samples of the batch.
        terms: of the product.
        batches: how many batches there are.
    """
    wanted = -(-max(ROWS, ROWS_PER_TERM * terms) // batches)
    return generator.choice(positions, wanted, replace=False) if positions > wanted else None


class Moments:
    """Sums over rows: float64, one set per part of the product.

    Attributes:
        rows: number of rows.
        inputs, targets: sums of x [parts, terms] and y [parts, columns].
        squares: sum of x x' [parts, terms, terms].
        cross: sum of x y' [parts, terms, columns].
        energy: sum of y² [parts, columns].
    """

    def __init__(self, parts: int, terms: int, columns: int):
        self.rows = 0
        self.inputs = np.zeros([parts, terms])
        self.targets = np.zeros([parts, columns])
        self.squares = np.zeros([parts, terms, terms])
        self.cross = np.zeros([parts, terms, columns])
        self.energy = np.zeros([parts, columns])

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Count rows x [parts, rows, terms] with their targets y [parts, rows, columns], of any float type."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        self.rows += x.shape[1]
        self.inputs += x.sum(1)
        self.targets += y.sum(1)
        self.energy += np.square(y).sum(1)
        for part, (some, wanted) in enumerate(zip(x, y, strict=True)):
            self.squares[part] += some.T @ some  # NumPy computes half of it (BLAS syrk)
            self.cross[part] += some.T @ wanted

    @property
    def is_finite(self) -> bool:
        """Whether all that was counted is a number: values of a model can overflow though its answers are some."""
        return all(np.isfinite(part).all() for part in (self.targets, self.energy, self.squares, self.cross))

    def with_targets(self, rows: Iterable[tuple[np.ndarray, np.ndarray]]) -> Moments:
        """The moments of the same rows, all of them, with other targets: pairs of x and y as :meth:`add` takes them."""
        new = copy.copy(self)
        new.targets, new.cross, new.energy = map(np.zeros_like, (self.targets, self.cross, self.energy))
        for x, y in rows:
            new.targets += y.sum(1, dtype=np.float64)
            new.energy += np.square(y).sum(1, dtype=np.float64)
            new.cross += np.swapaxes(x, 1, 2) @ y
        return new

    def __add__(self, other: Moments) -> Moments:
        """The moments of the rows of both."""
        new = Moments(*self.cross.shape)
        new.rows = self.rows + other.rows
        for name in ("inputs", "targets", "squares", "cross", "energy"):
            setattr(new, name, getattr(self, name) + getattr(other, name))
        return new

    def centered(self, intercept: bool) -> tuple[Array, Array, Array]:
        """Per row: squares, cross and energy, of what differs from the mean where an ``intercept`` makes up for it."""
        squares, cross, energy = self.squares / self.rows, self.cross / self.rows, self.energy / self.rows
        if intercept:
            x, y = self.inputs / self.rows, self.targets / self.rows
            for part, mean in enumerate(x):  # in place: squares of some thousands of terms fill gigabytes
                whole = squares[part].diagonal().copy()
                squares[part] -= np.outer(mean, mean)
                # What is left of a term that is always the same is what was rounded, which can be below zero.
                same = squares[part].diagonal() <= _ROUNDED * whole
                squares[part][same] = squares[part][:, same] = 0
                x[part, same] = cross[part, same] = 0
            cross -= x[:, :, None] * y[:, None]
            energy = np.maximum(energy - y**2, 0)
        return squares, cross, energy

    def constant(self, matrix: np.ndarray) -> Array:
        """What added to the product makes its mean that of the targets: [parts, columns]."""
        given = np.einsum("pt,ptc->pc", self.inputs, matrix)
        return (self.targets - given) / self.rows


@dataclasses.dataclass(frozen=True)
class Fit:
    """What a fit found.

    Attributes:
        matrix: [parts, terms, columns].
        constant: what is to be added, [parts, columns]; zero without an intercept.
        before, after: mean square error of the product with the matrix as it was, and as it is, relative to the mean
            square of the targets (their variance, with an intercept).
    """

    matrix: Array
    constant: Array
    before: float
    after: float


def fit(
    moments: Moments,
    start: np.ndarray,
    ridge: float,
    *,
    intercept: bool,
    mask: np.ndarray | None = None,
    grid: Grid | None = None,
) -> Fit:
    """The matrix that gives the targets best, and stays near the one that it starts from.

    Args:
        moments: of at least one row.
        start: [parts, terms, columns].
        ridge: weight of the squared distance from ``start``, in units of the mean square of a term; infinite: the
            matrix stays, and only the constant is found.
        intercept: whether a constant may be added to the product.
        mask: bool [parts, terms, columns], which weights may differ from zero; None: all.
        grid: what the weights of a column are rounded to, times a scale of their own; None: they are not rounded.
    """
    squares, cross, energy = moments.centered(intercept)
    if ridge != np.inf:
        start = start if mask is None else start * mask
        matrix = start + _change(squares, cross - squares @ start, ridge, mask)
    else:
        matrix = start
    if grid is not None:
        damping = DAMPING if ridge == np.inf else max(ridge, DAMPING)
        matrix = _rounded(with_ridge(squares, damping), matrix, grid, mask)
    return _fitted(moments, (squares, cross, energy), start, matrix, intercept)


def _change(squares: Array, wanted: Array, ridge: float, mask: np.ndarray | None) -> Array:
    """What is added to a matrix so that its products change as wanted: [parts, terms, columns], zero behind a mask."""
    found = np.empty_like(wanted)
    for part, loaded in enumerate(with_ridge(squares, ridge)):
        # Most columns are whole where zeros are few, and are solved at once.
        whole = np.ones(wanted.shape[2], bool) if mask is None else mask[part].all(0)
        if whole.any():
            found[part][:, whole] = _solve(loaded, wanted[part][:, whole])
        if not whole.all():
            assert mask is not None
            found[part][:, ~whole] = _solve_masked(loaded, wanted[part][:, ~whole], mask[part][:, ~whole])
    return found


def with_ridge(squares: Array, ridge: float) -> Array:
    """Moments [parts, terms, terms] with a ridge on their diagonal, in units of its mean; positive definite."""
    terms = np.arange(squares.shape[1])
    loaded = squares.copy()
    loaded[:, terms, terms] += ridge * np.trace(squares, axis1=1, axis2=2)[:, None] / len(terms) + 1e-30
    return loaded


def _rounded(loaded: Array, matrix: Array, grid: Grid, mask: np.ndarray | None) -> Array:
    masks = [None] * len(matrix) if mask is None else list(mask)
    parts = zip(loaded, matrix, masks, strict=True)
    return np.stack([round_weights(squares, weights, grid, kept) for squares, weights, kept in parts])


def _fitted(
    moments: Moments, centered: tuple[Array, Array, Array], start: np.ndarray, matrix: np.ndarray, intercept: bool
) -> Fit:
    scale = max(float(centered[2].sum()), 1e-30)
    before, after = (float(_error(*centered, value).sum()) / scale for value in (start, matrix))
    constant = moments.constant(matrix) if intercept else np.zeros_like(moments.targets)
    return Fit(matrix, constant, before, after)


def choose_ridge(
    halves: Sequence[Moments],
    samples: int,
    start: np.ndarray,
    ridge: float,
    *,
    intercept: bool,
    mask: np.ndarray | None = None,
) -> float:
    """The ridge under which a fit to each half of the rows gives the targets of the other half best, or a share of it.

    Few rows for many terms are fitted by heart: what is best for them can be worse than nothing for others. Rows of one
    sample are alike, so that many rows of few samples are fitted by heart in part.

    Args:
        halves: moments of two halves of the rows, which no sample should be in both of.
        samples: that the rows of the smaller half are from.
        ridge: the weakest that is tried, and what is taken without a trial where samples are many.

    Returns:
        Infinity: no ridge gave anything better than the matrix as it was, or that gives the targets already, and only
        rounding would tell one ridge from another.
    """
    enough = ENOUGH * start.shape[1]
    if samples >= enough:
        return ridge
    if not all(half.rows for half in halves):
        return np.inf
    start = start if mask is None else start * mask
    errors = dict.fromkeys([np.inf, *(factor * ridge for factor in _FACTORS)], 0.0)
    for half, judge in zip(halves, halves[::-1], strict=True):
        squares, cross, _ = half.centered(intercept)
        wanted, judged = cross - squares @ start, judge.centered(intercept)
        for tried in errors:
            matrix = start if tried == np.inf else start + _change(squares, wanted, tried, mask)
            errors[tried] += float(_error(*judged, matrix).sum())
    if errors[np.inf] <= _ALIKE * sum(float(half.energy.sum()) / half.rows for half in halves):
        return np.inf
    best = min(errors, key=lambda tried: errors[tried])
    return max(best / _SHARE, ridge) if min(half.rows for half in halves) >= enough else best


def _solve(loaded: Array, wanted: Array) -> Array:
    """Where rows are few, or terms are equal, only the ridge keeps the system from being singular."""
    with one_thread():
        try:
            factor = scipy.linalg.cho_factor(loaded, check_finite=False)
            return scipy.linalg.cho_solve(factor, wanted, check_finite=False)
        except scipy.linalg.LinAlgError:
            return scipy.linalg.lstsq(loaded, wanted, check_finite=False)[0]


def _solve_masked(loaded: Array, wanted: Array, mask: np.ndarray) -> Array:
    """Conjugate gradients for all columns at once, each in the space of its own weights (Meng et al. 2024, ALPS,
    arXiv:2406.07831, section 3.3)."""
    scale = 1 / np.diag(loaded)[:, None]
    found = np.zeros_like(wanted)
    residual = wanted * mask
    goal = _CLOSE**2 * np.square(residual).sum(0)
    direction = scaled = scale * residual
    product = (residual * scaled).sum(0)
    for _ in range(_STEPS):
        if (np.square(residual).sum(0) <= goal).all():
            break
        curved = (loaded @ direction) * mask
        step = product / np.maximum((direction * curved).sum(0), 1e-300)
        found += step * direction
        residual = residual - step * curved
        scaled = scale * residual
        product, before = (residual * scaled).sum(0), product
        direction = scaled + product / np.maximum(before, 1e-300) * direction
    return found


def _error(squares: Array, cross: Array, energy: Array, matrix: np.ndarray) -> Array:
    """Mean square error per column: [parts, columns]."""
    return np.maximum(energy - 2 * (cross * matrix).sum(1) + (matrix * (squares @ matrix)).sum(1), 0)
