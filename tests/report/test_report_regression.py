"""A build against an earlier one: what is compared, what counts as worse, and what is refused."""

import copy
import io
import json
import xml.etree.ElementTree as ElementTree

import pytest
from rich.console import Console

from edgeprune.errors import UsageError
from edgeprune.recipe.config import RegressionConfig
from edgeprune.report.junit import write_junit
from edgeprune.report.reading import read_report
from edgeprune.report.regression import Baseline
from edgeprune.report.schema import Metric, parse
from edgeprune.report.terminal import terminal
from edgeprune.report.views import render


@pytest.fixture
def compare(tmp_path):
    """Compares a report with an earlier one, both as documents: (earlier, now, config=…) → the report of now."""

    def compared(earlier, now, config=None, **tolerances):
        path = tmp_path / "earlier.json"
        path.write_text(json.dumps(earlier))
        found = Baseline(path, **tolerances).read(config or RegressionConfig()).compare(now)
        return parse({**now, "regression": found})

    return compared


def worse(report):
    return {(row.variant, row.figure) for row in report.regression.worse}


def variant(report, name):
    return next(one for one in report["variants"] if one["name"] == name)


def test_the_same_report_is_not_worse(compare, any_report):
    """Whatever a report has, nothing of it is worse than itself, and all of it passes."""
    found = compare(any_report, any_report)
    assert found.regression.rows
    assert worse(found) == set()


CHANGES = {
    "metric": lambda one, amount: one["metric"].update(value=one["metric"]["value"] - amount),
    "bytes": lambda one, amount: one.update(bytes=int(one["bytes"] * (1 + amount))),
    "arena_bytes": lambda one, amount: one["memory"].update(
        arena_bytes=int(one["memory"]["arena_bytes"] * (1 + amount))
    ),
    "cpu_ops": lambda one, amount: one["placement"].update(cpu_ops=one["placement"]["cpu_ops"] + amount),
    "latency_ms": lambda one, amount: one["latency"]["estimated"].update(
        median_ms=one["latency"]["estimated"]["median_ms"] * (1 + amount)
    ),
}


@pytest.mark.parametrize(
    ("figure", "little", "much"),
    [
        ("metric", 0.009, 0.011),
        ("bytes", 0.009, 0.011),
        ("arena_bytes", 0.04, 0.06),
        ("cpu_ops", 0, 1),
        ("latency_ms", 0.09, 0.11),
    ],
)
@pytest.mark.parametrize("name", ["magnitude-int8", "int8"], ids=["pick", "other"])
def test_each_figure_has_its_tolerance(compare, variations, figure, little, much, name):
    """A little worse passes, more does not, better always does; of the pick and of other variants."""
    earlier = variations["estimated"]()
    for one in earlier["variants"]:
        one["placement"] = {"accelerator_ops": 9, "cpu_ops": 2, "fully_mapped": False}
    for amount, expected in ((little, set()), (much, {(name, figure)}), (-much, set())):
        now = copy.deepcopy(earlier)
        CHANGES[figure](variant(now, name), amount)
        found = compare(earlier, now)
        assert worse(found) == expected
        assert found.passed != bool(expected)


def test_tolerances_of_the_command_win_over_the_recipe(compare, report):
    """What is given is used; what is not is as [regression] says."""
    now = copy.deepcopy(report)
    CHANGES["metric"](variant(now, "int8"), 0.015)
    CHANGES["bytes"](variant(now, "int8"), 0.03)
    strict = RegressionConfig(max_drop=1.0, max_size="2%")
    assert worse(compare(report, now, strict)) == {("int8", "metric"), ("int8", "bytes")}
    assert worse(compare(report, now, strict, max_drop=2)) == {("int8", "bytes")}
    assert worse(compare(report, now, strict, max_drop="2%", max_size="4%")) == set()


def test_a_metric_in_its_own_unit_is_compared_by_its_value(compare, variations):
    """Of an error, more is worse, by a part of what it was; points are refused before anything is trained."""
    earlier = variations["regression"]()
    now = copy.deepcopy(earlier)
    variant(now, "int8")["metric"]["value"] *= 1.03
    assert worse(compare(earlier, now)) == {("int8", "metric")}
    assert worse(compare(earlier, now, max_drop="4%")) == set()


