"""Rounding weights to integers so that what a layer gives changes least: other weights make up for each one's error.

Weights are rounded term by term; the error of a term is handed on to the terms that are still to be rounded, as the
inverse of the second moments says (optimal brain quantization, Frantar & Alistarh 2022, arXiv:2208.11580, in the order
and with the Cholesky factor of GPTQ, Frantar et al. 2022, arXiv:2210.17323).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import scipy.linalg

Array: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

# Of the largest weight of a column, what the end of the grid may be.
_SHRINKS = np.linspace(1, 0.4, 61)
# Terms whose errors are handed on to those behind them together.
_BLOCK = 64


def round_weights(loaded: Array, matrix: Array, levels: int, mask: np.ndarray | None) -> Array:
    """Round one part of a product to a grid that a converter finds again.

    Symmetric, with one scale per column; the weight with the largest magnitude of each column is on the end of the
    grid, from which converters compute the scale.

    Args:
        loaded: moments of the terms with their ridge, [terms, terms], positive definite.
        matrix: the weights that fit best, [terms, columns].
        levels: largest integer: 127 for eight bits, 7 for four.
        mask: bool [terms, columns], False where a weight stays zero; None: nowhere.

    Returns:
        Whole multiples of the scale of each column, [terms, columns].
    """
    kept = np.ones(matrix.shape, bool) if mask is None else mask
    diagonal = np.diag(loaded)
    scale = best_scales(matrix, diagonal, levels)
    largest = np.abs(matrix).argmax(0)
    order = np.argsort(-diagonal, kind="stable")
    factor = _inverse_factor(loaded[np.ix_(order, order)])
    left, kept = matrix[order], kept[order]
    pinned = np.argsort(order)[largest]
    ends = np.sign(matrix[largest, np.arange(matrix.shape[1])]) * levels
    found = np.zeros_like(left)
    for start in range(0, len(left), _BLOCK):
        stop = min(start + _BLOCK, len(left))
        errors = np.zeros([stop - start, left.shape[1]])
        for term in range(start, stop):
            integers = np.clip(np.round(left[term] / scale), -levels, levels) * kept[term]
            integers = np.where(pinned == term, ends, integers)
            found[term] = integers * scale
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


def best_scales(matrix: Array, importance: Array, levels: int) -> Array:
    """Per column, the step whose grid has the smallest squared error; [columns], one where a column is zero.

    Args:
        matrix: [terms, columns].
        importance: of the squared error of each term, [terms].
        levels: largest integer of the grid.
    """
    largest = np.abs(matrix).max(0)
    largest = np.where(largest == 0, levels, largest)
    errors = []
    for shrink in _SHRINKS:
        scale = shrink * largest / levels
        rounded = np.clip(np.round(matrix / scale), -levels, levels) * scale
        errors.append(importance @ np.square(matrix - rounded))
    return _SHRINKS[np.argmin(errors, axis=0)] * largest / levels


def _inverse_factor(loaded: Array) -> Array:
    """The upper triangular U with U'U the inverse of ``loaded``."""
    inverse = scipy.linalg.cho_solve(scipy.linalg.cho_factor(loaded, check_finite=False), np.eye(len(loaded)))
    return scipy.linalg.cholesky(inverse, check_finite=False)
