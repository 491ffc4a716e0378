"""Variants of a build, measured on a device."""

import sys
import time

import pytest

from edgeprune.builder import build
from edgeprune.devices import variants
from edgeprune.devices.variants import OnDevice, measure_variants
from edgeprune.errors import DeviceError, UsageError
from edgeprune.progress import Progress
from edgeprune.report.schema import validate
from edgeprune.target import load_target


def test_a_file_that_the_device_refuses_is_a_warning(tiny_files, tmp_path):
    """The others are measured all the same; this machine is not taken for the target."""
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(b"no model" * 10)
    files = {"a": tiny_files["float32"], "b": foreign, "c": tiny_files["int8"]}
    found = measure_variants(OnDevice("host"), files, load_target("rpi4"), Progress())
    assert list(found.entries) == ["a", "c"]
    assert list(found.warnings) == ["b"]
    assert found.broken is None
    (entry,) = found.entries["a"]
    assert (entry["threads"], "target" in entry) == (4, False)


def with_tool(monkeypatch, measure, name="runner"):
    """Let ``measure`` stand for the tool of every device."""
    monkeypatch.setattr(variants, "tool_of", lambda device: measure)
    monkeypatch.setattr("edgeprune.devices.host.Host.tool", name)


def test_a_count_is_no_latency(tiny_files, monkeypatch):
    """Where a device counts instructions, one thread is asked for, and the count stands under a key of its own."""

    def count(device, job):
        assert job.threads == 1
        return [{"device": "emulator: X", "runtime": "r 1", "kernels": "xnnpack", "threads": 1, "instructions": 7}]

    with_tool(monkeypatch, count, "instructions")
    found = measure_variants(OnDevice("host"), {"a": tiny_files["int8"]}, load_target("rpi4"), Progress())
    assert found.instructions == {"a": {"device": "emulator: X", "runtime": "r 1", "kernels": "xnnpack", "count": 7}}
    assert (found.entries, found.warnings) == ({}, {})


def test_an_error_of_the_user_does_not_end_a_build(tiny_files, monkeypatch):
    """Whatever the tool refuses after the training is a warning about the variant, so that the report is written."""

    def refuse(device, job):
        raise UsageError("No such delegate.")

    with_tool(monkeypatch, refuse)
    found = measure_variants(OnDevice("host"), {"a": tiny_files["int8"]}, load_target("rpi4"), Progress())
    assert found.broken is None
    assert found.warnings == {"a": ["Not measured on host: No such delegate."]}


def test_rounds_before_a_device_went_away_are_kept(tiny_files, monkeypatch):
    """What a variant's rounds gave before the device disappeared stays, with a warning, and the end is told."""

    def vanish(device, job):
        error = DeviceError("It is gone.")
        error.results = [{"device": "ssh: X", "runtime": "r 1", "threads": 4, "runs": 9, "median_ms": 2.0, "model": 0}]
        raise error

    with_tool(monkeypatch, vanish)
    found = measure_variants(OnDevice("host"), {"a": tiny_files["int8"]}, load_target("rpi4"), Progress())
    assert found.broken is not None
    assert [(entry["runs"], entry["median_ms"]) for entry in found.entries["a"]] == [(9, 2.0)]
    assert found.warnings == {"a": ["host went away while a was measured."]}


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
