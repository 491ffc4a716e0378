"""Why channels went: limits with prices, the steps around every width, and curves of the loss."""

import re

import pytest

from edgeprune.report.allocation import allocation
from edgeprune.report.blocks import ABSENT
from edgeprune.report.schema import parse
from edgeprune.report.views import render


@pytest.fixture
def report(variations):
    return variations["explained"]()


def _blocks(report):
    (one,) = parse(report).pruning
    return allocation(one.name, one.allocation, "widths1")


def test_every_group_stands_with_the_steps_around_its_width(report):
    """Losses are shares of the whole; what is saved is of the limit that binds; ends have dashes that say why."""
    _, widths, _ = _blocks(report)
    rows = {row[0].text: row for row in widths.rows}
    assert [cell.text for cell in rows["block"][1:]] == [
        "32 → 16", "75.0 %", "50.0 %", "50.0 µs", "62.5 %", "125 %", "50.0 µs", "62.5 %"
    ]  # fmt: skip
    assert [cell.text for cell in rows["stem"][3:6]] == [ABSENT] * 3
    assert {cell.exact for cell in rows["stem"][3:6]} == {"all channels stay"}
    assert {cell.exact for cell in rows["late"][6:]} == {"as narrow as allowed"}
    assert "by 8 channels" in rows["late"][3].exact


def test_one_row_is_told_in_words(report):
    """The group that lost most and could have lost more."""
    for view in ("report.html", "report.md"):
        assert (
            "block keeps 16 of 32 channels, because the next 8 would lose 125 % to save 50.0 µs, which is worth 62.5 % "
            "only."
        ) in render(parse(report), view)


def test_no_row_is_told_that_says_the_contrary(report):
    """Steps that seem worth it, or whose worth is not known, are no example."""
    for reason in report["pruning"][0]["allocation"]["reasons"]:
        if reason["next"]:
            reason["next"]["worth"] = 99.0 if reason["name"] == "block" else None
    _, widths, _ = _blocks(report)
    assert "For example" not in widths.caption
    assert widths.rows[0][-1].text == ABSENT


def test_limits_show_their_prices(report):
    """An amount in its unit, and what one percent more of it would be worth."""
    limits = _blocks(report)[0]
    assert [[cell.text for cell in row] for row in limits.rows] == [
        ["Latency, estimated", "0.900 ms", "1.00 ms", "12.5 %"],
        ["Multiply-accumulates", "1.50 M MACs", "2.00 M MACs", "0 %"],
    ]


def test_where_no_limit_binds_all_savings_are_told(report):
    """Prices of nothing, or none: what a step would save of each limit."""
    for limit in report["pruning"][0]["allocation"]["limits"]:
        limit["price"] = None
    limits, widths, _ = _blocks(report)
    assert widths.rows[1][4].text == "50.0 µs and 50.0 k MACs"
    assert limits.rows[0][3].text == ABSENT


def test_every_group_is_drawn_and_names_stay_text(report):
    """A plot per group, a dozen at most, with its name as a title; the page's colours only."""
    reasons = report["pruning"][0]["allocation"]["reasons"]
    reasons[0]["name"] = "<script>$x$"
    figure = _blocks(report)[2].items[0]
    svg = figure.draw()
    titles = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"&lt;script&gt;$x$", "block", "late"} <= set(titles)
    assert not re.search(r"#[0-9a-f]{6}", svg)
    report["pruning"][0]["allocation"]["reasons"] = [{**reasons[1], "name": f"layer{n}"} for n in range(30)]
    _, widths, figures = _blocks(report)
    assert len(widths.rows) == 30
    assert widths.folded
    assert "12 groups that lost most" in figures.items[0].caption
    assert figures.items[0].draw().count(">layer") == 12


@pytest.mark.parametrize("change", [{"reasons": []}, {"loss": 0.0}], ids=["uniform", "nothing lost"])
def test_without_reasons_there_are_only_limits(report, change):
    """Where nothing was weighed, or nothing lost, and in reports of older releases."""
    report["pruning"][0]["allocation"].update(change)
    assert len(_blocks(report)) == 1
    del report["pruning"][0]["allocation"]["reasons"]
    assert len(_blocks(report)) == 1


def test_the_page_names_the_channels_that_went(report):
    """In ranges, with the criterion; none of a group that kept all, and a reason where they cannot be followed."""
    (table,) = re.findall(
        r"<details><summary>filters: which channels went.*?</details>", render(parse(report), "report.html"), re.DOTALL
    )
    assert "the criterion reconstruct ranks lowest" in table
    assert "0–2, 7, 9, 21–31" in table
    assert "32 → 16" in table
    assert "none" in table
    assert "a step between had other groups" in table
