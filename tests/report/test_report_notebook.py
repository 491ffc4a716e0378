"""A report as the output of a notebook's cell."""

import re

import pytest
from chromium import CHROMIUM, open_page
from matrix import representatives

from edgeprune.report.schema import parse


# The pages of all of them are drawn elsewhere, with the same plots.
@pytest.mark.parametrize(
    "any_report",
    representatives(
        ["sample", "only_baseline", "regression", "crowded", "quantized", "masks"], "only_baseline", "crowded", "masks"
    ),
    indirect=True,
)
def test_a_cell_shows_the_pick_the_table_and_the_front(any_report):
    """The sentence, every variant, and the plots that the page has."""
    report = parse(any_report)
    text = report._repr_html_()
    assert f"The pick is {report.pick}" in text
    for variant in report.variants:
        assert f">{variant.name}</code>" in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_ids_are_no_other_reports(report):
    """Two cells of one notebook share none."""
    first, second = (parse({**report, "seed": seed})._repr_html_() for seed in (0, 1))
    assert not set(re.findall(r'\bid="([^"]+)"', first)) & set(re.findall(r'\bid="([^"]+)"', second))


def test_its_styles_stay_inside(report):
    """Every rule is nested under the element's class: nothing of the notebook around it changes."""
    text = parse(report)._repr_html_()
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    depth, outside = 0, ""
    for character in re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL):
        depth += {"{": 1, "}": -1}.get(character, 0)
        outside += character if depth == 0 else ""
    assert outside.replace("}", "").split() == [".edgeprune"]
    assert not re.search(r"^\s*(:root|body|html)\b", style, re.MULTILINE)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium executable on PATH")
def test_chromium_applies_them_inside_only(report, tmp_path):
    """A table in the element has its lines, one beside it does not; the element has the page's colour."""
    cell = parse(report)._repr_html_()
    script = (
        "<script>const of = (q, key) => getComputedStyle(document.querySelector(q))[key];"
        'document.title = [of(".edgeprune tbody td", "borderBottomWidth"), of("#other td", "borderBottomWidth"),'
        'of(".edgeprune", "backgroundColor"), of("body", "backgroundColor")].join("|")</script>'
    )
    dom, _ = open_page(
        f'<html><body>{cell}<table id="other"><tr><td>x</td></tr></table>{script}</body></html>', tmp_path
    )
    assert re.search("<title>(.*?)</title>", dom).group(1) == "1px|0px|rgb(255, 255, 255)|rgba(0, 0, 0, 0)"
