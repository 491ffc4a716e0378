"""Where answers differ: the parts of report.json, pictures of samples, and the sections that show them."""

import io
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image

from edgeprune.report import write_views
from edgeprune.report.answer_plots import confusion_svg, residuals_svg
from edgeprune.report.answers import BOX_COLOURS, answers, figures_by_output, flips_line, worst_class_line
from edgeprune.report.blocks import Figures, Table
from edgeprune.report.outcomes import GAP, RANGES, describe_samples, outcomes, positions, thumbnails
from edgeprune.report.schema import Histogram, parse
from edgeprune.report.views import render
from edgeprune.tasks.task import Output

BINARY = Output("out", kind="classification", classes=2)


def tables(blocks):
    return {block.caption: block for block in blocks if isinstance(block, Table)}


def test_one_call_gives_all_parts(collected):
    """Summaries of both files, flips and names; the baseline as its own pick has no flips."""
    labels, scores = np.array([0, 1, 1]), np.array([[0.1], [0.8], [0.9]])
    before, after = collected(BINARY, labels, scores), collected(BINARY, labels, 1 - scores)
    parts = outcomes(before, after, ("no", "yes"), "out")
    assert parts["baseline"] == before.summary()
    assert parts["pick"] == after.summary()
    assert parts["class_names"] == ["no", "yes"]
    assert parts["flipped"]["broken"] == 3
    assert outcomes(before, before, None, "out")["flipped"] is None


def test_samples_carry_the_figures_of_their_own_inputs(collected, tmp_path):
    """Whatever order flips are in, each has range, mean and shape of its inputs, and the values where they are few."""
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(50, 3)), rng.normal(size=(50, 9, 4))]
    inputs[0][7, 1] = np.nan
    labels, scores = rng.integers(0, 2, 50), rng.random((50, 1))
    flips = outcomes(collected(BINARY, labels, scores), collected(BINARY, labels, 1 - scores), None, "out")["flipped"]
    chosen = positions(flips)
    assert chosen.tolist() == sorted(chosen.tolist()) != [sample["index"] for sample in flips["samples"]]
    describe_samples(flips, [array[chosen] for array in inputs], tmp_path)
    for sample in flips["samples"]:
        for array, figures in zip(inputs, sample["inputs"], strict=True):
            row = array[sample["index"]]
            assert figures["shape"] == list(row.shape)
            assert (figures["min"], figures["max"]) == (np.nanmin(row), np.nanmax(row))
            assert figures["mean"] == pytest.approx(np.nanmean(row))
        values = [None if np.isnan(value) else value for value in inputs[0][sample["index"]]]
        assert sample["inputs"][0]["values"] == values
        assert "values" not in sample["inputs"][1]
    json.dumps(flips, allow_nan=False)
    assert not list(tmp_path.iterdir())


def test_sound_is_shown_as_spectrograms(collected, tmp_path):
    """In place of inputs: low bands at the bottom, louder is brighter, in one scale; a note says what is shown."""
    labels, scores = np.array([0, 1, 1]), np.array([[0.1], [0.8], [0.9]])
    flips = outcomes(collected(BINARY, labels, scores), collected(BINARY, labels, 1 - scores), None, "out")["flipped"]
    values = np.zeros((3, 4, 8))
    values[:, 0, 2] = [1, 2, 4]
    describe_samples(flips, [np.zeros((3, 800))], tmp_path, spectrograms=values)
    pictures = [np.asarray(Image.open(tmp_path / f"samples/{i}.png").convert("L")).astype(int) for i in range(3)]
    assert pictures[0].shape == (64, 128)
    bright = [picture[-16:, 32:48] for picture in pictures]
    assert (np.diff([one.mean() for one in bright]) > 20).all()
    assert all(
        (one == one[0, 0]).all() and picture[:48].max() < 20 for one, picture in zip(bright, pictures, strict=True)
    )


@pytest.mark.parametrize(
    ("low", "high", "black", "white"),
    [(0, 1, 0, 1), (-1, 1, -1, 1), (0, 255, 0, 255), (0.1, 0.8, 0, 1), (-0.5, 0.9, -1, 1), (10, 200, 0, 255),
     (-120.0, 100.0, -128, 127), (-300.0, 700.0, -300, 700), (-0.5, 2.0, -0.5, 2.0)],
)  # fmt: skip
def test_pictures_show_the_pixels_in_any_range(low, high, black, white):
    """The usual range that all samples lie in and fill to an eighth goes from black to white, else each channel's
    own."""
    for channels in (1, 3, 4):
        rows = np.linspace(low, high, 2 * 8 * 6 * channels).reshape(2, 8, 6, channels)
        usual = (black, white) in RANGES
        lows = black if usual else rows[..., :3].min(axis=(0, 1, 2))
        highs = white if usual else rows[..., :3].max(axis=(0, 1, 2))
        for row, png in zip(rows, thumbnails(rows), strict=True):
            expected = np.broadcast_to((row[..., :3] - lows) / (highs - lows), (8, 6, 3))
            assert imread(io.BytesIO(png))[..., :3] == pytest.approx(expected, abs=0.003)


