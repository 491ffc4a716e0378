"""report.html and report.md."""

import copy
import html.parser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune.errors import OutputError
from edgeprune.report import write_views
from edgeprune.report.blocks import ABSENT, EVERYWHERE
from edgeprune.report.format import plain
from edgeprune.report.schema import parse
from edgeprune.report.sections import SECTIONS
from edgeprune.report.variants import variants_table
from edgeprune.report.views import render

VOID = {"meta", "br", "img"}
HOSTILE = "<script>alert('x')</script>|[b]`{{7*7}}$x$*_"


class Page(html.parser.HTMLParser):
    """The tags of a page, with balance checked, and its tables as rows of (text, titles)."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.rows = [], [], []
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(["", []])
        if dict(attrs).get("title") and "tr" in self.open:
            self.rows[-1][-1][1].append(dict(attrs)["title"])

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1][0] += data


def row_of(rows, name):
    return next(row for row in rows if len(row) > 8 and row[0][0].startswith(name))


def test_every_figure_of_every_variant_is_in_its_row(report, html):
    """The variants table holds each figure readable, and in full in a title."""
    rows = Page(html("sample")).rows
    for variant in report["variants"]:
        row = row_of(rows, variant["name"])
        text = " | ".join(cell for cell, _ in row)
        titles = " | ".join(title for _, titles in row for title in titles)
        exact = [variant[key] for key in ("bytes", "gzip_bytes", "params", "nonzero_params", "macs")]
        exact += [variant["memory"]["arena_bytes"], variant["metric"]["value"], variant["weight_sparsity"]]
        exact += [entry[key] for entry in variant["latency"]["measured"] for key in ("median_ms", "p95_ms")]
        for value in exact:
            assert plain(value) in titles
        assert f"{100 * variant['metric']['value']:.2f} %" in text
        assert f"{variant['bytes'] / 1000:#.3g}".rstrip(".") + " kB" in text
    pick = row_of(rows, "magnitude-int8")
    assert "pick" in pick[0][0]
    assert "−1.03 points" in pick[2][0]


def test_html_is_well_formed_and_accessible(any_html):
    """Tags balance, ids are unique, table heads have scopes, drawings have words."""
    parsed = Page(any_html)
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert all(attrs.get("scope") for tag, attrs in parsed.tags if tag == "th")
    images = [attrs for _, attrs in parsed.tags if attrs.get("role") == "img"]
    assert len(images) == sum(tag == "svg" for tag, _ in parsed.tags)
    assert all(len(attrs["aria-label"]) > 20 for attrs in images)
    targets = [attrs["href"] for tag, attrs in parsed.tags if tag == "a"]
    assert all(target[1:] in ids for target in targets)


def test_nothing_is_loaded_from_elsewhere(any_html):
    """One file: no source, link, import or url() that leaves it, no script, and a policy that forbids all loads."""
    parsed = Page(any_html)
    assert not {"script", "link", "iframe", "img", "object", "base", "form"} & {tag for tag, _ in parsed.tags}
    references = [value for _, attrs in parsed.tags for key, value in attrs.items() if key in ("src", "href", "srcset")]
    references += re.findall(r"url\(([^)]*)\)", any_html)
    assert all(reference.startswith("#") for reference in references)
    assert "@import" not in any_html
    assert "http://" not in any_html
    assert "https://" not in any_html
    assert "default-src 'none'" in any_html


def test_measured_and_estimated_never_share_a_column(variations):
    """Each latency column is of one kind, and names its device, runtime, kernels and threads, or its model."""
    columns = variants_table(parse(variations["estimated"]())).columns
    measured = [column for column in columns if column.group == "Latency, measured"]
    estimated = [column for column in columns if column.group == "Latency, estimated"]
    assert [(column.title, column.note) for column in measured] == [
        ("host", "ai-edge-litert 2.3.0, XNNPACK kernels, 1 thread, median"),
        ("host", "ai-edge-litert 2.3.0, built-in kernels, 1 thread, median"),
    ]
    assert [(column.title, column.note) for column in estimated] == [
        ("rpi4", "4 threads, latency model 1, median and range")
    ]


def test_each_measuring_condition_has_its_own_column(report):
    """The same variant measured with other threads or elsewhere is another column; where it was not, a dash."""
    extra = copy.deepcopy(report["variants"][1]["latency"]["measured"][0])
    extra.update(threads=4, median_ms=0.0777)
    report["variants"][1]["latency"]["measured"].append(extra)
    table = variants_table(parse(report))
    index = next(i for i, column in enumerate(table.columns) if "4 threads" in column.note)
    assert [row[index].text for row in table.rows] == [ABSENT, "0.0777 ms", ABSENT, ABSENT]


def test_without_estimates_the_column_says_so(report):
    """No estimate is neither a number nor an empty cell."""
    table = variants_table(parse(report))
    assert table.columns[-1].group == "Latency, estimated"
    assert {row[-1].text for row in table.rows} == {"not estimated"}


def test_every_figure_carries_its_unit(any_report):
    """A number in the variants table has its unit beside it, or is a count of what its column's title names."""
    table = variants_table(parse(any_report))
    counts = {"Parameters", "Nonzero", "MACs", "MAE"}
    unit = re.compile(r" (%|points|k?M?B|ms)$|\b(worse|better|same)\)$")
    words = {ABSENT, "baseline", "not estimated"}
    for row in table.rows:
        for column, cell in zip(table.columns[1:], row[1:], strict=True):
            assert column.title in counts or cell.text in words or unit.search(cell.text), (column.title, cell.text)


