"""The adb home and benchmark_model: the real adb, against a double that speaks the wire protocol."""

import dataclasses
import threading
import time

import pytest

from edgeprune.devices.protocol import Job, open_device, tool_of
from edgeprune.errors import DeviceError, MissingError, ModelError, UsageError

NASTY = ["with space", "it's", 'a "quote"', "; touch tricked", "$(touch tricked)", "`id`", "new\nline", "-rf", "*", ""]
# The format of TensorFlow's benchmark_model; {median} stands for what newer releases add.
RESULT = """\
INFO: STARTING!
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: count=67 first=8781 curr=7197 min=6335 max=9775 avg=7514.93 std=419
INFO: count=50 first=7176 curr=7505 min=6373 max=7775 avg=7454.97 std=256{median}
INFO: Inference timings in us: Init: 16772, First inference: 8781, Warmup (avg): 7514.93, Inference (avg): 7454.97
INFO: Memory footprint delta from the start of the tool (MB): init=8.44922 overall=10.8789
"""
MEDIAN = " p5=6400 median=7401 p95=7700"


NEWER = RESULT.format(median=MEDIAN)


def binary(phone, text=NEWER, more=""):
    """A benchmark_model for the phone: notes its arguments and prints a result on both streams."""
    path = phone.folder / "a binary"
    path.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >>{phone.folder}/arguments\n{more}\ncat <<\'EOF\' >&2\n{text}\nEOF\n'
    )
    return path


@pytest.fixture
def job(tiny_files, phone):
    return Job((tiny_files["float32"],), threads=4, runs=60, benchmark_binary=binary(phone))


def arguments(phone):
    return (phone.folder / "arguments").read_text().splitlines()


def test_files_and_arguments_arrive_as_they_are(phone, tmp_path):
    """Nothing in an argument or a file's name is taken for shell; the folder is private and goes away."""
    with open_device(phone.address) as device:
        done = device.run(["printf", "%s\\0", *NASTY], timeout_s=60)
        assert done.stdout.decode().split("\0")[:-1] == NASTY
        content = bytes(range(256)) * 999
        for name in [word for word in NASTY if word]:
            (tmp_path / name).write_bytes(content)
            device.push(tmp_path / name, "file.bin")
            device.pull("file.bin", tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == content
        (folder,) = phone.home.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(phone.home.iterdir()) == []
    assert not list(phone.folder.rglob("tricked"))


def test_exit_codes_and_streams(phone):
    """The exit code of a program comes back, and its streams apart."""
    with open_device(phone.address) as device:
        done = device.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout_s=60)
    assert (done.code, done.stdout, done.stderr.strip()) == (7, b"out\n", "err")


def test_a_measurement(phone, job):
    """The user's binary is pushed and run with the settings; its figures come back, and nothing stays."""
    with open_device(phone.address) as device:
        (found,) = tool_of(device)(device, dataclasses.replace(job, profile_operators=True))
    assert found["device"] == "adb: Example Phone 7"
    assert (found["median_ms"], found["p95_ms"], found["runs"]) == (7.401, 7.7, 50)
    assert found["kernels"] == "xnnpack"
    assert found["runtime"].startswith("benchmark_model ")
    assert "--num_threads=4" in arguments(phone)
    assert "--enable_op_profiling=true" in arguments(phone)
    assert list(phone.home.iterdir()) == []


@pytest.mark.parametrize(
    ("delegate", "flag"),
    [("xnnpack", "--use_xnnpack=true"), ("builtin", "--use_xnnpack=false"), ("gpu", "--use_gpu=true")],
)
def test_delegates(phone, job, delegate, flag):
    """Each delegate is a flag of benchmark_model."""
    with open_device(phone.address) as device:
        tool_of(device)(device, dataclasses.replace(job, delegate=delegate))
    assert flag in arguments(phone)


