"""What stands in the terminal when a build is done."""

import io
from pathlib import Path

from rich.console import Console

from edgeprune.report.terminal import terminal


def printed(report, width=80, **options):
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(terminal(report, **options))
    return out.getvalue()


def test_every_variant_and_the_pick_are_told(report):
    """The table has each variant on a line of 80 characters, and the words say which is the pick and why."""
    text = printed(report)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    for variant in report["variants"]:
        assert any(variant["name"] in line and f"{100 * variant['metric']['value']:.2f} %" in line for line in lines)
    flat = " ".join(text.split())
    assert "The pick is magnitude-int8: 82.74 % accuracy" in flat
    assert "it is the smallest after compression" in flat
    assert "[1] Time of one inference, measured: host, ai-edge-litert 2.3.0, XNNPACK kernels, 1 thread" in flat
    assert "host is Example CPU" in flat
    assert "Gates: 2 of 2 passed." in flat
    assert "Warning: magnitude-int8: Half of the weights" in flat


def test_every_variation_can_be_printed(any_report):
    """Nothing is cut off, whatever is missing."""
    text = printed(any_report)
    assert "…" not in text
    assert "The pick is" in text


def test_a_long_metric_name_leaves_room_for_the_variants(report):
    """The head of a column is wrapped; the names below stay whole."""
    report["metric"]["name"] = "sparse_top_k_categorical_accuracy"
    firsts = [line.split()[0] for line in printed(report).splitlines() if "points" in line and "kB" in line]
    assert firsts[:3] == ["int8", "magnitude-float32", "magnitude-int8"]


def test_missed_gates_are_told(variations):
    """The reader sees which gate was missed, by what."""
    flat = " ".join(printed(variations["missed_gate"]()).split())
    assert "Gates: 1 of 3 missed (max_drop)." in flat
    assert "missed: Drop against the baseline 1.03 points of accuracy, at most 1.00 points of accuracy" in flat


def test_files_are_named_from_where_the_user_stands(report):
    """With the run folder, the paths can be copied."""
    assert str(Path("runs") / "x" / "sample-resnet8.tflite") in printed(report, folder=Path("runs/x"))
    assert "\n  report.html " in printed(report)


def test_a_file_that_its_device_cannot_run_yet_says_so(report):
    """Where the compiler of an accelerator is missing, it is named; what it made is the file for the device."""
    assert "the pick: this file goes to the device" in printed(report, 120)
    report["target"]["compiler"] = {"name": "edgetpu"}
    assert "the pick: this file goes to the device" in printed(report, 120)  # nothing of it is on the chip
    (picked,) = (variant for variant in report["variants"] if variant["name"] == report["pick"])
    picked["placement"] = {"accelerator_ops": 17, "cpu_ops": 0, "fully_mapped": True}
    text = printed(report, 120)
    assert "the pick, to be compiled for the device: edgetpu, see edgeprune doctor" in text
    assert "goes to the device" not in text
    made = {"file": "variants/x_edgetpu.tflite", "sha256": "0" * 64, "bytes": 9, "compiler": "edgetpu", "version": "16"}
    picked["compiled"] = {**made, "performance": None}
    lines = [line for line in printed(report, 120).splitlines() if "the pick" in line]
    assert "edgetpu.tflite" in lines[1]
    assert lines[1].endswith("compiled by edgetpu: this file goes to the device")
    assert lines[0].endswith("the pick")


def test_names_are_not_taken_for_markup(report):
    """A name in square brackets is printed, not obeyed."""
    report["model"]["name"] = "[red]model[/red]"
    report["warnings"] = ["[/nothing] closes"]
    text = printed(report)
    assert "[red]model[/red]" in text
    assert "[/nothing] closes" in text


def test_a_terminal_without_colours_gets_none(report):
    """Piped output has no escape codes."""
    assert "\x1b" not in printed(report)


def test_flips_are_told_in_three_lines(variations):
    """How many answers differ, and the class that lost most; nothing about them in a report without."""
    text = printed(variations["differing"]())
    flat = " ".join(text.split())
    assert "magnitude-int8 answers 109 of 300 test samples differently from float32: 109 right before" in flat
    assert "The class that lost most: class 2, recall 100.0 % → 0.0 %." in flat
    paragraph = next(part for part in text.split("\n\n") if "differently" in part)
    assert len(paragraph.strip().splitlines()) <= 3
    assert "differently" not in printed(variations["sample"]())
