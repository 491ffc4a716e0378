"""Builds with quantization-aware training and clustering; zeros and clusters are counted in the files."""

import json
import shutil

import numpy as np
import pytest
from matrix import representatives

import edgeprune
from edgeprune.recipe.load import parse_recipe
from edgeprune.tflite.flatbuffer import parse, read
from edgeprune.tflite.size import kernels

# Recipe → the variants that it adds to float32 and int8.
RECIPES = {
    "qat": ["qat-int8"],
    "pqat": ["magnitude-qat-int8"],
    "cluster-int8": ["cluster-float32", "cluster-int8"],
    "pcqat": ["magnitude-cluster-qat-int8"],
    "filters-qat": ["filters-qat-int8"],
    "compact": ["filters-qat-int8"],
}
# Recipe → the one whose first stages are its own, too; of the others, those of int8 are.
SHARES = {"pqat": "pcqat", "compact": "filters-qat"}
CLUSTERS = 8
FILTERS = ("filters-qat", "compact")


@pytest.fixture(scope="module")
def model_file(tiny_model, tmp_path_factory):
    """The trained model, once for all builds."""
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    tiny_model.save(path)
    return path


@pytest.fixture(scope="module")
def builds(model_file, tmp_path_factory):
    """Run folder and report by recipe; each is built when it is first asked for, from what it shares with another."""
    done = {}

    def build(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            if name != "int8":
                begin(folder, builds=build, name=SHARES.get(name, "int8"))
            done[name] = folder, edgeprune.build(model_file, data="demo", recipe=recipe(name), out=folder)
        return done[name]

    return build


def begin(folder, builds, name="int8"):
    """Let a build in ``folder`` reuse the stages that it has in common with the recipe of this name."""
    shutil.copytree(builds(name)[0] / "stages", folder / "stages")


def recipe(name, **changes):
    table = {
        "extends": [name],
        "data": {"scale": 1 / 255},
        "finetune": {"epochs": 1},
        "calibration": {"samples": 32, "range": "minmax"},
        "quantize": {"rounding": "nearest"},
        **({"filters": {"max_macs": 0.44, "steps": 1, "samples": 128}} if name in FILTERS else {}),
        **({"cluster": {"n_clusters": CLUSTERS}} if "cluster" in name or name == "pcqat" else {}),
        **({"qat": {"epochs": 1}} if "qat" in name or name in FILTERS else {}),
        **changes,
    }
    return parse_recipe(table, f"{name}.toml")


# compact is filters-qat with a teacher (test_distillation_reuse_and_keras_3_work). qat and pqat are parts of pcqat, and
# so is cluster-int8, but for its scales (tests/quantize/test_cluster.py).
ALWAYS = ("pcqat",)
ZEROS, TRAINED = ("pqat", "pcqat"), [name for name in RECIPES if "qat" in name]


def rows(report):
    return {row["name"]: row for row in report["variants"]}


def stored_kernels(folder, report, name):
    return kernels(read(folder / rows(report)[name]["file"]))


@pytest.mark.parametrize("name", representatives(RECIPES, *ALWAYS))
def test_every_recipe_runs_and_stays_accurate(builds, name):
    """The variants are named after the chain, are within ten points of float, and near their Keras model."""
    _, report = builds(name)
    found = rows(report)
    assert list(found) == ["float32", "int8", *RECIPES[name]]
    for variant in RECIPES[name]:
        assert found[variant]["metric"]["value"] > found["float32"]["metric"]["value"] - 0.1
        assert found[variant]["parity"]["top1_agreement"] > 0.95
        assert not found[variant]["warnings"]


@pytest.mark.parametrize("name", representatives(TRAINED, "pcqat"))
def test_trained_files_are_int8_throughout(builds, name):
    """Every operator computes in int8; inputs and outputs are as the target wants them."""
    from edgeprune.convert.findings import float_operators
    from edgeprune.target import load_target

    folder, report = builds(name)
    path = folder / rows(report)[RECIPES[name][-1]]["file"]
    assert float_operators(path.read_bytes()) == []
    graph = read(path).subgraphs[0]
    wanted = {"int8": "int8", "float": "float32"}[load_target("rpi4").quantization.io]
    assert {graph.tensors[index].dtype for index in (*graph.inputs, *graph.outputs)} == {wanted}


@pytest.mark.parametrize("name", representatives(ZEROS, "pcqat"))
def test_zeros_survive_training_and_conversion(builds, name):
    """Half of the weights of every kernel are zero in the flatbuffer."""
    folder, report = builds(name)
    for kernel in stored_kernels(folder, report, RECIPES[name][-1]):
        assert kernel.sparsity >= 0.5 - 1 / kernel.size, kernel


def test_clusters_survive_training_and_conversion(builds):
    """After PCQAT a kernel holds at most as many different int8 numbers as there are clusters."""
    folder, report = builds("pcqat")
    for kernel in stored_kernels(folder, report, "magnitude-cluster-qat-int8"):
        assert kernel.distinct <= CLUSTERS, kernel


@pytest.mark.slow
def test_clusters_without_training_for_int8_are_kept_in_every_channel(builds):
    """Post-training int8 has a scale per channel, so the promise is per channel; in float it is per kernel."""
    folder, report = builds("cluster-int8")
    for kernel in stored_kernels(folder, report, "cluster-int8"):
        assert kernel.channel_distinct <= CLUSTERS, kernel
    for kernel in stored_kernels(folder, report, "cluster-float32"):
        assert kernel.distinct <= CLUSTERS, kernel


@pytest.mark.parametrize("names", ["int8 pcqat", pytest.param("qat pqat pcqat", marks=pytest.mark.slow)])
def test_what_is_preserved_is_visible_after_compression(builds, names):
    """Zeros shorten the compressed file, zeros and clusters shorten it more."""
    sizes = [rows(builds(name)[1])[RECIPES.get(name, [name])[-1]]["gzip_bytes"] for name in names.split()]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.85 * sizes[0]


@pytest.mark.parametrize("name", representatives(["qat", "pcqat"], "pcqat"))
def test_the_trained_model_is_an_ordinary_keras_model(builds, name):
    """The .keras file loads without tfmot's classes, and its weights are on the int8 grid."""
    folder, _ = builds(name)
    chain = RECIPES[name][-1].removesuffix("-int8")
    model = edgeprune.load_model(folder / "models" / f"tiny-{chain}.keras")
    assert {type(layer).__name__ for layer in model.layers} & {"QuantizeLayer", "QuantizeWrapperV2"} == set()
    kernel = model.get_layer("conv2d_1").kernel.numpy()
    # Kernels of clusters have one scale for all channels.
    scale = np.abs(kernel).max(None if "cluster" in chain else (0, 1, 2)) / 127
    np.testing.assert_allclose(kernel / scale, np.round(kernel / scale), atol=1e-3)


@pytest.mark.slow  # calibration that ranges begin with is tests/calibration
def test_any_calibration_goes_with_training(model_file, builds, tmp_path):
    """The samples of the first ranges are in the manifest; the file has the ranges that training left."""
    from edgeprune.convert.converter import convert
    from edgeprune.quantize.plan import QuantizationPlan

    begin(tmp_path, builds)
    calibration = {"samples": "auto", "strategy": "coverage", "range": "percentile", "percentile": 95}
    report = edgeprune.build(
        model_file, data="demo", recipe=recipe("qat", calibration=calibration, qat={"epochs": 0}), out=tmp_path
    )
    indices = json.loads((tmp_path / "manifest.json").read_text())["calibration"]["qat-int8"]
    assert len(set(indices)) == len(indices) >= 32
    graph = read(tmp_path / rows(report)["qat-int8"]["file"]).subgraphs[0]
    io = {"float32": "float", "int8": "int8"}[graph.tensors[graph.inputs[0]].dtype]
    trained = edgeprune.load_model(tmp_path / "models" / "tiny-qat.keras")
    found = convert(trained, QuantizationPlan("int8", io, needs_samples=True, ranges_in_model=True))
    assert activation_scales(graph) == activation_scales(parse(found).subgraphs[0])


def activation_scales(graph):
    return {t.name: t.quantization.scale for t in graph.tensors if t.quantization and not t.constant}


@pytest.mark.slow  # each is in a build of its own: distilled in test_build_filters.py
def test_distillation_reuse_and_keras_3_work(model_file, builds, tmp_path):
    """With [distill] the training runs, a second build reuses it, and Keras 3 computes what the trained model does."""
    begin(tmp_path, builds)
    taught = recipe("qat", distill={})
    first = edgeprune.build(model_file, data="demo", recipe=taught, out=tmp_path, export_keras3=True)
    assert (tmp_path / "models" / "tiny-qat.keras3.keras").is_file()  # written only if its outputs are the same
    again = edgeprune.build(model_file, data="demo", recipe=taught, out=tmp_path)
    assert all(stage["reused"] for stage in again["stages"])
    assert [row["sha256"] for row in first["variants"]] == [row["sha256"] for row in again["variants"]]


def test_a_model_without_use_for_it_falls_back_and_says_why(tmp_path):
    """A recurrent model gets the post-training file, and its variant the reason."""
    import tf_keras

    layers = tf_keras.layers
    inputs = layers.Input([16, 16, 1])
    x = layers.LSTM(8, unroll=True)(layers.Reshape([2, 128])(inputs))
    model = tf_keras.Model(inputs, layers.Dense(10, activation="softmax")(x), name="recurrent")
    report = edgeprune.build(model, data="demo", recipe=recipe("qat"), out=tmp_path)
    (warning,) = rows(report)["qat-int8"]["warnings"][:1]
    assert "LSTM" in warning
    assert "after training" in warning
    assert json.loads((tmp_path / "report.json").read_text())["variants"][-1]["warnings"][0] == warning
