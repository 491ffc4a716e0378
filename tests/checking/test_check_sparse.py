"""`edgeprune check` on sparse inference: before any training, what is in the way, layer by layer."""

import json

import pytest
from commands import run

from edgeprune.checking.sparse import sparse_inference
from edgeprune.target import load_target, with_runtime


@pytest.fixture
def findings(tmp_path):
    """A function from a model and a format to what is found for rpi4."""
    from edgeprune.checking.trial import trial_subject

    def find(model, mode="float32"):
        target = with_runtime(load_target("rpi4"), "tflite-runtime 2.14.0")
        return sparse_inference(trial_subject(model, target, mode, tmp_path), target)

    return find


def test_the_demo_qualifies_and_says_what_will_be_rewritten(findings):
    """The verdict first, the runtime second, then every layer; the two strided ones are rewritten by the build."""
    from edgeprune.data import demo_model

    found = findings(demo_model())
    assert "4 1x1 convolutions hold 17,280 of 22,954 parameters" in found[0].what
    assert "tflite-runtime 2.14.0" in found[1].what
    rewritten = {name for one in found if one.fix and one.fix.startswith("nothing to do") for name in one.where}
    assert rewritten == {"stem_conv", "down_dwconv"}
    assert {"wide_conv", "head_conv", "pool", "classes"} <= {name for one in found for name in one.where}


def test_what_is_in_the_way_is_named_with_what_to_change(findings, tiny_model):
    """A 3x3 convolution inside, a grey image, no stride: each at its layer."""
    found = findings(tiny_model)
    assert "GlobalAveragePooling2D" in found[0].fix
    at = {name: one.what for one in found for name in one.where}
    assert "is the stem, on 1 input channels" in at["conv2d"]
    assert "is a 3x3 convolution behind the stem" in at["conv2d_1"]


def test_integers_have_no_sparse_kernels(findings, tiny_model):
    """Nothing is said of the int8 conversion of a model."""
    assert findings(tiny_model, "int8") == []


def test_json_and_text_from_the_command_line(tmp_path):
    """The findings stand among all others of the target, each with its checker."""
    from edgeprune.data import demo_model

    demo_model().save(tmp_path / "demo.keras")
    done = run("check", tmp_path / "demo.keras", "--target", "rpi4", "--json")
    assert done.returncode == 0, done.stderr
    found = [row for row in json.loads(done.stdout)["findings"] if row["checker"] == "sparse inference"]
    assert found[0]["what"].startswith("Sparse inference is possible")
    assert any("stem_conv" in row["where"] for row in found)
