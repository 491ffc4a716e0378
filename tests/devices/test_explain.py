"""Where time goes, simulated: real runs on the emulated board, and what is made of their counts."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from edgeprune.cli import edgeprune
from edgeprune.convert.converter import convert
from edgeprune.devices.cores import CORES, caches_of, core_of
from edgeprune.devices.cycles import cycles, require_llvm
from edgeprune.devices.emulator import Emulator
from edgeprune.devices.explain import (
    COPYING_SHARE,
    LINE_CYCLES,
    PARTS,
    START_CYCLES,
    Work,
    compare,
    explain,
    trace_by_operator,
)
from edgeprune.devices.instructions import by_operator
from edgeprune.devices.trace import LINE_BYTES, read, trace
from edgeprune.errors import DeviceError, MissingError, UsageError
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.target import load_target

FACTS = {"runtime": "ai-edge-litert 2.1.6", "kernels": "xnnpack"}


@pytest.fixture(scope="module")
def _traces():
    return {}


@pytest.fixture(scope="module")
def _analyzed():
    return {}


@pytest.fixture
def traced_once(_traces, _analyzed, monkeypatch):
    """What was traced for one test is not traced again for another: two traces are the same, and take seconds.

    So do the cycles of its blocks, which LLVM computes from nothing else.
    """

    def remembered(device, content, delegate, core, caches, results=()):
        key = device.runtime, content, delegate, core.name, repr((caches, results))
        if key not in _traces:
            _traces[key] = trace(device, content, delegate, core, caches, results)
        return _traces[key]

    def analyzed(blocks, cpu):
        key = tuple(blocks), cpu
        if key not in _analyzed:
            _analyzed[key] = cycles(blocks, cpu)
        return _analyzed[key]

    monkeypatch.setattr("edgeprune.devices.explain.trace", remembered)
    monkeypatch.setattr("edgeprune.devices.cycles.cycles", analyzed)
    return remembered


@pytest.fixture
def llvm():
    try:
        require_llvm()
    except MissingError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_two_traces_of_one_thread_are_the_same(emulated_board, tiny_files, traced_once):
    """Blocks, how often they ran, misses and lines to memory are equal in two runs, to the last one."""
    target, content = load_target("rpi4"), tiny_files["int8"].read_bytes()
    with Emulator() as device:
        first, second = (
            run(device, content, "default", core_of(target), caches_of(target)) for run in (traced_once, trace)
        )
    assert dict(zip(first.blocks, first.times.tolist(), strict=True)) == dict(
        zip(second.blocks, second.times.tolist(), strict=True)
    )
    assert first.misses.tolist() == second.misses.tolist()
    assert first.written.tolist() == second.written.tolist()


@pytest.mark.usefixtures("traced_once")
def test_a_file_is_explained_by_operator_and_in_total(emulated_board, llvm, tiny_files):
    """Parts add up: of an operator's work to the file's, of compute, memory and operators to the time; threads help."""
    with Emulator() as device:
        found = explain(device, tiny_files["float32"], "default", load_target("rpi4"))
    assert [part["type"] for part in found["operators"]][:2] == ["CONV_2D", "DEPTHWISE_CONV_2D"]
    assert all(part["instructions"] > 0 for part in found["operators"])
    for key in ("instructions", "cycles"):
        assert sum(part[key] for part in found["operators"]) == pytest.approx(found[key], rel=0.1)
    assert 0.5 < found["instructions"] / found["cycles"] < 3  # a core that starts three instructions at a time
    one, four = found["simulated"]
    assert (one["threads"], four["threads"]) == (1, 4)
    assert one["ms"] == pytest.approx(sum(one[f"{part}_ms"] for part in PARTS))
    assert four["compute_ms"] < one["compute_ms"]
    assert (four["cache_ms"], four["memory_ms"]) == (one["cache_ms"], one["memory_ms"])
    assert found["bound_by"] in PARTS
    assert 0 < found["median_error"] < 0.5


@pytest.mark.slow
def test_int8_convolutions_of_the_newer_core_use_its_dot_product(emulated_board, llvm, tiny_files):
    """The board is the target's core: a Cortex-A76 takes fewer instructions; its estimate is marked as not compared."""
    with Emulator() as device:
        older, newer = (explain(device, tiny_files["int8"], "default", load_target(name)) for name in ("rpi4", "rpi5"))
    assert newer["instructions"] < older["instructions"]
    assert (older["compared"], newer["compared"]) == (True, False)
    assert newer["median_error"] is None
    assert len(newer["misses"]) == len(older["misses"]) + 1


@pytest.mark.usefixtures("traced_once")
def test_bench_explains_and_compares(emulated_board, llvm, tiny_files):
    """`bench --explain --compare` says how much longer one file takes, and what the difference consists of."""
    words = ["bench", *map(str, tiny_files.values()), "--device", "emulator", "--explain", "--compare"]
    done = CliRunner().invoke(edgeprune, [*words, "--json"], catch_exceptions=False)
    document = json.loads(done.stdout)
    first, second = (result["explained"] for result in document["results"])
    explained = document["comparison"]["explained"]
    on_four = explained["ratios"][-1]
    assert on_four["ratio"] == pytest.approx(second["simulated"][-1]["ms"] / first["simulated"][-1]["ms"])
    gain = second["simulated"][-1]["ms"] - first["simulated"][-1]["ms"]
    assert sum(explained["parts_ms"].values()) == pytest.approx(gain)
    assert explained["because"].startswith("The difference is compute ")


