import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune.errors import TargetError
from edgeprune.target import load_target, target_names
from edgeprune.tflite.versions import PACKAGES

FOLDER = Path(__file__).parents[1] / "targets"
# Path of a number: the range that a real board can lie in, in the unit of its name.
RANGES = {
    "threads": (1, 64),
    "cpu.cores": (1, 64),
    "cpu.clock_hz": (1e7, 5e9),
    "cpu.l1d_bytes": (2**12, 2**18),
    "cpu.l2_bytes": (2**16, 2**25),
    "cpu.l3_bytes": (2**18, 2**27),
    "cpu.memory_bandwidth_bytes_per_s": (1e8, 2e11),
    "cpu.macs_per_cycle.float32": (1, 64),
    "cpu.macs_per_cycle.float16": (1, 128),
    "cpu.macs_per_cycle.int8": (1, 256),
    "accelerator.clock_hz": (1e7, 5e9),
    "accelerator.peak_macs_per_s": (1e9, 1e15),
    "accelerator.parameter_cache_bytes": (2**16, 2**30),
    "accelerator.activation_memory_bytes": (2**16, 2**30),
    "accelerator.link_bytes_per_s": (1e6, 1e11),
    "accelerator.power_w": (0.1, 100),
    "micro.flash_bytes": (2**16, 2**26),
    "micro.ram_bytes": (2**14, 2**24),
    "channel_multiple.float32": (1, 64),
    "channel_multiple.float16": (1, 64),
    "channel_multiple.int8": (1, 64),
    "channel_block.int8": (1, 256),
}
MINIMAL = """
name = "mine"
title = "My board"
threads = 2
runtime = {package = "ai-edge-litert", version = "2.1.6"}
quantization = {io = "float"}
sources = {threads = "counted"}
"""


def numbers(table, prefix=""):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{prefix}{key}.")
        elif type(value) in (int, float):
            yield prefix + key, value


@pytest.mark.parametrize("name", target_names())
def test_every_number_has_a_source_and_a_sane_value(name):
    """Each number of a target names where it was read, and lies in the range of real boards."""
    target = load_target(name)
    found = dict(numbers(target.model_dump(mode="json", exclude={"sources", "latency"})))
    assert found
    for path, value in found.items():
        assert len(target.sources[path]) > 10, path
        low, high = RANGES[path]
        assert low <= value <= high, path


# Seconds per unit of a kind of work, by the unit that its name ends with: from a fast phone to a slow microprocessor.
SECONDS = {
    "macs": (1e-12, 1e-8),
    "elements": (1e-11, 5e-8),
    "bytes": (1e-11, 5e-8),
    "rows": (1e-9, 1e-6),
    "cycles": (1e-10, 1e-8),
    "operators": (1e-7, 1e-4),
    "inferences": (1e-5, 1e-2),
}


@pytest.mark.parametrize("name", target_names())
def test_coefficients_lie_where_processors_do(name):
    """Every coefficient is in the range of its unit, ranges are neither tight nor useless, derived ones are wider."""
    latency = load_target(name).latency
    tables = [t for t in (latency.builtin, latency.xnnpack, latency.edgetpu) if t] if latency else []
    for table in tables:
        assert 1.05 <= table.range_factor <= 3
        assert (table.measurements > 0) == (table.origin == "fitted")
        for path, seconds in numbers(table.seconds_per.model_dump()):
            low, high = SECONDS[path.rsplit("_", 1)[-1].rsplit(".", 1)[-1]]
            assert low <= seconds <= high, path


def test_faster_boards_have_smaller_coefficients():
    """Products of both number formats get cheaper from the Raspberry Pi Zero 2 W over 3 and 4 to 5."""
    boards = [load_target(name).latency for name in ("rpi-zero2w", "rpi3", "rpi4", "rpi5")]
    for dtype in ("float32", "int8"):
        for kernels in ("builtin", "xnnpack"):
            macs = [getattr(getattr(board, kernels).seconds_per, dtype).conv_macs for board in boards]
            assert macs == sorted(macs, reverse=True), (dtype, kernels)


