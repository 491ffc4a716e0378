"""Durations: as people type them, and in words."""

from __future__ import annotations

import re

from edgeprune.errors import UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str | float | None) -> float | None:
    """Seconds: of a number, or of ``90s``, ``40m``, ``2h``, ``1h30m``, ``1d``; None stays None.

    Raises:
        UsageError: neither.
    """
    if text is None:
        return None
    words = str(text).strip()
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", words)
    if parts and re.fullmatch(r"(\d+(?:\.\d+)?[smhd])+", words):
        seconds = sum(float(value) * _UNITS[unit] for value, unit in parts)
    elif re.fullmatch(r"\d+(\.\d+)?", words):
        seconds = float(words)
    else:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"A time of {text!r} is not understood.", expected="90s, 40m, 2h, 1h30m, or seconds.")
    return seconds


def duration(seconds: float) -> str:
    """In words, to the second below an hour: 42 s, 12 min 4 s, 1 h 30 min; nothing is less than 0 s."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