def test_missing_figures_are_dashes_with_their_meaning(html):
    """A figure that nobody measured is never shown as a number, and the page says what the dash means."""
    text = html("nothing_measured")
    row = row_of(Page(text).rows, "int8")
    assert [cell for cell, _ in row[1:]] == [
        ABSENT, ABSENT, "95.4 kB", ABSENT, ABSENT, ABSENT, "78.7 k", ABSENT, ABSENT, ABSENT, ABSENT, "not estimated"
    ]  # fmt: skip
    assert all(titles for cell, titles in row if cell == ABSENT)
    assert "not measured or does not apply" in text
    assert "<svg" not in text


def test_names_from_outside_stay_text(report):
    """Whatever a model, a layer or a device is called, it is shown and not run."""
    variant = report["variants"][3]
    places = {
        "model": (report["model"], "name"), "variant": (variant, "name"), "layer": (variant["kernels"][0], "name"),
        "target": (report["target"], "name"), "metric": (report["metric"], "name"), "command": (report, "command"),
        "device": (variant["latency"]["measured"][0], "device"), "pick": (report, "pick"),
        "runtime": (variant["latency"]["measured"][1], "runtime"), "warning": (variant["warnings"], 0),
        "gate": (report["gates"][0], "name"), "stage": (report["stages"][0], "name"),
    }  # fmt: skip
    for place, (holder, key) in places.items():
        holder[key] = f"{'variant' if place == 'pick' else place} {HOSTILE}"
    report["picks"].update(balanced=report["pick"], compact=report["pick"])
    text = render(parse(report), "report.html")
    assert "script" not in {tag for tag, _ in Page(text).tags}
    for place in set(places) - {"pick"}:
        assert f"{place} &lt;script&gt;alert(" in text
    assert "{{7*7}}" in text
    markdown = render(parse(report), "report.md")
    outside_code = re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in outside_code
    assert_tables_are_even(markdown)


