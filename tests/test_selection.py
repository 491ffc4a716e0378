"""Picks look at validation only; gates look at the pick."""

import math

import pytest

from edgeprune.errors import UsageError
from edgeprune.report.schema import Metric
from edgeprune.selection import (
    Limits,
    MaxDrop,
    Slowdown,
    check_gates,
    choose,
    drop_points,
    parse_bytes,
    slowdown,
    target_times,
    within,
)
from edgeprune.target import load_target

ACCURACY = Metric(name="accuracy", higher_is_better=True, points=100)
ERROR = Metric(name="mae", higher_is_better=False, points=1)


def variant(name, validation, gzip_bytes, test=0.0, ms=1.0, baseline=False):
    return {
        "name": name,
        "baseline": baseline,
        "bytes": 2 * gzip_bytes,
        "gzip_bytes": gzip_bytes,
        "validation": {"value": validation},
        "drop_points": test,
        "latency": {"measured": [{"median_ms": ms}]},
    }


VARIANTS = [
    variant("float32", 0.90, 1000, baseline=True),
    variant("int8", 0.899, 300, test=5.0),
    variant("half", 0.885, 200, ms=0.5),
    variant("tiny", 0.60, 50),
]


def test_quality_compact_and_balanced():
    """Best on validation; fewest compressed bytes; fewest among those that lose at most two points."""
    assert choose(VARIANTS, Limits(), ACCURACY) == {"quality": "float32", "balanced": "half", "compact": "tiny"}


def test_a_control_is_never_picked():
    """Better and smaller than all others, it is still only there to be compared with."""
    control = {**variant("lottery-control", 0.95, 10), "control_of": "half"}
    assert choose([*VARIANTS, control], Limits(), ACCURACY) == choose(VARIANTS, Limits(), ACCURACY)


def test_limits_narrow_the_balanced_pick():
    """What misses a gate is not picked while something meets it; the test split's figure has no say."""
    assert choose(VARIANTS, Limits(max_drop=1.0), ACCURACY)["balanced"] == "int8"
    assert choose(VARIANTS, Limits(max_size=500), ACCURACY)["balanced"] == "half"
    assert choose(VARIANTS, Limits(max_latency=0.1), ACCURACY)["balanced"] == "float32"


def test_lower_is_better_turns_the_order():
    """For an error, small is good, and the default allows 5 % more of it."""
    rows = [
        variant("float32", 0.100, 1000, baseline=True), variant("int8", 0.104, 300), variant("half", 0.106, 200),
        variant("bad", 5.0, 100),
    ]  # fmt: skip
    assert choose(rows, Limits(), ERROR) == {"quality": "float32", "balanced": "int8", "compact": "bad"}
    assert choose(rows, Limits(max_drop="7%"), ERROR)["balanced"] == "half"


def test_gates_compare_the_pick_with_the_limits():
    """Only gates that are set appear; the value equal to the limit passes."""
    pick = variant("p", 0.9, 100, test=1.5, ms=2.0)
    assert check_gates(pick, Limits(), ACCURACY, 0.9) == []
    rows = check_gates(pick, Limits(max_drop=1.0, max_size=200, max_latency=1.9), ACCURACY, 0.9)
    assert [(row["name"], row["passed"]) for row in rows] == [
        ("max_drop", False),
        ("max_size", True),
        ("max_latency", False),
    ]


ESTIMATE = {"median_ms": 20.0, "low_ms": 15.0, "high_ms": 26.0, "threads": 4, "model_version": "1-xnnpack"}
HOST = {"device": "this host", "median_ms": 2.0}


def latency_gate(limit, measured, estimated=None):
    row = variant("int8", 0.9, 300)
    row["latency"] = {"measured": measured, "estimated": estimated}
    return check_gates(row, Limits(max_latency=limit), ACCURACY, 0.9)[0]


def test_the_latency_gate_is_about_the_target():
    """A fast host does not pass a slow board: the estimate decides, unless the board itself was measured."""
    missed = latency_gate(10, [HOST], ESTIMATE)
    assert (missed["value"], missed["passed"]) == (20.0, False)
    assert "estimated for the target" in missed["source"]
    assert "15 to 26 ms" in missed["source"]
    met = latency_gate(10, [HOST, {"device": "board", "target": "rpi4", "median_ms": 9.0}], ESTIMATE)
    assert (met["value"], met["passed"], met["source"]) == (9.0, True, "measured on board")


def test_without_an_estimate_the_gate_says_that_it_looks_elsewhere():
    """Only the host was measured and nothing is known about the target: the words say so."""
    assert "not on the target" in latency_gate(10, [HOST])["source"]
    assert "source" not in check_gates(variant("x", 0.9, 10), Limits(max_size=5), ACCURACY, 0.9)[0]


