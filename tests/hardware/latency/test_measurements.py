"""A target of one's own: fitted to a table of measurements, written, read again."""

import csv
import hashlib

import numpy as np
import pytest
from click.testing import CliRunner

from edgeprune.cli.targets import fit as fit_command
from edgeprune.errors import DataError, TargetError, UsageError
from edgeprune.hardware.latency.estimate import predict
from edgeprune.hardware.latency.measurements import MIN_FILES, base_name, fit_target, left_out, read_measurements
from edgeprune.target import load_target, to_toml
from edgeprune.tflite.flatbuffer import read

COLUMNS = (
    "file", "sha256", "device", "target", "runtime", "runtime_version", "threads", "delegate", "runs", "median_ms",
    "p95_ms", "created",
)  # fmt: skip
BASE = load_target("rpi4")


@pytest.fixture
def table(shared_models, tmp_path):
    """A function that writes a table of a board ``speed`` times as fast as the base."""

    def write(files=6, speed=2.0, **changes):
        path = tmp_path / "measurements.csv"
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            for file in shared_models[:files]:
                estimate = predict(read(file).subgraphs[0], BASE, "xnnpack", 2).estimate
                row = {
                    "file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "device": "my board",
                    "target": "rpi4", "runtime": "litert", "runtime_version": "2.1", "threads": 2,
                    "delegate": "xnnpack", "runs": 50, "median_ms": estimate.median_ms / speed, "p95_ms": 1,
                    "created": "2026-01-01",
                }  # fmt: skip
                writer.writerow({**row, **changes})
        return path

    return write


@pytest.mark.parametrize("files", [MIN_FILES, 8])
def test_a_board_twice_as_fast_is_found_to_be(table, files):
    """Estimates of the fitted target are within 10 % of half the base's, with few files and with more."""
    path = table(files)
    target = fit_target("mine", BASE, read_measurements(path))
    for one in read_measurements(path):
        assert predict(one.graph, target, "xnnpack", 2).estimate.median_ms == pytest.approx(1e3 * one.seconds, rel=0.1)
    assert target.latency.builtin is None  # nobody measured them
    assert (target.latency.xnnpack.heldout_median_error is not None) == (files >= 5)


def test_fit_to_toml_and_back(table, tmp_path):
    """What is written loads as the same target, and estimates the same."""
    target = fit_target("mine", BASE, read_measurements(table()))
    (tmp_path / "mine.toml").write_text(to_toml(target))
    again = load_target(tmp_path / "mine.toml")
    assert again == target
    graph = read_measurements(tmp_path / "measurements.csv")[0].graph
    assert predict(graph, again) == predict(graph, target)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"sha256": "0" * 64}, "is not the file that was measured"),
        ({"file": "gone.tflite"}, "gone.tflite does not exist"),
        ({"file": ""}, "the column file is empty"),
        ({"median_ms": "fast"}, "must be numbers"),
        ({"median_ms": -1}, "not a measurement"),
        ({"threads": 0}, "not a measurement"),
    ],
)
def test_rows_that_cannot_be_true_are_refused(table, changes, complaint):
    """A wrong file or figure is an error that names the line."""
    with pytest.raises(DataError, match=complaint) as error:
        read_measurements(table(1, **changes))
    assert "line 2" in str(error.value) or "measurements.csv" in str(error.value)


def test_tables_that_do_not_do_are_refused(table, tmp_path):
    """Too few files, other delegates only, several boards, missing columns, no target to start from, a bad name."""
    with pytest.raises(DataError, match="Too few measurements") as error:
        fit_target("mine", BASE, read_measurements(table(MIN_FILES - 1)))
    assert "edgeprune bench" in str(error.value)
    with pytest.raises(DataError, match="Too few measurements"):
        fit_target("mine", BASE, read_measurements(table(delegate="gpu")))
    rows = read_measurements(table())
    object.__setattr__(rows[0], "device", "another board")
    with pytest.raises(DataError, match="2 boards"):
        fit_target("mine", BASE, rows)
    with pytest.raises(DataError, match="--base"):
        base_name(table(target=""))
    with pytest.raises(TargetError, match="cannot be the name of a target"):
        fit_target("My Board", BASE, rows)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column file, device"):
        read_measurements(tmp_path / "other.csv")


def test_rows_of_an_accelerator_are_said_to_be_left_out(table):
    """The error for too few measurements counts the rows that were left out, and why."""
    path = table(delegate="edgetpu")
    with pytest.raises(DataError, match=r"Only .* kernels can be fitted, so these rows are left out: 6 with edgetpu"):
        fit_target("mine", BASE, read_measurements(path), left_out(path))


@pytest.mark.parametrize(
    "arguments", [[], ["--device", "host"], ["a.tflite", "--device", "host"], ["a.tflite", "--from", "a.csv"]]
)
def test_measurements_come_from_one_place(arguments, tmp_path, monkeypatch):
    """A fit takes a table, or a device with files and a base, and nothing half of each."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="not clear"):
        CliRunner().invoke(fit_command, ["mine", *arguments], catch_exceptions=False)


def test_a_fit_measures_on_the_device_itself(artifacts, tmp_path, monkeypatch):
    """With a device and files, each is measured there with both sets of kernels, and the fit is to these rows."""
    monkeypatch.chdir(tmp_path)
    files = [str(artifacts[name]) for name in ("float32", "int8", "float16")]
    arguments = ["mine", *files, "--device", "host", "--base", "rpi4", "--runs", "10"]
    done = CliRunner().invoke(fit_command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with (tmp_path / "mine-measurements.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(row["delegate"] for row in rows) == ["builtin"] * 3 + ["xnnpack"] * 3
    target = load_target("mine.toml")
    assert target.latency.builtin.measurements == target.latency.xnnpack.measurements == 3


def test_repeats_of_one_file_do_not_outvote_the_others(table):
    """Ten repeats of one file give the same fit as one of it."""
    rows = read_measurements(table())
    once, often = fit_target("mine", BASE, rows), fit_target("mine", BASE, rows + rows[:1] * 9)
    values = [
        [getattr(t.latency.xnnpack.seconds_per.float32, name) for name in ("conv_macs", "memory_bytes", "operators")]
        for t in (once, often)
    ]
    assert np.allclose(*values, rtol=0.02)


def test_the_command_writes_once(table, tmp_path, monkeypatch):
    """NAME.toml is written, not replaced without --force, and the printed figures are those in it."""
    monkeypatch.chdir(tmp_path)
    path = str(table())
    done = CliRunner().invoke(fit_command, ["mine", "--from", path], catch_exceptions=False)
    assert done.exit_code == 0
    assert f"within a factor of {load_target('mine.toml').latency.xnnpack.range_factor}" in done.output
    with pytest.raises(TargetError, match="--force"):
        CliRunner().invoke(fit_command, ["mine", "--from", path], catch_exceptions=False)
    again = CliRunner().invoke(fit_command, ["mine", "--from", path, "--force"], catch_exceptions=False)
    assert again.exit_code == 0
