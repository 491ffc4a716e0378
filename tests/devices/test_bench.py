"""edgeprune bench, from the command line to the device and back."""

import csv
import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from commands import follows_schema, run
from tiny_files import Given, tflite_of

from edgeprune.devices.bench import bench
from edgeprune.devices.host import Host
from edgeprune.devices.protocol import DEVICES, Job
from edgeprune.errors import DeviceError, ModelError, UsageError
from edgeprune.evaluate.sample import load_sample
from edgeprune.recipe.config import DataConfig
from edgeprune.target import load_target
from edgeprune.tflite.prefixes import prefixes

FIGURES = {"median_ms", "p95_ms", "init_ms", "first_ms", "runs", "threads", "runtime", "kernels", "device", "sha256"}


def command(*arguments, cwd):
    return run("bench", *arguments, cwd=cwd)


def rows(folder):
    with (folder / "measurements.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_on_the_host(tiny_files, tmp_path):
    """--json prints one document with the figures and nothing else, and a row is added to the table that is named."""
    words = [
        "bench",
        tiny_files["int8"],
        "--device",
        "host",
        "--target",
        "rpi4",
        "--json",
        "--append",
        "measurements.csv",
    ]
    process = [sys.executable, "-m", "edgeprune", *map(str, words)]
    done = subprocess.run(process, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    follows_schema(["bench"], found)
    (result,) = found["results"]
    assert result.keys() >= FIGURES
    assert (result["threads"], result["target"]) == (4, "rpi4")
    (row,) = rows(tmp_path)
    assert float(row["median_ms"]) == result["median_ms"]
    assert (tmp_path / row["file"]).resolve() == tiny_files["int8"]


def test_over_ssh(tiny_files, tmp_path, sshd):
    """Over ssh, a file with any name is measured and compared with another one, as a table for people."""
    odd = tmp_path / "-it's; $(id)\n.tflite"
    odd.write_bytes(tiny_files["int8"].read_bytes())
    files = [tiny_files["float32"], odd]
    done = command(
        "--device", sshd.address, "--python", sys.executable, "--append", "measurements.csv", "--compare", "--", *files,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "times as long as float32.tflite" in " ".join(done.stdout.split())
    assert "95% interval" in " ".join(done.stdout.split())
    assert [row["delegate"] for row in rows(tmp_path)] == ["xnnpack", "xnnpack"]


@pytest.fixture
def data(tmp_path):
    """60 images of 8x8x3 as an .npz."""
    x = np.random.default_rng(0).random((60, 8, 8, 3), np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(60) % 4)
    return tmp_path / "data.npz"


@pytest.mark.slow  # over ssh above; --json and accuracy on the host
def test_over_ssh_as_json(tiny_files, tmp_path, sshd, data):
    """Over ssh, --json prints one document, with the accuracy there when data is given."""
    words = [*tiny_files.values(), "--device", sshd.address, "--python", sys.executable, "--data", data, "--json"]
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["device"]["address"] == sshd.address
    for result in found["results"]:
        assert result.keys() >= FIGURES
        assert result["device"].startswith("ssh: ")
        assert result["accuracy"]["top1_agreement"] == 1
        assert result["accuracy"]["samples"] > 0


def test_rows_are_what_a_fit_reads(tiny_files, tmp_path):
    """measurements.csv as bench writes it, with three files, is what `edgeprune targets fit` makes a target of."""
    shorter = tmp_path / "shorter.tflite"
    shorter.write_bytes(list(prefixes(tiny_files["float32"].read_bytes()))[2])
    done = command(
        *tiny_files.values(),
        shorter,
        "--device",
        "host",
        "--target",
        "rpi4",
        "--append",
        "measurements.csv",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    fitted = run("targets", "fit", "mine", "--from", "measurements.csv", cwd=tmp_path)
    assert fitted.returncode == 0, fitted.stderr
    assert "xnnpack: 3 measurements" in fitted.stdout
    assert load_target(str(tmp_path / "mine.toml")).name == "mine"


def test_no_board_in_the_cache(tiny_files, tmp_path, monkeypatch):
    """The emulator without its setup ends with 3 and names the command."""
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "empty"))
    done = command(tiny_files["int8"], "--device", "emulator", cwd=tmp_path)
    assert done.returncode == 3
    assert "edgeprune emulator setup" in done.stderr or "apt install" in done.stderr


def test_phones_and_tools_that_are_missing(tiny_files, tmp_path, phone):
    """No benchmark_model on the phone, and no phone, end with 3 and one message."""
    for address, word in ((phone.address, "--benchmark-binary"), ("adb://0123456789", "adb devices")):
        done = command(tiny_files["int8"], "--device", address, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (3, "")
        assert word in done.stderr
        assert "Traceback" not in done.stderr


def test_files_of_several_shapes_share_no_data(tiny_files, tmp_path, data):
    """With --data, a file whose inputs differ from the first one's ends with 2, before anything is measured."""
    tf, tf_keras = pytest.importorskip("tensorflow"), pytest.importorskip("tf_keras")
    flat, model = tmp_path / "flat.tflite", tf_keras.Sequential([tf_keras.layers.Dense(4, input_shape=[5])])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    flat.write_bytes(converter.convert())
    done = command(tiny_files["int8"], flat, "--device", "host", "--data", data, cwd=tmp_path)
    assert done.returncode == 2
    assert "int8.tflite takes 8x8x3, and flat.tflite takes 5." in done.stderr


def test_a_table_of_operators_that_nobody_has(tiny_files):
    """The runner refuses --operators instead of leaving it out, and names who has such a table."""
    with pytest.raises(UsageError, match="adb://SERIAL or emulator"):
        bench("host", Job((tiny_files["int8"],), profile_operators=True))


def test_on_android(tiny_files, tmp_path, phone):
    """Over adb, benchmark_model measures."""
    binary = tmp_path / "benchmark_model"
    binary.write_text(
        "#!/bin/sh\n"
        "echo count=50 first=7176 curr=7505 min=6373 max=7775 avg=7454.97 std=256 p5=6400 median=7401 p95=7700\n"
        "echo Inference timings in us: Init: 16772, First inference: 8781, Inference '(avg)': 7454\n"
    )
    arguments = [tiny_files["int8"], "--device", phone.address, "--benchmark-binary", binary, "--delegate", "gpu"]
    done = command(*arguments, "--json", "--append", "measurements.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["median_ms"] == 7.401
    (row,) = rows(tmp_path)
    assert (row["delegate"], row["device"]) == ("gpu", "adb: Example Phone 7")


def test_a_board_that_goes_away(tiny_files, tmp_path, sshd):
    """Exit code 3, and the rounds until then are printed and kept as a row."""
    arguments = [
        tiny_files["float32"],
        "--device",
        sshd.address,
        "--python",
        sys.executable,
        "--runs",
        2 * 10**6,
        "--json",
        "--append",
        "measurements.csv",
    ]

    def cut():
        while sshd.runner_seconds() < 3:  # of seven or more; a tenth of the runs takes up to one and a half
            time.sleep(0.1)
        sshd.cut()

    killer = threading.Thread(target=cut, daemon=True)
    killer.start()
    done = command(*arguments, cwd=tmp_path)
    killer.join(timeout=1)
    assert done.returncode == 3, done.stderr
    assert "broke" in done.stderr
    assert "Traceback" not in done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert not result["complete"]
    assert result["runs"] % (2 * 10**5) == 0
    assert [int(row["runs"]) for row in rows(tmp_path)] == [result["runs"]]


class Vanishing(Host):
    """This machine, but it goes away when the outputs of file number ``after`` are fetched."""

    after = 1

    def pull(self, name, local):
        Vanishing.after -= 1
        if Vanishing.after < 0:
            raise DeviceError("It is gone.")
        super().pull(name, local)


@pytest.fixture
def sample(tiny_files, data):
    return load_sample(tuple(tiny_files.values()), data, DataConfig())


@pytest.mark.parametrize("compare", [False, True])
def test_what_was_timed_is_kept_when_the_outputs_are_lost(tiny_files, monkeypatch, sample, compare):
    """A device that goes away after the runs: figures are kept, and an earlier file's accuracy."""
    monkeypatch.setitem(DEVICES, "host", f"{__name__}:Vanishing")
    monkeypatch.setattr(Vanishing, "after", 0 if compare else 1)
    rows = []
    with pytest.raises(DeviceError) as caught:
        bench("host", Job(tuple(tiny_files.values())), sample=sample, compare=compare, keep=rows.append)
    first, second = caught.value.results
    assert json.loads(json.dumps(caught.value.results))
    assert [result["complete"] for result in (first, second)] == [not compare, False]
    assert ("accuracy" in first, "accuracy" in second) == (not compare, False)
    assert min(result["median_ms"] for result in rows) > 0
    assert len(rows) == 2


def test_accuracy_on_the_device(tiny_files, data):
    """With data, accuracy there and here are measured on the same random samples, and the outputs compared."""
    files = (tiny_files["float32"], tiny_files["int8"])
    sample = load_sample(files, data, DataConfig(scale=1.0))
    found = bench("host", Job(files), sample=sample)
    for result in found["results"]:
        accuracy = result["accuracy"]
        assert accuracy["samples"] == sample.size > 0
        assert accuracy["accuracy"] == accuracy["host_accuracy"]
        assert (accuracy["top1_agreement"], accuracy["max_abs_error"]) == (1.0, 0.0)
        assert "outputs" not in result


def test_what_is_refused(tiny_files, tmp_path):
    """Damaged files never reach the device; --compare takes two; addresses and delegates are checked."""
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(tiny_files["float32"].read_bytes()[:500])
    with pytest.raises(ModelError):
        bench("ssh://nobody@127.0.0.1:1", Job((damaged,)))
    with pytest.raises(UsageError, match="two files"):
        bench("host", Job((tiny_files["float32"],)), compare=True)
    for address in ("nowhere", "host://x", "http://x"):
        with pytest.raises(UsageError, match="not the address of a device"):
            bench(address, Job((tiny_files["float32"],)))
    with pytest.raises(UsageError, match="no delegate"):
        bench("host", Job((tiny_files["float32"],), delegate="gpu"))


def test_python_and_runtime_that_are_missing(tiny_files, tmp_path, sshd):
    """No Python there, or one without a runtime, ends with 3 and says what to install."""
    from edgeprune.errors import MissingError

    with pytest.raises(MissingError, match="has no /no/python"):
        bench(sshd.address, Job((tiny_files["float32"],), python="/no/python"))
    bare = tmp_path / "bare python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(MissingError, match="pip install ai-edge-litert"):
        bench(sshd.address, Job((tiny_files["float32"],), python=str(bare)))


def test_a_file_that_kills_the_runtime_is_refused(tmp_path):
    """A death of the runner by a signal is an error of the file, which is named, and not of the device."""
    path = tmp_path / "deadly.tflite"
    tensors = [Given((1, 8), "int8", scale=0.1), Given((1, 8), "int8", scale=0.0)]
    path.write_bytes(tflite_of(tensors, [("QUANTIZE", (0,), (1,))], [0], [1]))
    done = command(path, "--device", "host", cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert "the runtime there does not survive deadly.tflite: its process crashed" in done.stderr
    assert "Traceback" not in done.stderr
