"""The emulated board for real: the runtimes' aarch64 builds under QEMU, in the folder that setup made."""

import copy
import io
import itertools
import json
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from matrix import representatives
from partitions import PROGRAM, boundaries_predicted

from edgeprune.builder import build
from edgeprune.cli import edgeprune
from edgeprune.convert.converter import convert
from edgeprune.devices.bench import bench
from edgeprune.devices.emulator import Emulator
from edgeprune.devices.emulator_home import RUNTIMES
from edgeprune.devices.instructions import _count, by_operator, measure
from edgeprune.devices.protocol import Job
from edgeprune.errors import DeviceError, ModelError, UsageError
from edgeprune.evaluate.sample import load_sample
from edgeprune.prune.sparse.prepare import prepare, require_qualified
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.recipe.config import DataConfig, WeightsConfig
from edgeprune.report.schema import validate
from edgeprune.stages.sparse import check_sparse, choose_layers

SHARED = Path(__file__).parents[2].parent / "shared"
IMAGES = 25


pytestmark = pytest.mark.usefixtures("emulated_board")


@pytest.fixture(scope="module")
def sparse_and_dense(tmp_path_factory):
    """A small MobileNetV1 as `sparse_inference` prepares it: dense, and with 80 % of its 1x1 weights zero."""
    tf_keras = pytest.importorskip("tf_keras")
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    image = layers.Input((64, 64, 3))
    x = layers.ReLU()(layers.Conv2D(16, 3, 2, "same")(image))
    for channels, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        x = layers.ReLU()(layers.DepthwiseConv2D(3, stride, "same")(x))
        x = layers.ReLU()(layers.Conv2D(channels, 1)(x))
    prepared = prepare(tf_keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x))))
    require_qualified(prepared)
    model, folder = prepared.model, tmp_path_factory.mktemp("sparse")
    dense, sparse = folder / "dense.tflite", folder / "sparse.tflite"
    dense.write_bytes(convert(model, QuantizationPlan("float32", "float", needs_samples=False)))
    layers = [layer.name for layer in prepared.model.layers]
    names = choose_layers(prepared.analysis.pointwise, WeightsConfig(sparsity=0.8), layers)
    for layer in map(model.get_layer, names):
        kernel, bias = layer.get_weights()
        kernel[np.abs(kernel) < np.quantile(np.abs(kernel), 0.8)] = 0
        layer.set_weights([kernel, bias])
    sparse.write_bytes(convert(model, QuantizationPlan("float32", "float", needs_samples=False, sparse=True)))
    check_sparse(sparse, model, names)
    return dense, sparse


@pytest.fixture(scope="module")
def _counts():
    return {}


@pytest.fixture
def counted_once(_counts, monkeypatch):
    """What was counted for one test is not counted again for another: two counts are the same, and take seconds.

    A test that clears what this is has files counted anew.
    """

    def remembered(device, files, delegate, samples):
        if samples is not None:
            return _count(device, files, delegate, samples)
        key = device.runtime, *(file.read_bytes() for file in files), delegate
        if key not in _counts:
            _counts[key] = _count(device, files, delegate, samples)
        return copy.deepcopy(_counts[key])

    monkeypatch.setattr("edgeprune.devices.instructions._count", remembered)
    return _counts


def counts(address, files):
    with Emulator(address) as device:
        return [result["instructions"] for result in measure(device, Job(tuple(files)))]


@pytest.mark.slow
def test_two_runs_count_the_same_and_leave_nothing(tiny_files, counted_once):
    """The same file gives the same count to the last instruction, alone or after another one; the folder is removed."""
    with Emulator() as device:
        first = measure(device, Job((tiny_files["int8"],)))[0]
        folder = device.folder
    assert not folder.exists()
    counted_once.clear()
    both = counts("emulator", [tiny_files["float32"], tiny_files["int8"]])
    assert first["instructions"] == both[1] > 1000
    assert (first["device"], first["runtime"], first["threads"]) == ("emulator: Cortex-A72", "ai-edge-litert 2.1.6", 1)
    assert not any(key.endswith("_ms") for key in first)