def test_points_of_a_metric_in_its_own_unit_are_refused(variations, tmp_path):
    """The message names the option that can be changed, which is not that of the pick."""
    (tmp_path / "report.json").write_text(json.dumps(variations["regression"]()))
    report = read_report(tmp_path)
    with pytest.raises(UsageError, match="is in points") as raised:
        Baseline(tmp_path, max_drop=1).read(RegressionConfig()).require_comparable(report.target.name, report.metric)
    assert "--max-regression-drop 2%" in raised.value.fix


def test_a_measured_latency_must_leave_the_noise(compare, report):
    """On a machine whose 95th percentile is far from the median, what is within it is not worse."""
    now = copy.deepcopy(report)
    before, after = (variant(one, "int8")["latency"]["measured"][0] for one in (report, now))
    before["p95_ms"] = 1.5 * before["median_ms"]
    after["median_ms"] = 1.4 * before["median_ms"]
    assert worse(compare(report, now)) == set()
    after["median_ms"] = 1.6 * before["median_ms"]
    assert worse(compare(report, now)) == {("int8", "latency_ms")}


def test_latencies_of_other_conditions_are_not_compared_and_that_is_said(compare, report):
    """Another machine's milliseconds are no regression."""
    now = copy.deepcopy(report)
    for one in now["variants"]:
        for entry in one["latency"]["measured"]:
            entry.update(device="host: Another CPU", median_ms=99.0)
    found = compare(report, now)
    assert worse(found) == set()
    assert "latency_ms" not in {row.figure for row in found.regression.rows}
    assert any("Latencies of" in note and "int8" in note for note in found.regression.notes)


def test_the_pick_is_compared_with_the_pick(compare, report):
    """Where another variant is the pick now, the two that go to devices are compared, beside those of the same name."""
    earlier = {**copy.deepcopy(report), "pick": "int8"}
    rows = compare(earlier, report).regression.rows
    pairs = {(row.before_variant, row.variant) for row in rows}
    names = [one["name"] for one in report["variants"]]
    assert pairs == {("int8", report["pick"]), *((name, name) for name in names)}


def test_what_weakens_the_comparison_is_noted(compare, report):
    """Another model, other test samples, a variant that is not made any more."""
    earlier = copy.deepcopy(report)
    earlier["model"]["name"], earlier["data"]["test"] = "older", 500
    variant(earlier, "int8")["name"] = "int8-old"
    notes = " ".join(compare(earlier, report).regression.notes)
    for words in ("the model older", "500 test samples", "not compared: int8-old"):
        assert words in notes


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "There is no report to read"),
        ("{", "not JSON, or cut off"),
        ("[" * 100_000, "not JSON, or cut off"),
        ("[1]", "something else"),
        ('{"schema_version": 1, "trials": []}', "something else"),
        ('{"schema_version": 0, "variants": []}', "its schema_version is 0"),
        ('{"schema_version": 1, "variants": []}', "Field required"),
    ],
    ids=["missing", "cut", "deep", "list", "search", "older", "incomplete"],
)
def test_a_file_that_is_no_report_is_one_message(content, words, tmp_path):
    """It says which file, what is wrong with it, and how to get one."""
    path = tmp_path / "baseline.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError) as caught:
        Baseline(path).read(RegressionConfig())
    assert words in str(caught.value)
    assert "baseline.json" in caught.value.what
    assert "report.json" in caught.value.expected


def test_the_folder_of_a_search_says_where_the_report_of_its_pick_is(tmp_path):
    """A search has a report of all trials, and the run folder of its pick has one like a build's."""
    (tmp_path / "search.json").write_text("{}")
    with pytest.raises(UsageError, match=r"folder of a search.*best"):
        Baseline(tmp_path).read(RegressionConfig())


def test_a_run_folder_stands_for_its_report(report, tmp_path):
    """Whoever names the folder means report.json in it."""
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert read_report(tmp_path) == read_report(tmp_path / "report.json") == parse(report)


def test_another_target_or_metric_is_refused(report, tmp_path):
    """Figures of another board or of another metric are no measure."""
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    earlier = Baseline(path).read(RegressionConfig())
    metric = parse(report).metric
    earlier.require_comparable("rpi4", metric)
    with pytest.raises(UsageError, match="its target is rpi4, and that of this build coral"):
        earlier.require_comparable("coral", metric)
    with pytest.raises(UsageError, match="its metric is accuracy, and that of this build mae"):
        earlier.require_comparable("rpi4", Metric(name="mae", higher_is_better=False))


