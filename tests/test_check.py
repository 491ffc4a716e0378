"""`edgeprune check`: before any training, what is in the way of sparse inference, layer by layer."""

import json
import subprocess
import sys

import pytest

from edgeprune.check import check
from edgeprune.data import demo_model
from edgeprune.target import load_target


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "edgeprune", "check", *arguments], capture_output=True, text=True)


def test_the_demo_qualifies_and_says_what_will_be_rewritten():
    """The verdict first, the runtime second, then every layer; the two strided ones are rewritten by the build."""
    findings = check(demo_model(), load_target("rpi4"))["sparse_inference"]
    assert findings[0].severity == "info"
    assert "4 1x1 convolutions hold 17,280 of 22,954 parameters" in findings[0].what
    assert [one.where for one in findings if one.severity == "warning"] == ["runtime of rpi4"]
    rewritten = {one.where for one in findings if one.fix and one.fix.startswith("nothing to do")}
    assert rewritten == {"stem_conv", "down_dwconv"}
    assert {"wide_conv", "head_conv", "pool", "classes"} <= {one.where for one in findings}


def test_what_is_in_the_way_is_named_with_what_to_change(tiny_model):
    """A 3x3 convolution inside, a grey image, no stride: each at its layer."""
    findings = check(tiny_model, load_target("rpi4"))["sparse_inference"]
    assert findings[0].severity == "warning"
    assert "GlobalAveragePooling2D" in findings[0].fix
    found = {one.where: one.what for one in findings if one.severity == "warning"}
    assert found["conv2d"] == "is the stem, on 1 input channels"
    assert found["conv2d_1"] == "is a 3x3 convolution behind the stem"


def test_json_and_table_from_the_command_line(tmp_path):
    """One document with --json; a table without; exit code 0, and 2 for a file that is not there."""
    demo_model().save(tmp_path / "demo.keras")
    done = run(str(tmp_path / "demo.keras"), "--target", "rpi4", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["target"] == "rpi4"
    assert {row["checker"] for row in document["findings"]} == {"sparse_inference"}
    assert "stem_conv" in run(str(tmp_path / "demo.keras"), "--target", "rpi4").stdout
    missing = run(str(tmp_path / "missing.tflite"), "--target", "rpi4")
    assert missing.returncode == 2
    assert "missing.tflite" in missing.stderr


@pytest.mark.parametrize("target", ["coral"])
def test_a_target_without_arm_has_nothing_to_check(target):
    """No checker applies, and none runs."""
    assert check(demo_model(), load_target(target)) == {}
