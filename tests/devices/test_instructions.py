"""Reading the plugin's log, and cutting a file after each operator; nothing is emulated here."""

import numpy as np
import pytest

from edgeprune.devices.instructions import WARMUP, instructions, measure
from edgeprune.devices.protocol import Job, open_device
from edgeprune.errors import DeviceError, UsageError
from edgeprune.runtime.interpreter import find_runtime
from edgeprune.runtime.runner import set_random_inputs
from edgeprune.tflite.flatbuffer import parse
from edgeprune.tflite.prefixes import prefixes


def log(*costs):
    """What the plugin writes when nothing costs 100, and the counted runs after it ``costs``; warm-ups cost more."""
    count, lines = 10_000, []
    for cost in (100, *costs):
        for extra in [*range(WARMUP, 0, -1), 0]:
            lines.append(f"mark {count}")
            count += cost + 50 * extra
            lines.append(f"mark {count}")
            count += 777
    return "\n".join(lines) + "\n"


def test_the_last_pair_of_each_file_counts():
    """Warm-ups and what lies between the pairs do not count, and the cost of the marks is taken off."""
    assert instructions(log(1_100, 5_000_000_100), 2) == [1_000, 5_000_000_000]


def test_missing_marks_are_an_error():
    """A log that broke off gives no number."""
    with pytest.raises(DeviceError, match="marks"):
        instructions(log(1_000)[:-20], 1)


def test_counts_are_kept_when_the_board_fails(tiny_files, monkeypatch):
    """Counts of whole files stay when a later file, or the table of operators, is not to be had."""
    files = tuple(tiny_files.values())

    def fail_after(calls):
        def count(device, files, delegate, samples):
            nonlocal calls
            calls -= 1
            if calls < 0:
                raise DeviceError("It crashed.")
            return [{"instructions": 7}]

        monkeypatch.setattr("edgeprune.devices.instructions._count", count)

    for calls, operators in ((1, False), (2, True)):
        fail_after(calls)
        with pytest.raises(DeviceError) as caught:
            measure(None, Job(files, profile_operators=operators))
        assert caught.value.results == [{"instructions": 7, "complete": False, "model": n} for n in range(calls)]


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_every_prefix_runs_and_computes_the_same(tiny_files, name):
    """Each prefix has one operator more, and its outputs are the values that the whole file has there."""
    content = tiny_files[name].read_bytes()
    graph = parse(content).subgraphs[0]
    cut = list(prefixes(content))
    assert cut[-1] == content
    runtime = find_runtime()
    values = {}
    for length, prefix in enumerate(cut, 1):
        read = parse(prefix).subgraphs[0]
        assert [one.name for one in read.operators] == [one.name for one in graph.operators[:length]]
        interpreter = runtime.interpreter(prefix, kernels="builtin")
        set_random_inputs(interpreter)
        interpreter.invoke()
        for detail in interpreter.get_output_details():
            found = interpreter.get_tensor(detail["index"])
            np.testing.assert_array_equal(values.setdefault(detail["index"], found), found)
    assert set(graph.outputs) <= set(values)


def test_the_address_chooses_the_runtime():
    """'emulator' is ai-edge-litert; a runtime that is not there is a usage error."""
    assert open_device("emulator").runtime == "ai-edge-litert"
    assert open_device("emulator://tflite-runtime").runtime == "tflite-runtime"
    with pytest.raises(UsageError, match="no runtime 'onnx'"):
        open_device("emulator://onnx")