def test_nnapi_that_took_nothing_is_not_called_nnapi(phone, job):
    """Where the delegate declined the graph, the kernels named are those that ran."""
    text = "Though NNAPI delegate is explicitly applied, the model graph will not be executed by the delegate.\n"
    declined = dataclasses.replace(job, delegate="nnapi", benchmark_binary=binary(phone, text + NEWER))
    with open_device(phone.address) as device:
        (found,) = tool_of(device)(device, declined)
    assert (found["kernels"], found["delegated"]) == ("xnnpack", "none")
    assert "--use_nnapi=true" in arguments(phone)


def test_two_files_take_turns(phone, job, tiny_files):
    """In a comparison, the order is turned round by round; an older release's mean is not called a median."""
    pair = dataclasses.replace(
        job,
        files=(tiny_files["float32"], tiny_files["int8"]),
        rounds=3,
        benchmark_binary=binary(phone, RESULT.format(median="")),
    )
    with open_device(phone.address) as device:
        a, b = tool_of(device)(device, pair)
    assert [line[-8] for line in arguments(phone) if line.startswith("--graph")] == list("011001")
    assert (a["median_ms"], a["mean_ms"], a["runs"]) == (None, pytest.approx(7.45497), 150)
    assert len(b["rounds_ms"]) == 3


def test_the_one_that_is_there_is_used(phone, job):
    """Without a binary given, the one in /data/local/tmp is run; without that, the error says where to get it."""
    with open_device(phone.address) as device:
        plain = dataclasses.replace(job, benchmark_binary=None)
        with pytest.raises(MissingError, match="android_aarch64_benchmark_model") as error:
            tool_of(device)(device, plain)
        assert error.value.exit_code == 3
        there = phone.home / "benchmark_model"
        there.write_bytes(binary(phone).read_bytes())
        there.chmod(0o755)
        (found,) = tool_of(device)(device, plain)
    assert found["median_ms"] == 7.401
    assert there.exists()


def test_what_the_tool_refuses(phone, job):
    """A file that benchmark_model refuses is a model error; a binary for another processor is a missing tool."""
    refused = "ERROR: Didn't find op for builtin opcode 'CONV_2D' version '99'.\nFailed to construct interpreter\n"
    with open_device(phone.address) as device:
        with pytest.raises(ModelError, match="CONV_2D"):
            tool_of(device)(device, dataclasses.replace(job, benchmark_binary=binary(phone, refused)))
        with pytest.raises(MissingError, match="for that processor"):
            tool_of(device)(device, dataclasses.replace(job, benchmark_binary=binary(phone, "", "exit 126")))
        with pytest.raises(UsageError, match="accuracy"):
            tool_of(device)(device, dataclasses.replace(job, samples=binary(phone)))
        with pytest.raises(UsageError, match="edgetpu"):
            tool_of(device)(device, dataclasses.replace(job, delegate="edgetpu"))


def test_a_phone_that_is_unplugged(phone, job):
    """adb itself ends with 0 when the phone goes away mid-run; it is an error all the same, and rounds are kept."""
    slow = dataclasses.replace(
        job, rounds=3, benchmark_binary=binary(phone, more=f"[ -e {phone.folder}/x ] && sleep 60; :>{phone.folder}/x")
    )

    def unplug():
        while not (phone.folder / "x").exists() or len(arguments(phone)) < 8:
            time.sleep(0.1)
        time.sleep(0.5)
        phone.process.kill()

    killer = threading.Thread(target=unplug)
    killer.start()
    with pytest.raises(DeviceError) as error, open_device(phone.address) as device:
        tool_of(device)(device, slow)
    killer.join()
    assert error.value.exit_code == 3
    (kept,) = error.value.results
    assert (kept["complete"], kept["median_ms"], kept["runs"]) == (False, 7.401, 50)


def test_phones_that_are_not_there(phone):
    """An unknown serial says how to list devices; what is no serial is a usage error."""
    with pytest.raises(DeviceError, match="adb does not find it") as error, open_device("adb://0123456789"):
        pass
    assert "adb devices" in str(error.value)
    for address in ("adb://", "adb://-s", "adb://a b", "adb://a;id"):
        with pytest.raises(UsageError):
            open_device(address)
