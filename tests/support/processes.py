"""Processes that tests look at."""

from __future__ import annotations


def process_runs(number: int) -> bool:
    """Whether there is a process of this number that has not ended."""
    try:
        with open(f"/proc/{number}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
