"""Variants of a build, measured on a device."""

import json
import sys
import time

import pytest
import quick

from edgeprune.builder import build
from edgeprune.devices import variants
from edgeprune.devices.variants import Connection, OnDevice, measure_variant
from edgeprune.errors import DeviceError, UsageError
from edgeprune.report.schema import validate
from edgeprune.target import load_target


def measured(file):
    """What this machine says about a file, and what ended the measuring."""
    with Connection(OnDevice("host")) as connection:
        return measure_variant(connection, file, load_target("rpi4"))


def with_tool(monkeypatch, measure, name="runner"):
    """Let ``measure`` stand for the tool of every device."""
    monkeypatch.setattr(variants, "tool_of", lambda device: measure)
    monkeypatch.setattr("edgeprune.devices.host.Host.tool", name)


def test_this_machine_is_not_taken_for_the_target(tiny_files):
    """What is measured here has the target's threads, and not its name."""
    facts, error = measured(tiny_files["float32"])
    assert error is None
    (entry,) = facts["measured"]
    assert (entry["threads"], "target" in entry) == (4, False)


def test_a_file_that_the_device_refuses_is_a_warning(tmp_path):
    """Measuring the others can go on."""
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(b"no model" * 10)
    facts, error = measured(foreign)
    assert error is None
    assert list(facts) == ["warnings"]


def test_a_count_is_no_latency(tiny_files, monkeypatch):
    """Where a device counts instructions, one thread is asked for, and the count stands under a key of its own."""

    def count(device, job):
        assert job.threads == 1
        return [{"device": "emulator: X", "runtime": "r 1", "kernels": "xnnpack", "threads": 1, "instructions": 7}]

    with_tool(monkeypatch, count, "instructions")
    facts, _ = measured(tiny_files["int8"])
    assert facts == {"instructions": {"device": "emulator: X", "runtime": "r 1", "kernels": "xnnpack", "count": 7}}


def test_an_error_of_the_user_does_not_end_a_build(tiny_files, monkeypatch):
    """Whatever the tool refuses after the training is a warning about the variant, so that the report is written."""

    def refuse(device, job):
        raise UsageError("No such delegate.")

    with_tool(monkeypatch, refuse)
    assert measured(tiny_files["int8"]) == ({"warnings": ["Not measured on host: No such delegate."]}, None)


def test_rounds_before_a_device_went_away_are_kept(tiny_files, monkeypatch):
    """What a variant's rounds gave before the device disappeared stays, with a warning, and the end is told."""

    def vanish(device, job):
        error = DeviceError("It is gone.")
        error.results = [{"device": "ssh: X", "runtime": "r 1", "threads": 4, "runs": 9, "median_ms": 2.0, "model": 0}]
        raise error

    with_tool(monkeypatch, vanish)
    facts, error = measured(tiny_files["int8"])
    assert isinstance(error, DeviceError)
    assert [(entry["runs"], entry["median_ms"]) for entry in facts["measured"]] == [(9, 2.0)]
    assert facts["warnings"] == ["host went away while this file was measured."]


def test_a_device_that_is_not_there_is_noticed_before_the_training(tmp_path):
    """A build whose device cannot be reached ends at once (3), and makes no folder."""
    started = time.monotonic()
    with pytest.raises(DeviceError):
        build(None, recipe="float", out=tmp_path / "out", device="ssh://pi@127.0.0.1:1")
    assert time.monotonic() - started < 60
    assert not (tmp_path / "out").exists()


def test_the_report_has_what_the_device_says(tiny_model, tmp_path, sshd):
    """Each variant's first latency is the device's, marked as the target's; this machine's follow; the schema holds."""
    where = OnDevice(sshd.address, python=sys.executable)
    report = build(tiny_model, data="demo", recipe="float", out=tmp_path / "out", device=where)
    validate(report)
    for variant in report["variants"]:
        first, *others = variant["latency"]["measured"]
        assert first["device"].startswith("ssh: ")
        assert (first["target"], first["threads"]) == ("rpi4", 4)
        assert first["median_ms"] > 0
        assert [entry["device"].partition(":")[0] for entry in others] == ["host", "host"]


def test_measurements_are_kept_and_gone_on_with(tiny_model, tmp_path, monkeypatch):
    """A device that goes away costs one file: the next build measures that and what is missing, and nothing twice."""
    files = []

    def measure(device, job):
        files.append(job.files[0].parent.name)
        if len(files) == 2:
            raise DeviceError("It is gone.")
        return [{"device": "ssh: X", "runtime": "r 1", "threads": 4, "runs": 9, "median_ms": 2.0, "p95_ms": 3.0}]

    with_tool(monkeypatch, measure)
    options = {"data": "demo", "recipe": quick.INT8, "out": tmp_path / "out", "device": "host"}
    with pytest.raises(DeviceError):
        build(tiny_model, **options)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [v["latency"]["measured"][0]["device"] == "ssh: X" for v in report["variants"]] == [True, False]
    assert "went away" in " ".join(report["variants"][1]["warnings"])
    report = build(tiny_model, **options)
    assert files == ["float32.convert", "int8.convert", "int8.convert"]
    assert all(v["latency"]["measured"][0]["device"] == "ssh: X" for v in report["variants"])
    assert not any("went away" in " ".join(v["warnings"]) for v in report["variants"])
    assert [stage["reused"] for stage in report["stages"] if stage["name"].endswith("on_device")] == [True, False]
