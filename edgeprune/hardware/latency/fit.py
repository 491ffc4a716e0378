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
    precision = _precision(len(prior), each, common)
    theta, damping = prior.copy(), 1e-3
    loss = _loss(samples, theta, prior, precision)
    for _ in range(_ROUNDS):
        jacobian = _slopes(samples, theta)
        residual = np.log(predict(samples, theta) / samples.seconds) / NOISE
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


def uncertainty(samples: Samples, theta: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Standard deviations [n] of the logarithms of predictions, from that of the coefficients."""
    slopes = _slopes(samples, theta)
    return np.sqrt(np.einsum("ni,ij,nj->n", slopes, covariance, slopes))


def covariance(
    samples: Samples, theta: np.ndarray, each: np.ndarray | float = EACH, common: float = COMMON
) -> np.ndarray:
    """What is not known about the coefficients [k + 1, k + 1] after a fit to samples (Laplace's approximation)."""
    slopes = _slopes(samples, theta) * samples.weights[:, None] / NOISE
    return np.linalg.inv(slopes.T @ slopes + _precision(len(theta), each, common))


def most_informative(candidates: Samples, theta: np.ndarray, known: np.ndarray, count: int) -> list[int]:
    """Which candidates to measure next, best first: each time the one whose time is least known, given those before.

    This is sequential D-optimal design (Wynn 1970, doi:10.1214/aoms/1177696809).

    Args:
        candidates: their ``seconds`` are not looked at.
        known: covariance of the coefficients, see :func:`covariance`.
        count: how many to choose, at most.
    """
    chosen: list[int] = []
    slopes = _slopes(candidates, theta)
    for _ in range(min(count, len(slopes))):
        spread = uncertainty(candidates, theta, known)
        spread[chosen] = -1.0
        chosen.append(int(np.argmax(spread)))
        gain = known @ slopes[chosen[-1]]
        known = known - np.outer(gain, gain) / (NOISE**2 + slopes[chosen[-1]] @ gain)
    return chosen


def _slopes(samples: Samples, theta: np.ndarray) -> np.ndarray:
    """Derivatives [n, k + 1] of the logarithms of predictions by ``theta``."""
    parts, slope = _parts(samples, theta)
    return np.concatenate([parts, slope[:, None]], axis=1) / parts.sum(axis=1)[:, None]


def _precision(count: int, each: np.ndarray | float, common: float) -> np.ndarray:
    """Of the prior."""
    spread = np.diag(np.broadcast_to(np.asarray(each, float) ** 2, count)).copy()
    spread[:-1, :-1] += common**2
    return np.linalg.inv(spread)


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
    stands for a new file, is counted as not covered.

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