@pytest.mark.parametrize("name", target_names())
def test_targets_are_consistent(name):
    """A target stands in the file of its name, has a runtime of a known kind, and round-trips through JSON."""
    target = load_target(name)
    assert (FOLDER / f"{name}.toml").is_file()
    assert target.runtime.package in PACKAGES or target.micro
    assert type(target).model_validate(target.model_dump(mode="json")) == target
    assert load_target(FOLDER / f"{name}.toml") == target


def test_inputs_and_outputs_of_int8_files():
    """Boards with a CPU take floats; the Edge TPU wants integers throughout."""
    assert [load_target(name).quantization.io for name in ("rpi4", "android", "coral")] == ["float", "float", "uint8"]


def test_aliases_name_one_target_each():
    """An alias loads its target; no alias is a name or another target's alias."""
    targets = [load_target(name) for name in target_names()]
    words = [*target_names(), *(alias for target in targets for alias in target.aliases)]
    assert len(set(words)) == len(words)
    assert load_target("edgetpu") is load_target("coral") is load_target("coral-usb")
    assert load_target("android") is load_target("android-arm64")
    assert load_target("coral-dev").name == "coral-dev"


@pytest.mark.parametrize("name", target_names())
def test_compilers_are_known(name):
    """A target's compiler has a module; what has no prediction is required."""
    from edgeprune.hardware.compilers import COMPILERS
    from edgeprune.hardware.target_placement import PREDICTORS

    compiler = load_target(name).compiler
    if compiler is not None:
        assert compiler.name in COMPILERS
        assert compiler.required == (compiler.name not in PREDICTORS)


def test_an_unknown_target_names_the_nearest_and_all():
    """A typing error is answered with the nearest name and the list."""
    with pytest.raises(TargetError, match=r"did you mean 'rpi4'\?") as error:
        load_target("rpi-4")
    assert all(name in str(error.value) for name in target_names())


def test_a_target_of_ones_own(tmp_path):
    """A TOML file with what is known is a target; what nobody measured is left out."""
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    target = load_target(path)
    assert (target.name, target.cpu, dict(target.channel_multiple)) == ("mine", None, {})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("threads = 2", "threads = 0"), "threads: Input should be greater than 0"),
        (('io = "float"', 'io = "int4"'), "quantization.io: Input should be 'float', 'int8' or 'uint8'"),
        (("title", "titel"), "titel: Extra inputs are not permitted"),
        (('threads = "counted"', ""), "no source for threads"),
        (('threads = "counted"', 'threads = "counted", cpu = "x"'), "a source for cpu, which is not in the file"),
        (("threads = 2", "threads = "), "is not valid TOML"),
        (('version = "2.1.6"', 'version = "latest"'), "runtime.version"),
    ],
)
def test_wrong_files_are_refused(tmp_path, change, complaint):
    """Values out of range, unknown keys, numbers without source and broken TOML are errors that name the place."""
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL.replace(*change))
    with pytest.raises(TargetError, match=r"mine\.toml") as error:
        load_target(path)
    assert complaint in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    """The path of a TOML file that is not there is a target error."""
    with pytest.raises(TargetError, match="cannot be read"):
        load_target(tmp_path / "absent.toml")


def test_targets_are_frozen():
    """Facts cannot be changed by accident, nested tables included."""
    target = load_target("rpi4")
    with pytest.raises(TypeError):
        target.channel_multiple["int8"] = 1
    with pytest.raises(ValueError, match="frozen"):
        target.cpu.cores = 1


def test_targets_load_without_tensorflow():
    """Reading a target imports neither TensorFlow nor a runtime."""
    code = (
        "import sys, edgeprune.target; edgeprune.target.load_target('coral');"
        "sys.exit(', '.join({'tensorflow', 'ai_edge_litert', 'tflite'} & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