def test_options_and_boards_that_cannot_be_simulated_are_refused(tiny_files):
    """--explain is the emulator's; a board of another core has no model here, and the message names those that have."""
    words = ["bench", str(tiny_files["int8"]), "--explain"]
    refused = CliRunner().invoke(edgeprune, [*words, "--device", "host"])
    assert isinstance(refused.exception, UsageError)
    assert "--explain cannot be used with --device host" in str(refused.exception)
    with pytest.raises(UsageError, match="Cortex-A72, Cortex-A76"):
        core_of(load_target("rpi3"))
    assert {core_of(load_target(name)).name for name in ("rpi4", "rpi5")} == set(CORES)


def test_a_log_is_read_by_operator():
    """Code that was translated twice is one block; operators without a line did nothing; -1 belongs to none."""
    lines = ["memory 0 90 7 5 2", "memory -1 10 1 1 0", "block 8b0100008b010000 0:3 -1:1", "block 8b0100008b010000 0:4"]
    found = read("\n".join(lines), 2, FACTS)
    assert found.blocks == [bytes.fromhex("0000018b" * 2)]
    assert found.times.tolist() == [[7, 0, 1]]
    assert found.instructions.tolist() == [14, 0, 2]
    assert found.misses.tolist() == [[7, 0, 1], [5, 0, 1]]
    assert found.transfers.tolist() == [7, 0, 1]
    with pytest.raises(DeviceError, match="not complete"):
        read("memory 0 90 7 5 2", 1, FACTS)


def test_time_is_compute_cache_memory_and_starts():
    """Cycles by clock and threads that share them, lines by clock or speed of copying, a constant per operator."""
    target = load_target("rpi4")
    first, none = np.array([1000, 0]), np.array([0, 0])
    work = Work(np.array([1.5e6, 1.5e6]), first, first, np.array([1, 0]), np.array([True, False]))
    compute, cache, memory, operators = work.milliseconds(target, 4)
    assert compute.tolist() == pytest.approx([0.25, 1.0])
    assert cache.tolist() == pytest.approx([1000 * LINE_CYCLES / 1.5e9 * 1e3, 0])
    assert memory.tolist() == pytest.approx([1000 * LINE_BYTES / (2 * 2.505e9 * COPYING_SHARE) * 1e3, 0])
    assert operators.tolist() == pytest.approx([START_CYCLES / 1.5e9 * 1e3, 0])
    idle = Work(none, none, none, none, np.array([True, False])).milliseconds(target, 4)
    assert not idle.any()


def test_a_comparison_names_the_largest_difference_first():
    """Of two files that differ in one operator, its type comes first, and parts and types say the same."""

    def file(conv_ms):
        operators = [
            {"type": "CONV_2D", "simulated_ms": [4 * conv_ms, conv_ms]},
            {"type": "ADD", "simulated_ms": [1.0, 1.0]},
        ]
        times = [
            {"threads": threads, "ms": ms + 1, "compute_ms": ms, "cache_ms": 0.0, "memory_ms": 1.0, "operators_ms": 0.0}
            for threads, ms in ((1, 4 * conv_ms), (4, conv_ms))
        ]
        return {"operators": operators, "simulated": times}

    found = compare(file(3.0), file(1.0))
    assert [each["ratio"] for each in found["ratios"]] == pytest.approx([5 / 13, 2 / 4])
    assert found["parts_ms"] == {"compute": -2.0, "cache": 0.0, "memory": 0.0, "operators": 0.0}
    assert list(found["types_ms"].items()) == [("CONV_2D", -2.0), ("ADD", 0.0)]


def test_a_board_without_facts_of_its_memory_cannot_be_simulated():
    """The message names the facts that are missing."""
    target = load_target("rpi4")
    cpu = target.cpu.model_copy(update={"memory_bandwidth_bytes_per_s": None})
    with pytest.raises(UsageError, match="not enough"):
        core_of(target.model_copy(update={"cpu": cpu}))


@pytest.mark.slow
def test_work_is_told_by_the_last_store(emulated_board, tmp_path):
    """Scratch memory lies where later results will: means of integers are still told apart as prefixes tell them."""
    tf_keras = pytest.importorskip("tf_keras")
    image = tf_keras.Input((8, 16), batch_size=1)
    model = tf_keras.Model(image, tf_keras.layers.LayerNormalization()(image))
    samples = np.random.default_rng(0).normal(0, 1, (4, 1, 8, 16)).astype("float32")
    path = tmp_path / "normalization.tflite"
    plan = QuantizationPlan("int8", "float", needs_samples=True)
    path.write_bytes(convert(model, plan, lambda: ([sample] for sample in samples)))
    target = load_target("rpi4")
    with Emulator("emulator://tflite-runtime") as device:
        traced = trace_by_operator(device, path.read_bytes(), "builtin", core_of(target), caches_of(target))
        counted = by_operator(device, path, "builtin")
    means = [number for number, operator in enumerate(counted) if operator["type"] == "MEAN"]
    assert means
    for number in means:
        assert traced.instructions[number] == pytest.approx(counted[number]["instructions"], rel=0.1)
