"""Fit the coefficients of the latency model to measured latencies.

The estimate is maximum a posteriori in the logarithms of the coefficients, so that coefficients stay positive and
errors are relative: the residuals are ``log(predicted) - log(measured)``. The prior comes from hardware facts or from
another board. Its covariance lets all coefficients move together more easily than each alone: few measurements then
only scale a board's speed, many tell its operators apart. Residuals are assumed to follow Student's t-distribution, so
that an outlier has little influence (Lange, Little & Taylor 1989, doi:10.1080/01621459.1989.10478852).
Solved by Levenberg-Marquardt (Levenberg 1944, doi:10.1090/qam/10666).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Standard deviations of the logarithms.
NOISE = 0.08  # of one measurement, together with what the model cannot express
COMMON = 0.7  # of a factor on all coefficients together
EACH = 0.5  # of each coefficient on its own
FREEDOM = 4.0  # degrees of freedom of Student's t
_ROUNDS = 200
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Samples:
    """Measurements to fit to, n of them, over k coefficients.

    Attributes:
        amounts: float64 [n, k], of work for each coefficient.
        parallel: bool [k], whether threads share the work.
        threads: float64 [n].
        seconds: float64 [n], measured.
        weights: float64 [n], of each residual; repeated measurements of a file share a weight.
    """

    amounts: np.ndarray
    parallel: np.ndarray
    threads: np.ndarray
    seconds: np.ndarray
    weights: np.ndarray

    def take(self, rows: np.ndarray) -> Samples:
        """Only these rows."""
        return Samples(
            self.amounts[rows], self.parallel, self.threads[rows], self.seconds[rows], self.weights[rows]
        )  # fmt: skip


def predict(samples: Samples, theta: np.ndarray) -> np.ndarray:
    """Predicted seconds [n].

    Args:
        samples: for the amounts of work.
        theta: [k + 1], logarithms of the coefficients and, last, of the serial fraction.
    """
    return _parts(samples, theta)[0].sum(axis=1)


def _parts(samples: Samples, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of each term [n, k], and their derivative by the logarithm of the serial fraction [n]."""
    coefficients, serial = np.exp(theta[:-1]), np.exp(theta[-1])
    threads = samples.threads[:, None]
    full = samples.amounts * coefficients
    seconds = np.where(samples.parallel, full * (serial + (1 - serial) / threads), full)
    slope = np.where(samples.parallel, full * (1 - 1 / threads) * serial, 0.0)
    return seconds, slope.sum(axis=1)


def fit(samples: Samples, prior: np.ndarray, each: np.ndarray | float = EACH, common: float = COMMON) -> np.ndarray:
    """Fit to samples.

    Args:
        samples: the measurements.
        prior: [k + 1], the most likely values before the measurements.
        each: prior standard deviation of each value, or [k + 1].
        common: prior standard deviation of the logarithm of a factor that all coefficients share.

    Returns:
        Logarithms of the coefficients and, last, of the serial fraction [k + 1].
    """
    count = len(prior)
    spread = np.diag(np.broadcast_to(np.asarray(each, float) ** 2, count)).copy()
    spread[:-1, :-1] += common**2
    precision = np.linalg.inv(spread)
    theta, damping = prior.copy(), 1e-3
    loss = _loss(samples, theta, prior, precision)
    for _ in range(_ROUNDS):
        parts, slope = _parts(samples, theta)
        total = parts.sum(axis=1)
        jacobian = np.concatenate([parts, slope[:, None]], axis=1) / total[:, None]
        residual = np.log(total / samples.seconds) / NOISE
        trust = samples.weights**2 * (FREEDOM + 1) / (FREEDOM + residual**2)
        slopes = (jacobian / NOISE).T * trust
        gradient = slopes @ residual + precision @ (theta - prior)
        hessian = slopes @ jacobian / NOISE + precision
        while True:
            step = np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), -gradient)
            trial = theta + step
            new = _loss(samples, trial, prior, precision)
            if new <= loss or damping > 1e12:
                break
            damping *= 4
        change, theta, loss, damping = loss - new, trial, new, damping / 3
        if change < _TOLERANCE:
            break
    return theta


def _loss(samples: Samples, theta: np.ndarray, prior: np.ndarray, precision: np.ndarray) -> float:
    residual = np.log(predict(samples, theta) / samples.seconds) / NOISE
    away = theta - prior
    misfit = samples.weights**2 @ np.log1p(residual**2 / FREEDOM) * (FREEDOM + 1)
    return float(misfit + away @ precision @ away) / 2


COVERED = 0.8  # fraction of true latencies that the range of an estimate should contain


def left_out(samples: Samples, prior: np.ndarray, groups: np.ndarray, common: float = COMMON) -> np.ndarray:
    """``log(predicted) - log(measured)`` [n], with each group predicted by a fit to all others."""
    residuals = np.zeros(len(samples.seconds))
    for group in np.unique(groups):
        inside = groups == group
        theta = fit(samples.take(~inside), prior, common=common) if not inside.all() else prior
        residuals[inside] = np.log(predict(samples.take(inside), theta) / samples.seconds[inside])
    return residuals


def family_weights(groups: np.ndarray) -> np.ndarray:
    """Weights [n] with which a family of m similar models counts as much as the square root of m models."""
    _, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return counts[index] ** -0.25


def range_factor(residuals: np.ndarray, groups: np.ndarray, least: float = 1.05) -> float:
    """The factor around an estimate that covers 80 % of the left-out measurements, with equal weight for each group.

    This is conformal prediction (Vovk et al. 2005, Algorithmic Learning in a Random World): a further group, which
    stands for new models, is counted as not covered.

    Args:
        residuals: [n], from :func:`left_out`.
        groups: [n], the group of each.
        least: the smallest factor to return.
    """
    _, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    share = 1 / counts[index]
    order = np.argsort(np.abs(residuals))
    reached = np.cumsum(share[order]) / (len(counts) + 1)
    position = min(int(np.searchsorted(reached, COVERED)), len(order) - 1)
    return max(least, float(np.exp(np.abs(residuals)[order[position]])))
