"""Which of two files is faster, from times measured in turns on one device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeprune.files import JsonObject

ROUNDS = 20
CONFIDENCE = 0.95
_RESAMPLES = 4000


def ratio(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], seed: int = 0) -> JsonObject:
    """How many times as long b takes as a, with a confidence interval.

    Each round gives one pair of medians, measured one right after the other, so that what slows the device for longer
    than a round slows both. The estimate is the median of the pairs' ratios, the interval the percentile bootstrap over
    pairs (Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13).

    Args:
        a, b: times per round, in any one unit; as many rounds of each.

    Returns:
        ratio, low, high, confidence, rounds. Low and high are None with fewer than 5 rounds.
    """
    pairs = min(len(a), len(b))
    logs = np.array([np.log(np.median(b[i]) / np.median(a[i])) for i in range(pairs)])
    low = high = None
    if pairs >= 5:
        drawn = np.random.default_rng(seed).integers(0, pairs, (_RESAMPLES, pairs))
        edges = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
        low, high = (float(np.exp(edge)) for edge in np.quantile(np.median(logs[drawn], axis=1), edges))
    return {
        "ratio": float(np.exp(np.median(logs))),
        "low": low,
        "high": high,
        "confidence": CONFIDENCE,
        "rounds": pairs,
    }
