"""measurements.csv."""

import csv

import pytest

from edgeprune.devices import table
from edgeprune.errors import DataError, OutputError

RESULT = {
    "sha256": "0" * 64,
    "device": 'adb: a "b", c',
    "target": None,
    "runtime": "ai-edge-litert 2.3.0",
    "threads": 2,
    "kernels": "xnnpack",
    "runs": 50,
    "median_ms": 1.25,
    "p95_ms": None,
    "created": "2026-11-21T00:00:00+00:00",
}


def test_rows_are_added(tmp_path):
    """The first row brings the header; files are named relative to the table, whatever characters they have."""
    path, file = tmp_path / "tables" / "m.csv", tmp_path / "a\nb, c.tflite"
    path.parent.mkdir()
    for _ in range(2):
        table.check(path)
        assert table.append(path, [{**RESULT, "file": str(file)}]) == 1
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == list(table.COLUMNS)
    assert len(rows) == 2
    assert (path.parent / rows[0]["file"]).resolve() == file
    assert (rows[1]["runtime"], rows[1]["runtime_version"], rows[1]["delegate"]) == (
        "ai-edge-litert",
        "2.3.0",
        "xnnpack",
    )
    assert (rows[1]["device"], rows[1]["target"], rows[1]["p95_ms"]) == (RESULT["device"], "", "")


def test_what_has_no_median_makes_no_row(tmp_path):
    """An old benchmark_model's mean is not passed off as a median."""
    assert table.append(tmp_path / "m.csv", [{**RESULT, "file": "x", "median_ms": None}]) == 0


def test_foreign_files_stay_as_they_are(tmp_path):
    """A file that is no such table is refused before anything is measured; so is a folder that is not there."""
    path = tmp_path / "accounts.csv"
    path.write_text("date,amount\n")
    with pytest.raises(DataError, match="not a table of measurements"):
        table.check(path)
    assert path.read_text() == "date,amount\n"
    with pytest.raises(OutputError):
        table.check(tmp_path / "nowhere" / "m.csv")