@pytest.mark.parametrize("shape", [(64, 64), (65, 30), (224, 300), (1, 500)])
def test_pictures_are_small_and_keep_what_is_seen(shape):
    """No side is longer than 64 pixels, the proportions stay, and a pixel is the mean of those that it stands for."""
    image = np.random.default_rng(0).random((1, *shape, 3))
    (png,) = thumbnails(image)
    small = imread(io.BytesIO(png))[..., :3]
    step = -(-max(shape) // 64)
    assert small.shape[:2] == tuple(-(-side // step) for side in shape)
    assert max(small.shape) <= 64
    assert small[-1, -1] == pytest.approx(
        image[0, (small.shape[0] - 1) * step :, (small.shape[1] - 1) * step :].mean(axis=(0, 1)), abs=0.003
    )
    assert png == thumbnails(image)[0]


def test_boxes_are_drawn_into_copies_side_by_side():
    """Each copy has the image, and its own boxes in the colour of their class; rows that fill up draw nothing."""
    image = np.zeros((1, 96, 192, 3))
    image[0, :, 100:] = 1
    boxes = [np.array([[0.25, 0.25, 0.5, 0.75, 1.0], [0, 0, 1, 1, -1]])], [np.zeros((0, 5))]
    (png,) = thumbnails(image, boxes=boxes)
    drawn = np.round(imread(io.BytesIO(png))[..., :3] * 255).astype(int)
    assert drawn.shape == (96, 2 * 192 + GAP, 3)
    left, gap, right = np.split(drawn, [192, 192 + GAP], axis=1)
    assert (gap == 255).all()
    assert (right == np.round(image[0] * 255)).all()
    changed = (left != right).any(-1)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (24, 71, 48, 95)
    assert not changed[26:70, 50:94].any()
    assert (left[changed] == BOX_COLOURS["blue"]).all()


def test_the_page_holds_the_pictures(pictured):
    """Each flipped image is part of report.html, which loads nothing; Markdown and report.json have no pictures."""
    report, folder = pictured
    assert len(list((folder / "samples").iterdir())) == len(report["flipped"]["samples"])
    write_views(report, folder)
    page = (folder / "report.html").read_text("utf-8")
    sources = re.findall(r'<img src="([^"]*)"', page)
    assert len(sources) == len(report["flipped"]["samples"])
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "img-src data:" in page
    assert "data:image" not in (folder / "report.md").read_text("utf-8") + json.dumps(report)
    assert "<img" not in render(parse(report), "report.html", Path("nowhere"))


def test_classes_stand_in_the_order_of_what_they_lost(pictured):
    """The class that lost most recall comes first, with the figures of both files."""
    report, _ = pictured
    (table,) = [table for caption, table in tables(answers(parse(report))).items() if "recall lost" in caption]
    pick, base = (report["variants"][i]["outcomes"]["logits"]["per_class"] for i in (3, 0))
    lost = [before["recall"] - after["recall"] for before, after in zip(base, pick, strict=True)]
    order = sorted(range(10), key=lambda index: -lost[index])
    assert [row[0].text for row in table.rows] == [report["class_names"][index] for index in order]
    worst = order[0]
    texts = [cell.text for cell in table.rows[0]]
    assert texts[2:4] == [f"{100 * figures[worst]['recall']:.1f} %" for figures in (base, pick)]
    assert texts[4] == f"−{100 * lost[worst]:.2f} points"
    assert worst_class_line(parse(report)).startswith(f"The class that lost most: {report['class_names'][worst]}")


def test_flipped_samples_show_both_answers(pictured):
    """In the order of report.json, with names, confidences, and in red what is wrong now."""
    report, _ = pictured
    table = next(table for caption, table in tables(answers(parse(report))).items() if "Samples" in caption)
    names = report["class_names"]
    for sample, row in zip(report["flipped"]["samples"], table.rows, strict=True):
        index, truth, before, after = row
        assert index.text == f"{sample['index']:,}"
        assert [truth.text, before.text, after.text] == [names[sample[key]] for key in ("label", "before", "after")]
        assert after.note == f"{100 * sample['confidence_after']:.1f} %"
        assert after.tone == ("bad" if sample["before"] == sample["label"] else "good")
    assert f"24 of {report['flipped']['total']}" in table.caption


def test_many_classes_are_cut_and_not_drawn(variations):
    """Above 25 classes there is no heat map, and the table has the 25 that lost most."""
    blocks = answers(parse(variations["masks"]()))
    assert not any(isinstance(block, Figures) for block in blocks)
    (table,) = [table for caption, table in tables(blocks).items() if "25 of 30 classes" in caption]
    assert len(table.rows) == 25
    titles = [column.title for column in table.columns]
    assert [titles.count(figure) for figure in ("Recall", "Precision", "F1", "IoU")] == [2, 2, 2, 2]


def test_regressions_show_residuals(variations):
    """Quantiles of both files, each value for itself, a drawing, and the numbers of samples that became worse."""
    report = variations["residuals"]()
    blocks = answers(parse(report))
    (table,) = [table for caption, table in tables(blocks).items() if caption.startswith("Residuals")]
    assert [row[0].text for row in table.rows][3:] == [f"magnitude-int8{end}" for end in ("", ", value 0", ", value 1")]
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert sum(isinstance(block, Figures) for block in blocks) == 1
    flips = report["flipped"]
    assert f"worse than float32 on {flips['broken']} of 500 test samples" in flips_line(parse(report))
    assert worst_class_line(parse(report)) == ""


def test_a_precision_that_is_not_defined_is_a_dash(variations):
    """A class that is never answered has no precision, and 0 % of recall."""
    (table,) = [t for caption, t in tables(answers(parse(variations["differing"]()))).items() if "recall" in caption]
    row = next(row for row in table.rows if row[0].text == "class 2")
    assert row[3].text == "0.0 %"
    assert row[6].text == "–"


def test_a_pick_that_is_the_baseline_has_no_flips(pictured):
    """Its figures by class are shown once, the weakest first."""
    report = json.loads(json.dumps(pictured[0]))
    report.update(pick="float32", flipped=None)
    del report["variants"][3]["outcomes"]
    shown = tables(answers(parse(report)))
    (caption,) = shown
    assert "least recall first" in caption
    assert flips_line(parse(report)) == worst_class_line(parse(report)) == ""


def test_an_unknown_order_of_samples_is_said(pictured):
    """Without flips of a pick that is another file than the baseline, the reader learns why."""
    report = {**pictured[0], "flipped": None}
    assert "not known" in flips_line(parse(report))


def test_several_outputs_are_told_apart(pictured):
    """Each output has its own tables, under its name, and the ids of drawings stay unique."""
    report = json.loads(json.dumps(pictured[0]))
    for index in (0, 3):
        outcome = report["variants"][index]["outcomes"]
        outcome["colour"] = outcome["logits"]
    captions = [caption for caption in tables(answers(parse(report))) if "recall" in caption]
    assert [caption.split(":")[0] for caption in captions] == ["logits", "colour"]
    assert "differently from float32 in logits" in flips_line(parse(report))
    ids = re.findall(r'\bid="([^"]*)"', render(parse(report), "report.html"))
    assert len(ids) == len(set(ids))


def test_all_metrics_stand_side_by_side(pictured, variations):
    """With more than one metric, every variant has each, with its change against the baseline; else no table."""
    (table,) = figures_by_output(parse(pictured[0]))
    assert [column.title for column in table.columns] == ["Variant", "Accuracy", "Log loss"]
    assert table.columns[2].note == "lower is better"
    assert [cell.text for cell in table.rows[3]] == ["magnitude-int8", "82.74 %", "0.5726"]
    assert [cell.note for cell in table.rows[3]][1:] == ["−1.03 points", "+1.8 % (worse)"]
    assert figures_by_output(parse(variations["sample"]())) == []
    report = json.loads(json.dumps(pictured[0]))
    for variant in report["variants"]:
        del variant["metrics"]["log_loss"]
    assert figures_by_output(parse(report)) == []


def test_names_of_classes_are_only_text(pictured):
    """Markup, mathematics and table bars in the data's names reach no view as such."""
    report = json.loads(json.dumps(pictured[0]))
    hostile = "<script>alert('x')</script>|[b]`{{7*7}}$x$*_"
    report["class_names"] = [f"{hostile}{index}" for index in range(10)]
    page, markdown = render(parse(report), "report.html"), render(parse(report), "report.md")
    assert "<script" not in page + markdown
    for table in re.findall(r"(?:^\|.*\n)+", markdown, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_a_matrix_is_drawn_cell_by_cell():
    """One square per pair that occurs, in the colour of right or wrong, with its count; the same bytes each time."""
    matrix = [[90, 10, 0], [0, 0, 0], [5, 0, 95]]
    svg = confusion_svg(matrix, ["a", "b", "c"], "m")
    assert svg == confusion_svg(matrix, ["a", "b", "c"], "m")
    ElementTree.fromstring(svg)
    squares = re.findall(r"fill: var\(--(accent|bad)\); opacity", svg)
    assert sorted(squares) == ["accent", "accent", "bad", "bad"]
    assert all(f">{count}<" in svg for count in (90, 10, 5, 95))
    assert ">10<" not in confusion_svg([[10] * 20] * 20, [str(-index) for index in range(20)], "m")


def test_residuals_are_drawn_over_each_other():
    """Both files are named, bins may differ, and all answers alike are no error."""
    histograms = [
        ("float32", Histogram(edges=[-1.0, 0.0, 1.0], counts=[3, 5])),
        ("int8", Histogram(edges=[-2.0, 2.0], counts=[8])),
    ]
    svg = residuals_svg(histograms, "r")
    ElementTree.fromstring(svg)
    assert "float32" in svg
    assert "int8" in svg