def test_an_allowed_drop_may_be_a_part_of_the_baseline_where_there_are_no_points():
    """Of an error the part counts, of a fraction the points, if there are any."""
    both = MaxDrop(1.0, part=0.02)
    assert both.limit(ACCURACY, 0.9) == 1.0
    assert both.limit(ERROR, -50.0) == 1.0
    assert both.limit(ERROR, 10.0) == 0.2
    assert MaxDrop(part=0.02).limit(ACCURACY, 0.9) == pytest.approx(1.8)
    assert both.allows(ACCURACY, 0.90, 0.895)
    assert not both.allows(ACCURACY, 0.90, 0.88)
    assert both.allows(ERROR, 10.0, 10.1)
    assert not both.allows(ERROR, 10.0, 10.3)


def test_what_is_not_a_number_keeps_no_limit():
    """A model that diverged is not within any drop, however large."""
    assert not within(drop_points(ERROR, 1.0, math.nan), math.inf)
    assert not MaxDrop(part=1e9).allows(ERROR, 1.0, math.nan)


@pytest.mark.parametrize(
    ("text", "drop"),
    [
        ("1", MaxDrop(points=1.0)), (0.5, MaxDrop(points=0.5)), (" 0 ", MaxDrop(points=0.0)),
        ("5%", MaxDrop(part=0.05)), ("2.5 %", MaxDrop(part=0.025)),
    ],
)  # fmt: skip
def test_a_number_is_points_and_a_percentage_a_part_of_the_value(text, drop):
    """On the command line, in recipes and in Python alike."""
    assert MaxDrop.parse(text) == drop
    assert Limits(max_drop=text).drop == drop


@pytest.mark.parametrize("text", ["", "%", "much", "5%%", "-1", "-5%", "nan", "inf", "inf%", "1,5", "5 points"])
def test_limits_that_are_no_drop_are_refused_when_they_are_made(text):
    """Before a build begins, with both ways to write one."""
    with pytest.raises(UsageError, match="not understood") as raised:
        Limits(max_drop=text)
    assert '"1"' in str(raised.value)
    assert '"5%"' in str(raised.value)


def test_points_of_a_metric_in_its_own_unit_are_refused():
    """An error of 0.0135 could lose two whole units; the message says what to write instead."""
    with pytest.raises(UsageError, match="--max-drop 5%"):
        MaxDrop(points=2.0).limit(ERROR, 0.0135)


def timed(name, gzip_bytes, ms, p95=None, baseline=False, **entry):
    row = variant(name, 0.9, gzip_bytes, baseline=baseline)
    row["latency"] = {"measured": [{"device": "host: x86", "median_ms": ms, "p95_ms": p95 or ms, **entry}]}
    return row


def test_what_was_measured_slower_is_not_picked_for_its_size():
    """Balanced takes the smallest that is not slower, if one fits; compact is about bytes alone."""
    rows = [timed("float32", 1000, 1.0, baseline=True), timed("dynamic", 400, 1.1), timed("int8", 300, 6.0)]
    assert choose(rows, Limits(), ACCURACY) == {"quality": "int8", "balanced": "dynamic", "compact": "int8"}
    assert choose(rows, Limits(max_size=700), ACCURACY)["balanced"] == "int8"


@pytest.mark.parametrize(
    ("baseline", "other", "factor"),
    [
        ({"ms": 1.0}, {"ms": 6.0}, 6.0),
        ({"ms": 1.0}, {"ms": 1.9}, None),  # where other kernels run than on the target
        ({"ms": 1.0, "p95": 9.0}, {"ms": 6.0}, None),  # noise
        ({"ms": 1.0, "target": "rpi4"}, {"ms": 1.2, "target": "rpi4"}, 1.2),
        ({"ms": 1.0, "target": "rpi4"}, {"ms": 1.05, "target": "rpi4"}, None),
        ({"ms": 1.0, "threads": 1}, {"ms": 6.0, "threads": 4}, None),  # not comparable
    ],
)
def test_slower_is_what_was_measured_clearly_slower(baseline, other, factor):
    """Under the same conditions, past the noise, and on other machines than the target only by a multiple."""
    found = slowdown(timed("int8", 300, **other), timed("float32", 1000, baseline=True, **baseline))
    assert found == (None if factor is None else Slowdown(factor, "host: x86"))


def test_the_target_decides_where_it_was_measured():
    """A slow host does not count against a file that is fast on the board."""
    rows = [timed("float32", 1000, 1.0, baseline=True), timed("int8", 300, 9.0)]
    for row, ms in zip(rows, (5.0, 2.0), strict=True):
        row["latency"]["measured"].append({"device": "board", "target": "rpi4", "median_ms": ms, "p95_ms": ms})
    assert slowdown(rows[1], rows[0]) is None


def estimated(name, gzip_bytes, ms, baseline=False):
    row = variant(name, 0.90, gzip_bytes, baseline=baseline)
    row["latency"]["estimated"] = {"median_ms": ms}
    return row


