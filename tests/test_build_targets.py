"""A build for several targets: one report, in which each target is judged for itself."""

import json

import pytest

import edgeprune
from edgeprune.recipe.load import parse_recipe
from edgeprune.report.boards import picks_lines
from edgeprune.selection import Limits

RECIPE = parse_recipe({"quantize": {"modes": ["int8"]}}, "mine.toml")


@pytest.fixture(scope="module")
def built(tiny_model, tmp_path_factory):
    """The report and the folder of a build for a slow board, an accelerator and a faster board."""
    folder = tmp_path_factory.mktemp("targets") / "run"
    report = edgeprune.build(
        tiny_model, data="demo", recipe=RECIPE, target=["rpi3", "coral-usb", "rpi4"], out=folder,
        limits=Limits(max_latency=0.1),
    )  # fmt: skip
    return report, folder


def test_each_target_has_its_gates_and_picks(built):
    """A limit of latency is missed by the board that is too slow, and met by the other."""
    report, _ = built
    rpi3, coral, rpi4 = report.targets
    assert [one.name for one in report.targets] == ["rpi3", "coral-usb", "rpi4"]
    for board in report.targets:
        estimate = next(v for v in report.variants if v.name == board.pick).targets[board.name].latency.estimated
        (gate,) = board.gates
        assert gate.value == estimate.median_ms
        assert gate.passed == (estimate.median_ms <= 0.1)
    assert (coral.pick, rpi4.pick) == ("int8@coral-usb", "int8")
    assert rpi3.gates == report.gates
    assert rpi3.picks == report.picks
    assert not report.passed


def test_figures_of_the_first_target_stand_where_those_of_one_do(built):
    """What a report of one target says of a variant is said of the first."""
    report, _ = built
    for variant in report.variants:
        assert variant.latency.estimated == variant.targets["rpi3"].latency.estimated
        assert variant.targets["rpi3"].latency.estimated.median_ms > variant.targets["rpi4"].latency.estimated.median_ms
    on_chip = next(v for v in report.variants if v.name == "int8@coral-usb")
    assert on_chip.targets["coral-usb"].placement.accelerator_ops > 0
    assert on_chip.targets["rpi4"].placement is None


def test_the_folder_has_the_pick_of_each_target(built):
    """Each target's file and script lie beside each other; the views have the matrix."""
    report, folder = built
    for name, pick in (("tiny", "int8"), ("tiny-rpi4", "int8"), ("tiny-coral-usb", "int8@coral-usb")):
        variant = next(v for v in report.variants if v.name == pick)
        assert (folder / f"{name}.tflite").read_bytes() == (folder / variant.file).read_bytes()
        assert (folder / f"run_{name.replace('-', '_')}.py").is_file()
    assert "| int8@coral-usb |" in (folder / "report.md").read_text()
    assert len(picks_lines(report)) == 3


def test_a_build_for_one_of_them_makes_the_same_file(built, tiny_model, tmp_path):
    """The file for a target is that of a build for it alone, whose report knows nothing of several targets."""
    _, folder = built
    alone = edgeprune.build(tiny_model, data="demo", recipe=RECIPE, target="coral-usb", out=tmp_path / "run")
    assert (tmp_path / "run" / "tiny.tflite").read_bytes() == (folder / "tiny-coral-usb.tflite").read_bytes()
    document = json.loads((tmp_path / "run" / "report.json").read_text())
    assert "targets" not in document
    assert all("targets" not in variant for variant in document["variants"])
    assert alone.pick == "int8"