def test_operators_add_up_to_the_whole(tiny_files, counted_once):
    """Every operator has a positive part, and the parts' sum is the file's count within a part in a hundred."""
    with Emulator() as device:
        whole = measure(device, Job((tiny_files["int8"],), delegate="builtin"))[0]
        parts = by_operator(device, tiny_files["int8"], "builtin")
    assert [part["type"] for part in parts] == ["CONV_2D", "DEPTHWISE_CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX"]
    assert all(part["instructions"] > 0 for part in parts)
    assert sum(part["instructions"] for part in parts) == pytest.approx(whole["instructions"], rel=0.01)
    assert whole["kernels"] == "builtin"


@pytest.mark.slow
def test_a_sparse_file_has_no_table_of_operators(sparse_and_dense, counted_once):
    """The parts of a sparse graph mean nothing, and some do not run: the file is counted, and a warning says why."""
    found = bench("emulator", Job((sparse_and_dense[1],), profile_operators=True))
    assert found["results"][0]["instructions"] > 1000
    assert "operators" not in found["results"][0]
    assert "sparse.tflite: there is no table of operators" in found["warnings"][0]


@pytest.mark.slow  # of two releases, not of this code; tests/hardware/xnnpack has the rules
def test_sparse_inference_depends_on_the_runtime(sparse_and_dense, counted_once):
    """80 % zeros save a third of the instructions or more under ai-edge-litert 2.1.6, none under tflite-runtime."""
    dense, sparse = counts("emulator", sparse_and_dense)
    assert dense / sparse >= 1.5
    dense, sparse = counts("emulator://tflite-runtime", sparse_and_dense)
    assert dense / sparse == pytest.approx(1, abs=1e-3)


@pytest.fixture(scope="module")
def release_file(tmp_path_factory):
    """A float file with operators of which XNNPACK's releases differ, each an output of its own."""
    tf = pytest.importorskip("tensorflow")

    @tf.function(input_signature=[tf.TensorSpec([1, 4, 4, 16])])
    def network(x):
        positive = tf.abs(x) + 1.0
        return {
            "rsqrt": tf.math.rsqrt(positive),
            "mean": tf.reduce_mean(x, [-1]),
            "sum": tf.reduce_sum(x, [1, 2]),
            "exp": tf.exp(x),
            "max": tf.reduce_max(x, [1, 2]),
            "gelu": tf.nn.gelu(x),
            "log": tf.math.log(positive),
            "concat": tf.concat([x, positive, -x, x * x, x / positive], -1),
            "matmul": tf.matmul(x, positive, transpose_b=True),
        }

    path = tmp_path_factory.mktemp("release") / "operators.tflite"
    converter = tf.lite.TFLiteConverter.from_concrete_functions([network.get_concrete_function()])
    path.write_bytes(converter.convert())
    return path


FOUR_RUNTIMES = ("tflite-runtime 2.14.0", "ai-edge-litert 1.2.0", "ai-edge-litert 1.4.0", "ai-edge-litert 2.1.6")


# The last release that runs int8 without XNNPACK; with it, in test_each_runtime_hands_on_what_its_rules_say.
@pytest.mark.parametrize(
    ("dtype", "emulated_runtime"),
    representatives(
        itertools.product(["float32", "int8"], FOUR_RUNTIMES),
        ("int8", FOUR_RUNTIMES[0]),
    ),
    indirect=["emulated_runtime"],
)
def test_kernels_are_those_that_profile_names(tiny_files, emulated_runtime, dtype, counted_once):
    """Where profile says built-in kernels, a runtime's count is that without XNNPACK; where it says XNNPACK, not."""
    from edgeprune.profiling.profile import profile
    from edgeprune.target import load_target, with_runtime

    board = with_runtime(load_target("rpi4"), emulated_runtime)
    with Emulator(f"emulator://{emulated_runtime}") as device:
        given, without = (
            measure(device, Job((tiny_files[dtype],), delegate=delegate))[0] for delegate in ("default", "builtin")
        )
    expected = profile(tiny_files[dtype], board).latency.estimated.kernels
    assert (given["runtime"], given["kernels"]) == (emulated_runtime, expected)
    is_same = given["instructions"] == pytest.approx(without["instructions"], rel=1e-3)
    assert is_same == (expected == "builtin")


