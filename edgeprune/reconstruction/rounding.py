"""Rounding weights to integers so that what a layer gives changes least: other weights make up for each one's error.

Weights are rounded term by term; the error of a term is handed on to the terms that are still to be rounded, as the
inverse of the second moments says (optimal brain quantization, Frantar & Alistarh 2022, arXiv:2208.11580, in the order
and with the Cholesky factor of GPTQ, Frantar et al. 2022, arXiv:2210.17323).
"""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import numpy as np
import scipy.linalg

from edgeprune.reconstruction.threads import one_thread

Array: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

# Of the largest weight of a column, the ends of the grids that are tried.
_SHRINKS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
# Terms whose errors are handed on to those behind them together.
_BLOCK = 64


@dataclasses.dataclass(frozen=True, order=True)
class Grid:
    """The integers that weights are rounded to, times a scale of each column.

    Attributes:
        levels: the largest one: 127 for eight bits, 7 for four.
        dead: weights of less than so many steps become zero. Half a step is rounding to nearest; more of it makes
            zeros, as the dead zone of image and video coders does.
        stored: the largest integer that a file stores; a coarser grid is spread over those up to there.
    """

    levels: int
    dead: float = 0.5
    stored: int | None = None

    @property
    def values(self) -> Array:
        """What each integer from ``-levels`` on stands for, in steps."""
        integers = np.arange(-self.levels, self.levels + 1)
        if self.stored is None:
            return integers.astype(float)
        return np.round(integers * (self.stored / self.levels)) * (self.levels / self.stored)


def round_weights(loaded: Array, matrix: Array, grid: Grid, mask: np.ndarray | None) -> Array:
    """Round one part of a product to a grid that a converter finds again.

    Symmetric, with one scale per column; the weight with the largest magnitude of each column is on the end of the
    grid, from which converters compute the scale.

    Args:
        loaded: moments of the terms with their ridge, [terms, terms], positive definite.
        matrix: the weights that fit best, [terms, columns].
        grid: of all columns.
        mask: bool [terms, columns], False where a weight stays zero; None: nowhere.

    Returns:
        Values of the grid times the scale of each column, [terms, columns].
    """
    columns = matrix.shape[1]
    kept = np.ones(matrix.shape, bool) if mask is None else mask
    largest = np.abs(matrix).argmax(0)
    ends = np.abs(matrix[largest, np.arange(columns)])
    scales = np.outer(_SHRINKS, np.where(ends == 0, grid.levels, ends) / grid.levels)
    # All grids at once, as so many more columns.
    wanted, kept = (np.tile(each, (1, len(_SHRINKS))) for each in (matrix, kept))
    found = _round_columns(loaded, wanted, kept, scales.reshape(-1), np.tile(largest, len(_SHRINKS)), grid)
    change = found - wanted
    errors = (change * (loaded @ change)).sum(0).reshape(len(_SHRINKS), columns)
    return found[:, errors.argmin(0) * columns + np.arange(columns)]


def _round_columns(
    loaded: Array, matrix: Array, kept: np.ndarray, scale: Array, largest: np.ndarray, grid: Grid
) -> Array:
    """Round columns to the grid times their scales; the term ``largest`` of each goes to the end of the grid."""
    order = np.argsort(-np.diag(loaded), kind="stable")
    factor = _inverse_factor(loaded[np.ix_(order, order)])
    left, kept = matrix[order], kept[order]
    pinned = np.argsort(order)[largest]
    ends = np.sign(matrix[largest, np.arange(matrix.shape[1])]) * grid.levels
    values = grid.values
    found = np.zeros_like(left)
    for start in range(0, len(left), _BLOCK):
        stop = min(start + _BLOCK, len(left))
        errors = np.zeros([stop - start, left.shape[1]])
        for term in range(start, stop):
            steps = left[term] / scale
            integers = np.clip(np.round(steps), -grid.levels, grid.levels) * kept[term] * (abs(steps) >= grid.dead)
            integers = np.where(pinned == term, ends, integers)
            found[term] = values[integers.astype(int) + grid.levels] * scale
            errors[term - start] = (left[term] - found[term]) / factor[term, term]
            left[term + 1 : stop] -= factor[term, term + 1 : stop, None] * errors[term - start]
        left[stop:] -= factor[start:stop, stop:].T @ errors
    return found[np.argsort(order)]


def nearest(matrix: Array, levels: int) -> Array:
    """Weights rounded to nearest, as converters do: the largest weight of a column is the end of its grid.

    Args:
        matrix: [parts, terms, columns].
        levels: largest integer.
    """
    step = np.abs(matrix).max(1, keepdims=True) / levels
    step = np.where(step == 0, 1, step)
    return np.round(matrix / step) * step


def _inverse_factor(loaded: Array) -> Array:
    """The upper triangular U with U'U the inverse of ``loaded``."""
    with one_thread():
        inverse = scipy.linalg.cho_solve(scipy.linalg.cho_factor(loaded, check_finite=False), np.eye(len(loaded)))
        return scipy.linalg.cholesky(inverse, check_finite=False)