@pytest.mark.parametrize("tolerance", [{"max_size": "100"}, {"max_latency": "5"}, {"max_drop": "much"}])
def test_a_tolerance_that_is_not_understood_is_refused(tolerance):
    """Sizes and latencies are compared by parts; numbers without a unit could be anything."""
    with pytest.raises(UsageError, match="%"):
        Baseline("report.json", **tolerance)


def test_every_view_says_what_got_worse(compare, report):
    """The terminal, the page, both Markdown files and the XML have variant, figure, and the values then and now."""
    now = copy.deepcopy(report)
    CHANGES["bytes"](variant(now, "int8"), 0.5)
    found = compare(report, now)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(terminal(found))
    texts = [console.export_text(), *(render(found, name) for name in ("report.html", "report.md", "summary.md"))]
    for text in texts:
        assert f"1 of {len(found.regression.rows)} figures is worse" in text
        for words in ("int8", "File", "95.4 kB", "143 kB", "96.4 kB", "worse"):
            assert words in text


def test_the_xml_has_a_case_for_each_variant_gate_and_figure(compare, variations, tmp_path):
    """What failed has a failure with its numbers, counts are right, and names of any characters are allowed."""
    now = variations["missed_gate"]()
    earlier = copy.deepcopy(now)
    CHANGES["bytes"](variant(now, "int8"), 0.5)
    now["model"]["name"] = "a<b\x00&\x1b"
    now["missing"] = [{"name": "int16x8", "what": "The converter crashed.", "fix": None}]
    found = compare(earlier, now)
    write_junit(found, tmp_path / "junit.xml")
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    suites = {suite.get("name"): suite for suite in root}
    failed = {
        name: [case.get("name") for case in suite if case.find("failure") is not None] for name, suite in suites.items()
    }
    assert failed == {
        "edgeprune.variants": ["int16x8"],
        "edgeprune.gates": ["Drop against the baseline"],
        "edgeprune.regression": ["int8: File"],
    }
    for name, suite in suites.items():
        assert (int(suite.get("tests")), int(suite.get("failures"))) == (len(suite), len(failed[name]))
    assert len(suites["edgeprune.regression"]) == len(found.regression.rows)
    assert "143 kB" in suites["edgeprune.regression"].find(".//failure").get("message")


def test_another_direction_of_the_metric_is_refused(report, tmp_path):
    """A function of the user's may have the name of another one, of which more is better."""
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    with pytest.raises(UsageError, match="its direction is more is better, and that of this build less is better"):
        Baseline(path).read(RegressionConfig()).require_comparable(
            "rpi4", Metric(name=report["metric"]["name"], higher_is_better=False)
        )


def test_the_estimate_comes_before_other_machines_where_the_target_was_measured_once(compare, variations):
    """Measured on the target now and never before: what both have is the estimate, and this machine's milliseconds."""
    earlier = variations["estimated"]()
    now = copy.deepcopy(earlier)
    for one in now["variants"]:
        entry = copy.deepcopy(one["latency"]["measured"][0])
        entry.update(device="board", target="rpi4", median_ms=99.0)
        one["latency"]["measured"].insert(0, entry)
    variant(now, "int8")["latency"]["estimated"]["median_ms"] *= 1.5
    found = compare(earlier, now)
    assert worse(found) == {("int8", "latency_ms")}
    sources = {row.source for row in found.regression.rows if row.figure == "latency_ms"}
    assert sources == {"estimated for the target"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda now: now["data"].update(source="other"), "this one on other"),
        (lambda now: now.update(seed=now["seed"] + 1), "other samples were held out"),
        (
            lambda now: variant(now, now["pick"])["memory"].update(arena_bytes=None),
            "is not compared: this report has none",
        ),
        (
            lambda now: variant(now, now["pick"]).update(
                placement={"accelerator_ops": 9, "cpu_ops": 2, "fully_mapped": False}
            ),
            "is not compared: the earlier report has none",
        ),
    ],
)
def test_what_cannot_be_compared_is_noted(compare, report, change, words):
    """Other data, another seed, and figures that one of the reports does not have."""
    assert not any(words in note for note in compare(report, report).regression.notes)
    now = copy.deepcopy(report)
    change(now)
    assert any(words in note for note in compare(report, now).regression.notes)