@pytest.mark.parametrize(
    "emulated_runtime", representatives(FOUR_RUNTIMES, FOUR_RUNTIMES[0], FOUR_RUNTIMES[3]), indirect=True
)
def test_each_runtime_hands_on_what_its_rules_say(artifacts, release_file, emulated_runtime):
    """The parts of files of every format that a runtime gives to XNNPACK are those of the rules for its release."""
    from edgeprune.hardware.delegates import book_of
    from edgeprune.target import load_target, with_runtime
    from edgeprune.tflite.flatbuffer import read

    files = [artifacts[name] for name in ("float32", "float16", "dynamic", "int8", "int8-io", "lstm")] + [release_file]
    with Emulator(f"emulator://{emulated_runtime}") as device:
        names = [device.push(file, f"{number}.tflite") for number, file in enumerate(files)]
        done = device.run([device.python, "-c", PROGRAM, *names], timeout_s=600)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    book = book_of("xnnpack", with_runtime(load_target("rpi4"), emulated_runtime).runtime)
    ran = {file.stem: parts for file, parts in zip(files, found, strict=True) if isinstance(parts, list)}
    assert ran == {file.stem: boundaries_predicted(read(file).subgraphs[0], book) for file in files if file.stem in ran}
    assert {"float32", "float16", "int8", "int8-io", "lstm", "operators"} <= set(ran)


@pytest.mark.slow
def test_odd_channels_cost_by_release(tmp_path):
    """60 channels of a float 1x1 convolution take more than 64 where the rules for the release say so."""
    tf_keras = pytest.importorskip("tf_keras")
    from edgeprune.hardware.latency.features import pairs_channels
    from edgeprune.target import load_target, with_runtime

    files = []
    for channels in (60, 64):
        image = tf_keras.Input((8, 8, 64), batch_size=1)
        model = tf_keras.Model(image, tf_keras.layers.Conv2D(channels, 1)(image))
        files.append(tmp_path / f"{channels}.tflite")
        files[-1].write_bytes(convert(model, QuantizationPlan("float32", "float", needs_samples=False)))
    for runtime in RUNTIMES:
        odd, even = counts(f"emulator://{runtime}", files)
        name = next(name for name in FOUR_RUNTIMES[::-1] if name.startswith(runtime))
        assert (odd > 1.2 * even) == pairs_channels(with_runtime(load_target("rpi4"), name).runtime)


@pytest.fixture(scope="module")
def resnet8(tmp_path_factory):
    """Files of ResNet8 in float and in int8, and random test images with their labels."""
    tf, tf_keras = pytest.importorskip("tensorflow"), pytest.importorskip("tf_keras")
    source, archive = SHARED / "models/resnet8_cifar10_jpeg.h5", SHARED / "data/cifar10-jpeg.tar.gz"
    if not (source.is_file() and archive.is_file()):
        pytest.skip(f"needs {source.name} and {archive.name} in {SHARED}")
    images, labels = _images(archive)
    model = tf_keras.models.load_model(source, compile=False)
    folder = tmp_path_factory.mktemp("resnet8")
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (folder / "float.tflite").write_bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    (folder / "int8.tflite").write_bytes(converter.convert())
    files = [folder / "float.tflite", folder / "int8.tflite"]
    splits = dict.fromkeys(("train", "validation", "test"), (images, labels))
    return files, load_sample(files, splits, DataConfig())


def _images(archive):
    from PIL import Image

    with tarfile.open(archive) as tar:
        # Read on the way: going back would decompress the archive from the start.
        wanted = (one for one in tar if "/test/" in one.name and one.name.endswith(".jpg"))
        members = [(one.offset, one.name, tar.extractfile(one).read()) for one in wanted]
    chosen = sorted(random.Random(0).sample(members, IMAGES))
    classes = sorted({Path(name).parent.name for _, name, _ in members})
    pixels = [np.asarray(Image.open(io.BytesIO(content)), np.float32) for _, _, content in chosen]
    order = np.random.default_rng(0).permutation(IMAGES)
    labels = np.array([classes.index(Path(name).parent.name) for _, name, _ in chosen])
    return np.stack(pixels)[order], labels[order]


