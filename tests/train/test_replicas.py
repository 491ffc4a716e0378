"""Training on several devices: two logical ones of a processor, against one; each in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from matrix import representatives

from edgeprune.errors import RecipeError
from edgeprune.recipe.load import parse_recipe

# What is around the training; the first ones are sums over samples, which several devices only add in another order.
SUMS = ("plain", "teacher", "penalized", "regrown")
# Batch normalization, dropout and ranges see their device's part of a batch; zeros are not made by tfmot on several.
ALIKE = ("normalized", "int8", "pruned")
CASES = (*SUMS, *ALIKE)
# What acts within an epoch. What each device sees alone is near what one sees, and no more can be said of it.
ALWAYS = ("regrown",)


@pytest.fixture(scope="module")
def printed(request, tmp_path_factory):
    """What ``mirrored.py`` prints of the cases that tests of this run ask for: each takes eight seconds."""
    own = (item for item in request.session.items if item.path == request.path and hasattr(item, "callspec"))
    asked = {item.callspec.params.get("case") for item in own}
    script, folder = Path(__file__).with_name("mirrored.py"), tmp_path_factory.mktemp("mirrored")
    command = [sys.executable, script, folder, *(case for case in CASES if case in asked)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def found(printed):
    return printed["cases"]


@pytest.mark.parametrize("case", representatives(SUMS, *ALWAYS))
def test_two_devices_learn_what_one_does(found, case):
    """Weights are the same to rounding, masks that gradients decide included."""
    assert found[case]["replicas"] == 2
    assert found[case]["difference"] < 1e-5


@pytest.mark.parametrize("case", representatives(ALIKE))
def test_what_each_device_sees_alone_leaves_the_figures_alike(found, case):
    """The loss is the same within noise."""
    alone, mirrored = found[case]["losses"]
    assert mirrored == pytest.approx(alone, rel=0.02)


@pytest.mark.parametrize("case", representatives(CASES, *ALWAYS))
def test_zeros_are_made_on_two_devices(found, case):
    """Half of the weights, where that is asked for; none elsewhere."""
    assert found[case]["zeros"] == (0.5 if case in ("regrown", "pruned") else 0)


@pytest.mark.parametrize("case", representatives(CASES, *ALWAYS))
def test_resumed_equals_unbroken(found, case):
    """On two devices as on one: to the last bit."""
    assert found[case]["resumes"]


def test_batches_that_cannot_be_divided_are_refused(printed):
    """The message names the nearest batch size that can."""
    assert "batch_size = 33" in printed["refused"]
    assert "write batch_size = 32" in printed["refused"]


def test_lessons_about_whole_batches_are_refused():
    """[distill] features compares samples with each other, and each device has a part of them."""
    sections = {"finetune": {"strategy": "mirrored"}, "distill": {"features": 1}}
    with pytest.raises(RecipeError, match="divides batches among devices"):
        parse_recipe(sections, "mine")
