"""What a search says while it runs: the file of a rung, how far the trials are, the time that is left."""

from __future__ import annotations

from edgeprune.durations import duration
from edgeprune.searching.goal import Figures, Goal


def file_in_words(goal: Goal, figures: Figures) -> str:
    """Accuracy with what it lost, latency if it is known, and size."""
    metric = goal.metric
    value, drop = figures["value"], figures["drop"]
    words = [f"{metric.name} {value:.4f} ({-drop:+.2f})" if metric.points == 100 else f"{metric.name} {value:.5g}"]
    if figures["latency_ms"] is not None:
        words.append(f"{figures['latency_ms']:.3g} ms")
    if "flash_bytes" in figures:
        return ", ".join([*words, f"{figures['flash_bytes']:,} bytes of flash, {figures['ram_bytes']:,} of RAM"])
    return ", ".join([*words, f"{figures['bytes'] / 1000:,.1f} kB"])


def progress_in_words(done: int, most: int | None, best: str, left: float | None) -> str:
    """Trials that are done, of how many; the best file; seconds that are left, if there is a guess."""
    words = [f"{done}{f' of {most}' if most else ''} trials done", best]
    if left is not None:
        words.append(f"about {duration(left)} left")
    return "; ".join(words)


def seconds_left(passed: float, until_timeout: float | None, done: int, most: int | None) -> float | None:
    """Until all trials have run as fast as those so far, or the time is up; None: neither is known."""
    guesses = [] if until_timeout is None else [until_timeout]
    if most and done:
        guesses.append(passed / done * (most - done))
    return min(guesses, default=None)