@pytest.mark.slow  # figures on the board: tests/snippets/test_figures.py
def test_outputs_on_arm_are_those_of_the_host(resnet8):
    """Float and int8 files put all of 25 test images, or all but one, into the same class on ARM kernels as here."""
    files, sample = resnet8
    found = bench("emulator", Job(tuple(files)), sample=sample)
    for result in found["results"]:
        assert result["accuracy"]["samples"] == IMAGES
        assert result["accuracy"]["top1_agreement"] >= 1 - 1 / IMAGES
        assert result["accuracy"]["accuracy"] > 0.75
    floats, integers = (result["instructions"] for result in found["results"])
    assert integers < floats


def test_a_gate_on_instructions_decides_the_exit_code(tiny_files, tmp_path, monkeypatch, counted_once):
    """bench prints the count as JSON, without times, and exits with 1 when it is above --max-instructions."""
    monkeypatch.chdir(tmp_path)
    words = ["bench", str(tiny_files["int8"]), "--device", "emulator", "--json", "--max-instructions"]
    broken = CliRunner().invoke(edgeprune, [*words, "10"])
    assert broken.exit_code == 1
    document = json.loads(broken.stdout)
    count = document["results"][0]["instructions"]
    assert document["gates"] == [
        {"file": str(tiny_files["int8"]), "name": "max_instructions", "limit": 10, "value": count, "passed": False}
    ]
    assert CliRunner().invoke(edgeprune, [*words, str(count)]).exit_code == 0
    assert not (tmp_path / "measurements.csv").exists()


def test_options_for_times_do_not_stop_a_count(tiny_files, tmp_path, monkeypatch, counted_once):
    """A target with four threads, and a table that could take no row, do not matter to the emulator."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "measurements.csv").write_text("something else\n")
    words = ["bench", str(tiny_files["int8"]), "--device", "emulator", "--target", "rpi4", "--json"]
    done = CliRunner().invoke(edgeprune, words, catch_exceptions=False)
    (result,) = json.loads(done.stdout)["results"]
    assert (result["threads"], result["target"]) == (1, "rpi4")
    assert (tmp_path / "measurements.csv").read_text() == "something else\n"


@pytest.mark.slow  # a count beside a variant: test_variants.py
def test_a_build_counts_every_variant(tiny_model, tmp_path):
    """`build --device emulator` puts a count beside each variant in report and table, and no latency of that board."""
    report = build(tiny_model, data="demo", recipe="float", target="rpi4", out=tmp_path / "out", device="emulator")
    validate(report)
    for variant in report["variants"]:
        assert variant["instructions"]["count"] > 1000
        assert variant["instructions"]["device"] == "emulator: Cortex-A72"
        assert all(entry["device"].startswith("host: ") for entry in variant["latency"]["measured"])
    assert "ai-edge-litert 2.1.6 on an emulated Cortex-A72" in (tmp_path / "out/report.html").read_text()


def test_a_refused_file_is_an_error_about_the_model(tmp_path):
    """What the runtime over there refuses is a ModelError with its words, not a crash."""
    (tmp_path / "broken.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))
    with Emulator() as device, pytest.raises(ModelError, match="ai-edge-litert"):
        measure(device, Job((tmp_path / "broken.tflite",)))


def test_the_device_keeps_the_protocol(tmp_path):
    """A program's exit code, output and working folder are as on any device; time limits hold; names are checked."""
    (tmp_path / "in.txt").write_text("7")
    with Emulator() as device:
        device.push(tmp_path / "in.txt", "in.txt")
        code = "import sys, platform; open('out.txt', 'w').write(open('in.txt').read() * 2); print(platform.machine())"
        done = device.run(["python3", "-c", code + "; sys.exit(3)", "$(x); '"], timeout_s=300)
        assert (done.code, done.stdout) == (3, b"aarch64\n")
        device.pull("out.txt", tmp_path / "out.txt")
        assert (tmp_path / "out.txt").read_text() == "77"
        with pytest.raises(DeviceError, match="did not end within 1 s"):
            device.run(["python3", "-c", "while True: pass"], timeout_s=1)
        with pytest.raises(ValueError, match="plain file name"):
            device.push(tmp_path / "in.txt", "../in.txt")
        with pytest.raises(UsageError, match="threads"):
            measure(device, Job((tmp_path / "x.tflite",), threads=4))
