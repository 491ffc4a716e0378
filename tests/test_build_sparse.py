"""`edgeprune build --recipe sparse` on the demo: stored sparse, smaller, verified; refused where it cannot be."""

import json

import numpy as np
import pytest
from commands import run

from edgeprune.errors import RecipeError, VerificationError
from edgeprune.recipe.config import WeightsConfig
from edgeprune.recipe.load import load_recipe, parse_recipe
from edgeprune.stages.sparse import check_sparse, choose_layers


def build(folder, *options):
    return run("build", "--target", "rpi4", "--json", *options, cwd=folder)


@pytest.fixture(scope="module")
def built(tmp_path_factory, begin_demo):
    folder = tmp_path_factory.mktemp("sparse")
    begin_demo(folder / "run")
    (folder / "edgeprune.toml").write_text('extends = ["sparse"]\n[finetune]\nepochs = 5\n')
    done = build(folder, "--out", "run")
    assert done.returncode == 0, done.stderr
    return folder / "run", json.loads(done.stdout)


def test_the_file_is_sparse_and_half_the_size(built):
    """80 % of the 1x1 weights are zero and stored sparse, nothing else is pruned, the path is expected to be on."""
    rows = {row["name"]: row for row in built[1]["variants"]}
    assert list(rows) == ["float32", "magnitude-float32-sparse"]
    sparse = rows["magnitude-float32-sparse"]
    assert sparse["bytes"] < 0.5 * rows["float32"]["bytes"]
    assert sparse["sparse_path"]["expected"]
    assert sparse["sparse_path"]["zero_share"] == pytest.approx(0.8, abs=0.01)
    pruned = [kernel for kernel in sparse["kernels"] if kernel["expected_kernels"] == "sparse"]
    assert len(pruned) == 4
    for kernel in sparse["kernels"]:
        assert kernel["encoding"] == ("sparse" if kernel in pruned else "dense")
        assert (kernel["sparsity"] > 0.79) == (kernel in pruned)
    assert sum(kernel["stored_bytes"] for kernel in pruned) < 0.35 * 4 * sum(kernel["weights"] for kernel in pruned)
    assert sparse["metric"]["value"] > 0.9
    assert sparse["parity"]["top1_agreement"] == 1.0
    assert rows["float32"]["sparse_path"] is None


def test_the_report_shows_the_kernels(built):
    """rpi4's ai-edge-litert uses it: no warning about the runtime; the HTML says which kernels are expected."""
    warnings = built[1]["variants"][1]["warnings"]
    assert not any("tflite-runtime" in text for text in warnings)
    html = (built[0] / "report.html").read_text()
    assert "Sparse inference is expected" in html
    assert "Expected kernels" in html


def test_what_was_rewritten_is_kept(built):
    """The stage before pruning says which layers changed and which are pruned."""
    facts = json.loads((built[0] / "stages" / "magnitude.prepare_sparse" / "artifact.json").read_text())["facts"]
    assert set(facts["sparse_inference"]["changed"]) == {"stem_conv", "down_dwconv"}
    assert facts["sparse_inference"]["layers"] == ["wide_conv", "residual_conv", "down_conv", "head_conv"]


def test_check_says_that_the_path_is_on(built):
    """The same verdict from the command that users ask."""
    file = next((built[0] / "variants").glob("*-sparse.tflite"))
    done = run("check", file, "--target", "rpi4")
    assert "Sparse inference will be on" in done.stdout


def test_a_dense_file_fails_the_verification(built):
    """The unpruned variant does not pass for one that is stored sparse."""
    import edgeprune

    model = edgeprune.load_model(built[0] / "models" / "demo-magnitude.keras")
    layers = ["wide_conv", "head_conv"]
    check_sparse(next((built[0] / "variants").glob("*-sparse.tflite")), model, layers)
    with pytest.raises(VerificationError, match="wide_conv, head_conv"):
        check_sparse(built[0] / "variants" / "demo-float32.tflite", model, layers)


def test_other_weights_do_not_pass_for_the_layers(built):
    """The zeros in the file must be where those of the model are."""
    import edgeprune

    model = edgeprune.load_model(built[0] / "models" / "demo-magnitude.keras")
    layer = model.get_layer("head_conv")
    layer.set_weights([np.roll(layer.get_weights()[0], 1, axis=2)])
    with pytest.raises(VerificationError, match="head_conv"):
        check_sparse(next((built[0] / "variants").glob("*-sparse.tflite")), model, ["head_conv"])


def test_a_model_that_cannot_qualify_is_refused_before_training(tiny_model, tmp_path):
    """Exit code 2, every layer in the way by name, nothing trained."""
    tiny_model.save(tmp_path / "tiny.keras")
    done = build(tmp_path, "tiny.keras", "--data", "demo", "--recipe", "sparse", "--out", "run")
    assert done.returncode == 2
    assert "conv2d_1 is a 3x3 convolution behind the stem" in done.stderr
    assert not (tmp_path / "run" / "stages" / "magnitude").exists()


@pytest.mark.parametrize(
    "table",
    [
        {"weights": {"sparse_inference": True, "sparsity": 0.6}},
        {"weights": {"sparse_inference": True, "sparsity": 0.8}, "quantize": {"modes": ["int8"]}},
    ],
)
def test_recipes_that_cannot_lead_there_are_refused(table):
    """Too few zeros, or no float file."""
    with pytest.raises(RecipeError, match="sparse_inference needs"):
        parse_recipe(table, "test")


def test_excluding_too_much_is_refused():
    """Two thirds are counted over all 1x1 convolutions, the excluded ones too."""
    from edgeprune.hardware.xnnpack.sparse_inference import Node

    nodes = [Node(name, "Conv2D", "convolution", (), (), weights=size) for name, size in (("a", 100), ("b", 900))]
    assert choose_layers(nodes, WeightsConfig(sparsity=0.8, exclude=("a",)), ["a", "b"]) == ["b"]
    with pytest.raises(RecipeError, match="With b left dense"):
        choose_layers(nodes, WeightsConfig(sparsity=0.8, exclude=("b",)), ["a", "b"])


def test_a_pattern_that_matches_nothing_is_refused():
    """As without sparse inference; a layer that is not a 1x1 convolution may be named."""
    from edgeprune.hardware.xnnpack.sparse_inference import Node

    nodes, layers = [Node("wide", "Conv2D", "convolution", (), (), weights=100)], ["stem", "wide", "head"]
    assert choose_layers(nodes, WeightsConfig(sparsity=0.8, exclude=("head",)), layers) == ["wide"]
    with pytest.raises(RecipeError, match=r"'haed' in \[weights\] exclude matches no layer"):
        choose_layers(nodes, WeightsConfig(sparsity=0.8, exclude=("haed",)), layers)


def test_the_built_in_recipe():
    """80 %, for sparse kernels."""
    recipe = load_recipe("sparse")
    assert recipe.weights.sparsity == 0.8
    assert recipe.weights.sparse_inference
