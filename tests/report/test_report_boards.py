"""Reports of a build for several targets: what was missed on one of them is nowhere passed over."""

import copy
import io
import json
import xml.etree.ElementTree as ElementTree

import pytest
from rich.console import Console

from edgeprune.recipe.config import RegressionConfig
from edgeprune.report.headline import gates_line
from edgeprune.report.junit import write_junit
from edgeprune.report.regression import Baseline
from edgeprune.report.schema import parse
from edgeprune.report.terminal import terminal
from edgeprune.report.views import render


@pytest.fixture
def boards(report):
    """Of two targets, the second misses its gate."""
    kept = {"name": "max_size", "limit": 200_000, "value": 95_440.0, "passed": True}
    missed = {**kept, "limit": 100, "passed": False}
    own = {"variants": [one["name"] for one in report["variants"]], "picks": report["picks"], "pick": report["pick"]}
    first = {"name": report["target"]["name"], "title": "One", **own, "gates": [kept]}
    for one in report["variants"]:
        there = {"latency": {"estimated": None, "unknown": "none"}, "memory": one["memory"], "placement": None}
        one["targets"] = {name: {**there, "warnings": []} for name in (first["name"], "nano")}
    return {**report, "gates": [kept], "targets": [first, {**copy.deepcopy(first), "name": "nano", "gates": [missed]}]}


def test_every_view_has_the_gates_of_every_target(boards, tmp_path):
    """In words, in tables, and as a test case that failed."""
    report = parse(boards)
    assert not report.passed
    assert gates_line(report) == "Gates: 1 of 2 missed (nano: max_size)."
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(terminal(report))
    for text in (console.export_text(), *(render(report, name) for name in ("report.html", "report.md", "summary.md"))):
        assert "missed" in text
    assert f"The pick for nano, {report.pick}" in render(report, "summary.md")
    write_junit(report, tmp_path / "junit.xml")
    (suite,) = (one for one in ElementTree.parse(tmp_path / "junit.xml").getroot() if one.get("name").endswith("gates"))
    cases = {case.get("name"): case.find("failure") is not None for case in suite}
    assert cases == {f"{report.target.name}: File size": False, "nano: File size": True}
    assert suite.get("failures") == "1"


def test_a_comparison_says_which_target_it_is_about(boards, tmp_path):
    """Latency, memory and placement of the others are not compared with the earlier report."""
    (tmp_path / "report.json").write_text(json.dumps(boards))
    found = Baseline(tmp_path).read(RegressionConfig()).compare(boards)
    assert any("the first target, and not on nano" in note for note in found["notes"])
