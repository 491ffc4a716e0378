"""The table measurements.csv: one row per measured file, for ``edgeprune targets fit``."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.errors import DataError
from edgeprune.files import JsonObject, output_errors, require_writable

COLUMNS = (
    "file",
    "sha256",
    "device",
    "target",
    "runtime",
    "runtime_version",
    "threads",
    "delegate",
    "runs",
    "median_ms",
    "p95_ms",
    "created",
)


def check(table: Path) -> None:
    """Make sure, before anything is measured, that rows can be added.

    Raises:
        DataError: the file exists and is not such a table.
        OutputError: its folder is missing, or not writable.
    """
    with output_errors(table):
        _header(table)
    require_writable(table)


def append(table: Path, results: Sequence[Mapping[str, Any]]) -> int:
    """Add a row for each result that has a median; files are named relative to the table.

    Returns:
        How many rows were added.

    Raises:
        DataError: the file exists and is not such a table.
        OutputError: it cannot be written.
    """
    rows = [_row(table, result) for result in results if result.get("median_ms") is not None]
    if not rows:
        return 0
    with output_errors(table):
        header = _header(table)
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        if header is None:
            writer.writeheader()
        writer.writerows(rows)
        # In one write, so that rows of two commands do not mix.
        with table.open("ab", buffering=0) as file:
            file.write(text.getvalue().encode())
    return len(rows)


def _header(table: Path) -> list[str] | None:
    if not table.exists() or table.stat().st_size == 0:
        return None
    with table.open(newline="", encoding="utf-8", errors="replace") as file:
        found = next(csv.reader(file), [])
    if tuple(found) != COLUMNS:
        raise DataError(
            f"{table} is not a table of measurements.",
            expected=f"a first line with the columns {', '.join(COLUMNS)}.",
            fix="give another file with --append.",
        )
    return found


def _row(table: Path, result: Mapping[str, Any]) -> JsonObject:
    runtime, _, version = result["runtime"].rpartition(" ")
    return {
        **{name: result.get(name) for name in COLUMNS},
        "file": os.path.relpath(result["file"], table.parent),
        "runtime": runtime or version,
        "runtime_version": version if runtime else "",
        "delegate": result["kernels"],
    }