def assert_tables_are_even(markdown):
    """Each row of a table has as many cells as its head."""
    for block in re.findall(r"(?:^\|.*\n)+", markdown, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_markdown_has_every_variant_and_even_tables(any_report):
    """The short view has each variant's accuracy and sizes in tables that GitHub draws."""
    markdown = render(parse(any_report), "report.md")
    assert_tables_are_even(markdown)
    table = variants_table(parse(any_report)).at_level(EVERYWHERE)
    for row in table.rows:
        line = next(line for line in markdown.splitlines() if line.startswith(f"| {row[0].text}"))
        assert all(cell.text in line for cell in row)
    assert "\n\n\n" not in markdown
    assert "<svg" not in markdown


def test_sections_without_content_are_left_out(html):
    """One variant and no training: no plots, no training, no gates table, and nothing breaks."""
    text = html("only_baseline")
    assert 'id="training"' not in text
    assert 'id="tradeoffs"' not in text
    assert "No gates were set" in text
    assert "the unpruned baseline itself" in text


def test_missed_gates_show(html):
    """A missed gate is seen at the top and in its table; a passed one is not called missed."""
    text = html("missed_gate")
    rows = Page(text).rows
    assert "Gates: 1 of 3 missed (max_drop)." in text
    results = {row[0][0]: row[3][0] for row in rows if row[0][0] in ("Drop against the baseline", "Median latency")}
    assert results == {"Drop against the baseline": "missed", "Median latency": "passed"}
    assert "measured on host, ai-edge-litert 2.3.0, XNNPACK kernels, 1 thread" in text


def test_what_was_done_for_integers_shows(html, variations):
    """Each output, where the error arises, every trial with its result, and the layers that were changed."""
    rows = [[cell[0].strip() for cell in row] for row in Page(html("quantized")).rows]
    name, equalized = (variations["quantized"]()["variants"][index]["name"] for index in (1, 3))
    assert [name, "classes", "0.25", "0.0312", "97.00 %"] in rows
    assert [name, "boxes", "0.25", "0.0312", ABSENT] in rows
    assert [name, "conv2d_3", "CONV_2D", "36.2", "21.5"] in rows
    assert ["0", "2.25 points of accuracy", "95.0 kB", "missed"] in rows
    assert any(row[0].startswith("2") and row[0].endswith("chosen") and row[-1] == "met" for row in rows)
    assert "Layers kept in float: conv2d_3, dense." in html("quantized")
    assert [equalized, "pairs equalized", "1", "conv2d → conv2d_1"] in rows
    assert [equalized, "rounded by moments", "2", "error of the outputs 1.25e-04; to nearest 2.50e-03"] in rows
    assert "integers" not in [tag[1].get("id") for tag in Page(html("sample")).tags]


def test_lower_is_better_reads_the_right_way_round(variations):
    """An error that grew is worse, one that shrank is better."""
    table = variants_table(parse(variations["regression"]()))
    assert [row[2].text for row in table.rows] == [
        "baseline",
        "+1.6 % (worse)",
        "−0.69 % (better)",
        "+3.8 % (worse)",
    ]
    assert "lower is better" in table.columns[1].note


def test_reused_stages_are_marked(html):
    """The reader sees which times are of this run."""
    rows = {row[0][0]: row[2][0] for row in Page(html("sample")).rows if len(row) == 3}
    assert rows["model"] == "reused from an earlier run"
    assert rows["magnitude"] == ""


def test_the_same_report_gives_the_same_bytes(report, tmp_path):
    """In another process with another hash seed too."""
    write_views(report, tmp_path / "a")
    script = (
        "import json, sys; from pathlib import Path; from edgeprune.report import write_views\n"
        "write_views(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))"
    )
    source = Path(__file__).parent / "sample_report.json"
    subprocess.run(
        [sys.executable, "-c", script, source, tmp_path / "b"], check=True, env={**os.environ, "PYTHONHASHSEED": "7"}
    )
    for name in ("report.html", "report.md", "summary.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["report.html", "report.md", "summary.md"]


def test_an_invalid_report_writes_nothing(report, tmp_path):
    """A view never shows half a report."""
    with pytest.raises(ValueError, match="pick"):
        write_views({**report, "pick": "nothing"}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_error(report, tmp_path):
    """A file where the folder should be is an OutputError that names it."""
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(OutputError, match="run"):
        write_views(report, tmp_path / "run" / "deeper")


def test_importing_the_package_is_cheap():
    """Commands that only load the package do not pay for drawing, templates or the terminal."""
    script = (
        "import sys, edgeprune.report\n"
        "print([m for m in ('matplotlib', 'jinja2', 'rich', 'tensorflow', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_sections_have_names_of_their_own():
    """Anchors are unique and fit for a link."""
    anchors = [section.anchor for section in SECTIONS]
    assert len(set(anchors)) == len(anchors)
    assert all(re.fullmatch("[a-z]+", anchor) for anchor in anchors)


@pytest.mark.parametrize("view", ["report.md", "report.html"])
def test_limits_say_their_target(report, view):
    """What is limited is said in words, and with the target where it is one of several."""
    row = {"value": 1.5, "most": 2.0, "price": None}
    limits = [{"name": name, **row} for name in ("latency", "latency on coral", "size on rpi4")]
    chosen = {"loss": 1.0, "bound": 1.0, "seconds": 0.1, "limits": limits, "multiple": 8, "widths": None}
    text = render(parse({**report, "pruning": [{"name": "filters", "allocation": chosen}]}), view)
    for words in ("Latency, estimated", "Latency, estimated, on coral", "File, on rpi4"):
        assert words in text
