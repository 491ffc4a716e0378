"""The words about the pick are true of the choice that was made."""

import dataclasses

import pytest

from edgeprune import selection
from edgeprune.report import headline
from edgeprune.report.schema import parse

LIMITS = [
    selection.Limits(),
    selection.Limits(max_drop=0.5),
    selection.Limits(max_drop="0.6%"),
    selection.Limits(max_drop=0.9, max_size=100_000),
    selection.Limits(max_size=1000),
    selection.Limits(max_latency=0.2),
    selection.Limits(max_latency=0.001),
]


def choose(report, limits):
    """The report as a build with these limits writes it."""
    metric = parse(report).metric
    picks = selection.choose(report["variants"], limits, metric)
    pick = next(variant for variant in report["variants"] if variant["name"] == picks["balanced"])
    gates = selection.check_gates(pick, limits, metric, parse(report).baseline.metric.value)
    report.update(picks=picks, pick=pick["name"], gates=gates, max_drop=dataclasses.asdict(limits.drop))
    return parse(report)


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_why_tells_what_the_selection_did(report, limits):
    """It says that all limits were kept if and only if some variant keeps them, and names the limits."""
    parsed = choose(report, limits)
    baseline = parsed.baseline.validation.value
    allowed = {None: 2.0, "0.6%": 0.6 * baseline}.get(limits.max_drop, limits.max_drop)
    words = {None: "2 points of accuracy", "0.6%": "0.6 % of the value of accuracy"}
    fitting = [
        variant for variant in parsed.variants
        if 100 * (baseline - variant.validation.value) <= allowed
        and (limits.max_size is None or variant.bytes <= limits.max_size)
        and (limits.max_latency is None or variant.latency.measured[0].median_ms <= limits.max_latency)
    ]  # fmt: skip
    why = headline.why(parsed)
    assert why.startswith("Of the variants that lose at most" if fitting else "No variant keeps all the limits")
    if fitting:
        assert words.get(limits.max_drop, f"{limits.max_drop} points of accuracy") in why
        assert ("size" in why) == (limits.max_size is not None)
        assert ("latency" in why) == (limits.max_latency is not None)


def test_the_sentence_has_the_picks_numbers_and_the_baselines(report):
    """One sentence holds quality, sizes and latency of both."""
    sentence = headline.pick_figures(parse(report))
    for words in ("82.74 % accuracy", "10,000 test samples", "−1.03 points", "83.77 %", "95.4 kB", "71 % smaller",
                  "58.3 kB", "0.124 ms", "0.293 ms", "XNNPACK kernels, 1 thread"):  # fmt: skip
        assert words in sentence
    assert sentence.count(". ") == 0


def test_without_a_baseline_nothing_is_compared(report):
    """A report whose baseline is missing states the pick's own figures only."""
    report["variants"] = [variant for variant in report["variants"] if not variant["baseline"]]
    report["picks"]["quality"] = "int8"
    sentence = headline.pick_figures(parse(report))
    assert "baseline" not in sentence
    assert "smaller" not in sentence
    assert "82.74 % accuracy" in sentence


def test_a_warning_of_several_variants_is_given_once(report):
    """The same words about two variants are one warning about both."""
    for variant in report["variants"][:2]:
        variant["warnings"] = ["The runtime is old."]
    found = headline.warning_messages(parse(report))
    assert ("float32, int8", "The runtime is old.") in found
    assert len(found) == 3


def test_the_picks_file_is_named_after_the_model(report):
    """NAME.tflite, as in the run folder."""
    assert headline.pick_file(parse(report)) == "sample-resnet8.tflite"


def test_what_was_measured_slower_is_said_beside_the_pick(report):
    """Its name, factor and device stand in the first lines, and the rule that kept it from being picked."""
    rows = report["variants"]
    baseline = next(row for row in rows if row["baseline"])
    slow = next(row for row in rows if row["name"] == choose(report, selection.Limits()).pick)
    assert "slower" not in headline.why(parse(report))
    for entry, before in zip(slow["latency"]["measured"], baseline["latency"]["measured"], strict=True):
        entry["median_ms"] = 6 * max(before["median_ms"], before["p95_ms"])
    parsed = choose(report, selection.Limits())
    assert parsed.pick != slow["name"]
    why = headline.why(parsed)
    assert f"were not measured slower than {baseline['name']}" in why
    assert f"Measured slower than {baseline['name']}: {slow['name']}" in why
