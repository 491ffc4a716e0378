"""A build for several targets: one report, in which each target is judged for itself."""

import json
import shutil

import pytest
import quick

import edgeprune
from edgeprune.errors import ModelError
from edgeprune.report.boards import picks_lines
from edgeprune.report.schema import parse
from edgeprune.selection import Limits

RECIPE = quick.INT8


@pytest.fixture(scope="module")
def built(tiny_model, tmp_path_factory):
    """The report and the folder of a build for a board, an accelerator and a faster board."""
    folder = tmp_path_factory.mktemp("targets") / "run"
    report = edgeprune.build(
        tiny_model, data="demo", recipe=RECIPE, target=["rpi4", "coral-usb", "rpi5"], out=folder,
        limits=Limits(max_latency=0.1),
    )  # fmt: skip
    return report, folder


def test_each_target_has_its_gates_and_picks(built):
    """A limit of latency is missed by the accelerator, whose link alone takes longer, and met by the others."""
    report, _ = built
    assert [one.name for one in report.targets] == ["rpi4", "coral-usb", "rpi5"]
    for board in report.targets:
        assert board.pick in board.variants
        estimate = next(v for v in report.variants if v.name == board.pick).targets[board.name].latency.estimated
        (gate,) = board.gates
        assert (gate.value, gate.passed) == (estimate.median_ms, estimate.median_ms <= 0.1)
    assert [board.gates[0].passed for board in report.targets] == [True, False, True]
    first = report.targets[0]
    assert (first.gates, first.picks, first.pick) == (report.gates, report.picks, report.pick)
    assert not report.passed


def test_figures_of_the_first_target_stand_where_those_of_one_do(built):
    """What a report of one target says of a variant is said of the first."""
    report, _ = built
    for variant in report.variants:
        assert variant.latency.estimated == variant.targets["rpi4"].latency.estimated
        assert variant.targets["rpi4"].latency.estimated.median_ms > variant.targets["rpi5"].latency.estimated.median_ms
    on_chip = next(v for v in report.variants if v.name == "int8@coral-usb")
    assert on_chip.targets["coral-usb"].placement.accelerator_ops > 0
    assert on_chip.targets["rpi4"].placement is None


def test_the_folder_has_the_pick_of_each_target(built):
    """Each target's file and script lie beside each other; the views have the matrix."""
    report, folder = built
    for name, board in zip(("tiny", "tiny-coral-usb", "tiny-rpi5"), report.targets, strict=True):
        variant = next(v for v in report.variants if v.name == board.pick)
        assert (folder / f"{name}.tflite").read_bytes() == (folder / variant.file).read_bytes()
        assert (folder / f"run_{name.replace('-', '_')}.py").is_file()
    assert "| int8@coral-usb |" in (folder / "report.md").read_text()
    assert len(picks_lines(report)) == 3


@pytest.mark.slow  # of models that are gone: test_build_formats.py
def test_a_folder_used_again_has_no_picks_of_targets_that_are_gone(built, tiny_model, tmp_path):
    """The pick for another target of an earlier build would be taken for a result of this one."""
    out = shutil.copytree(built[1], tmp_path / "run")
    (out / "micro-other").mkdir()
    (out / "mine.tflite").write_bytes(b"of the user")
    edgeprune.build(tiny_model, data="demo", recipe=RECIPE, target="rpi4", out=out)
    assert {path.name for path in out.glob("*.tflite")} == {"tiny.tflite", "mine.tflite"}
    assert not (out / "micro-other").exists()


@pytest.mark.slow
def test_a_build_for_one_of_them_makes_the_same_files(built, tiny_model, tmp_path):
    """The files for a target are those of a build for it alone, whose report knows nothing of several targets."""
    _, folder = built
    out = tmp_path / "run"
    edgeprune.build(tiny_model, data="demo", recipe=RECIPE, target="coral-usb", out=out)
    for name in ("float32", "int8"):
        together = folder / "variants" / f"tiny-{name}@coral-usb.tflite"
        assert (out / "variants" / f"tiny-{name}.tflite").read_bytes() == together.read_bytes()
    document = json.loads((out / "report.json").read_text())
    assert "targets" not in document
    assert all("targets" not in variant for variant in document["variants"])


def test_a_file_that_fails_on_one_board_is_missing_there_only(tiny_model, tmp_path, monkeypatch):
    """The other board keeps the variant; the report says where it is missing, and picks without it there."""
    from edgeprune.profiling import profile as module

    genuine = module.profile

    def fail_there(path, target, *arguments, **options):
        if target.name == "rpi5" and "int8" in str(path):
            raise ModelError("It cannot be read there.")
        return genuine(path, target, *arguments, **options)

    monkeypatch.setattr(module, "profile", fail_there)
    with pytest.raises(ModelError, match="cannot be read there"):
        edgeprune.build(tiny_model, data="demo", recipe=RECIPE, target=["rpi4", "rpi5"], out=tmp_path)
    report = parse(json.loads((tmp_path / "report.json").read_text()))
    assert [entry.name for entry in report.missing] == ["int8 on rpi5"]
    assert [board.variants for board in report.targets] == [["float32", "int8"], ["float32"]]
    assert list(report.variants[1].targets) == ["rpi4"]
    assert "| int8 |" in (tmp_path / "report.md").read_text()
