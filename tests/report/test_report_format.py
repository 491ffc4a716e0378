"""How figures read."""

import math

import pytest

from edgeprune.report import format as fmt
from edgeprune.report.blocks import ABSENT
from edgeprune.report.schema import Metric

ACCURACY = Metric(name="sparse_categorical_accuracy", higher_is_better=True, points=100.0)
ERROR = Metric(name="mae", higher_is_better=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (512, "512 B"), (999, "999 B"), (1000, "1.00 kB"), (95440, "95.4 kB"), (59_999, "60.0 kB"),
     (327_984, "328 kB"), (999_700, "1.00 MB"), (16_900_000, "16.9 MB"), (2_000_000_000, "2.00 GB")],
)  # fmt: skip
def test_bytes(value, text):
    """Three significant digits with a decimal prefix, whole bytes below 1 kB, the exact number along with it."""
    cell = fmt.size(value)
    assert cell.text == text
    assert cell.exact == f"{value:,} bytes"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.000123456, "0.000123"), (0.19321, "0.193"), (95.44, "95.4"), (1234.5, "1,234"), (-0.5, "−0.500")],
)
def test_short_numbers_have_no_exponent(value, text):
    """Three significant digits, never an exponent."""
    assert fmt.short(value) == text


def test_what_is_missing_is_a_dash_with_its_meaning_and_never_zero():
    """Each formatter of a figure that may be missing says so."""
    cells = [fmt.size(None), fmt.count(None, "parameters"), fmt.share(None, ""), fmt.metric_value(ACCURACY, None)]
    for cell in cells:
        assert cell.text == ABSENT
        assert cell.exact
        assert "0" not in cell.exact


def test_not_a_number_is_said_in_words():
    """A metric of a diverged training does not break the view."""
    assert fmt.metric_value(ACCURACY, math.nan).text == "not a number"
    assert fmt.short(math.nan) == "not a number"


def test_metrics_read_by_their_kind():
    """Fractions are per cent and their drops points; other metrics keep their own numbers and name."""
    assert fmt.metric_value(ACCURACY, 0.83456).text == "83.46 %"
    assert fmt.points(ACCURACY, 1.03) == "1.03 points of accuracy"
    assert fmt.metric_value(ERROR, 2.3141).text == "2.314"
    assert fmt.points(ERROR, 0.1) == "0.1 in MAE"
    assert fmt.metric_name(Metric(name="mean_io_u", higher_is_better=True)) == "Mean IoU"
    assert fmt.metric_name(Metric(name="losses.py:iou", higher_is_better=True)) == "losses.py:iou"


def test_shapes_of_one_and_of_several_tensors():
    """Free dimensions are words; several tensors stand side by side."""
    assert fmt.shape([None, 32, 32, 3]) == "any × 32 × 32 × 3"
    assert fmt.shape([[None, 8], [None, 1]]) == "any × 8; any × 1"
    assert fmt.shape({"image": [None, 8], "age": [None, 1]}) == "image: any × 8; age: any × 1"


def test_durations():
    """Seconds up to two minutes, then minutes."""
    assert [fmt.seconds(value) for value in (0.0004, 0.0412, 63.1, 724.4)] == [
        "< 0.01 s",
        "0.04 s",
        "63.1 s",
        "12 min 4 s",
    ]


def test_comparisons_in_words():
    """Smaller, larger, or about the same; nothing where one is missing."""
    assert fmt.relative(29, 100) == "71 % smaller"
    assert fmt.relative(150, 100) == "50 % larger"
    assert fmt.relative(100.2, 100) == "about the same"
    assert fmt.relative(None, 100) == fmt.relative(100, None) == ""


def test_changes_are_relative_where_a_metric_has_a_unit_of_its_own():
    """Fractions change by points; others in per cent of the value before, and words say the direction."""
    assert fmt.difference(ACCURACY, 0.81, 0.8).text == "+1.00 points"
    assert fmt.difference(ERROR, 0.0147, 0.0135).text == "+8.9 % (worse)"
    assert fmt.difference(ERROR, 0.0120, 0.0135).text == "−11 % (better)"
    assert fmt.difference(ERROR, 0.5, 0.5).text == "0 (same)"
    assert fmt.difference(ERROR, 0.5, 0.0).text == "+0.500 (worse)"
    r2 = Metric(name="r2_score", higher_is_better=True)
    assert fmt.difference(r2, -1.0, -2.0).text == "+50 % (better)"
    assert fmt.difference(r2, math.nan, 0.9).text == ABSENT