def test_the_fastest_on_the_target_is_picked_and_the_smallest_of_those_as_fast():
    """Zeros make a smaller file of the same speed; fewer filters are faster, and beat it."""
    rows = [estimated("float32", 1000, 3.0, baseline=True), estimated("int8", 300, 1.0), estimated("zeros", 200, 1.05)]
    assert choose(rows, Limits(), ACCURACY)["balanced"] == "zeros"
    rows.append(estimated("filters", 250, 0.6))
    assert choose(rows, Limits(), ACCURACY)["balanced"] == "filters"
    assert choose(rows, Limits(max_size=450), ACCURACY)["balanced"] == "zeros"


def test_times_are_compared_if_all_are_of_one_kind():
    """What was measured on the target counts before estimates, and neither where one variant has no such figure."""
    rows = [estimated("float32", 1000, 3.0, baseline=True), estimated("int8", 300, 1.0), estimated("zeros", 200, 1.0)]
    for row, ms in zip(rows, (5.0, 1.0, 2.0), strict=True):
        row["latency"]["measured"].append({"device": "board", "target": "rpi4", "median_ms": ms})
    assert choose(rows, Limits(), ACCURACY)["balanced"] == "int8"
    assert target_times(rows).measured
    del rows[0]["latency"]["measured"][1]
    assert choose(rows, Limits(), ACCURACY)["balanced"] == "zeros"
    del rows[0]["latency"]["estimated"]
    assert target_times(rows) is None


def flashed(name, validation, flash, ram, recorded_by="tflite-micro 0.dev1"):
    made = {"flash_bytes": flash, "ram_bytes": ram, "plain_bytes": 2 * flash, "recorded_by": recorded_by}
    parts = {"activation_bytes": ram - 3, "persistent_bytes": 2, "scratch_bytes": 1}
    return {**variant(name, validation, 10), "micro": made | parts}


def test_a_microcontroller_gets_what_is_made_for_it():
    """Only files for it are picked, by flash; the memory of the board decides, and float files have none."""
    rows = [VARIANTS[0], flashed("int8", 0.9, 900, 50), flashed("zeros", 0.895, 500, 60), flashed("tiny", 0.5, 100, 10)]
    assert choose(rows, Limits(), ACCURACY) == {"quality": "int8", "balanced": "zeros", "compact": "tiny"}
    assert choose(rows, Limits(max_ram=55), ACCURACY)["balanced"] == "int8"
    assert choose(rows, Limits(max_flash=400), ACCURACY)["balanced"] == "int8"  # none keeps both limits


def test_gates_of_flash_and_ram():
    """Each says where its figure comes from; a file that is not for microcontrollers has no figure and misses both."""
    flash, ram = check_gates(flashed("int8", 0.9, 900, 50, None), Limits(max_flash=900, max_ram=40), ACCURACY, 0.9)
    assert (flash["value"], flash["passed"], flash["source"]) == (900, True, "1,800 bytes not encoded")
    assert (ram["value"], ram["passed"]) == (50, False)
    assert ram["source"].startswith("49 estimated from the file")
    assert ram["source"].endswith("1 for optimized kernels")
    (row,) = check_gates(VARIANTS[0], Limits(max_flash=900), ACCURACY, 0.9)
    assert (row["value"], row["passed"]) == (None, False)


def test_a_board_has_its_own_limits():
    """Flash and RAM are the board's unless said otherwise; other boards have none to limit."""
    board = load_target("arduino-nano33")
    limits = Limits(max_ram=1000).on(board)
    assert (limits.max_flash, limits.max_ram) == (2**20, 1000)
    assert Limits().on(load_target("cortex-m4")) == Limits()
    assert Limits(max_size=5).on(load_target("rpi4")) == Limits(max_size=5)
    assert Limits(max_flash=5).on(load_target("rpi4")) == Limits()


def test_limits_of_flash_need_a_microcontroller():
    """They are refused where none of the targets is one, and hold for those that are."""
    Limits(max_flash=5).check([load_target("rpi4"), board := load_target("arduino-nano33")])
    assert Limits(max_flash=5).on(board).max_flash == 5
    with pytest.raises(UsageError, match="rpi4 is none"):
        Limits(max_flash=5).check([load_target("rpi4")])


@pytest.mark.parametrize(("text", "value"), [("65536", 65536), ("64k", 65536), (" 1.5M ", 1572864)])
def test_amounts_of_memory(text, value):
    """Bytes, KiB, MiB."""
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text", ["", "k", "64kb", "-3", "0", "1e3"])
def test_what_is_no_amount_of_memory(text):
    """Is an error that says how to write one."""
    with pytest.raises(UsageError, match="64k"):
        parse_bytes(text)


@pytest.mark.parametrize("limit", ["max_size", "max_latency", "max_flash", "max_ram"])
@pytest.mark.parametrize("most", [0, -1, math.nan, math.inf])
def test_a_limit_that_no_file_can_meet_or_miss_is_refused(limit, most):
    """With the option that it came from, before anything is built."""
    with pytest.raises(UsageError, match=f"--{limit.replace('_', '-')} .* is no limit for a file"):
        Limits(**{limit: most})
