"""report.json: what is said of a build as a whole."""

from types import SimpleNamespace

import pytest

from edgeprune.report.document import seen_validation


def _said(validation, test, samples=(5000, 10000), split="test", higher=True, points=100):
    baseline = {
        "validation": {"value": validation, "samples": samples[0]},
        "metric": {"value": test, "samples": samples[1], "split": split},
    }
    return seen_validation(baseline, SimpleNamespace(metric="accuracy", higher_is_better=higher, points=points))


def test_validation_data_that_the_model_knows_are_said():
    """With both figures and what to give: a model that is far better there than on test data has learned them."""
    (warning,) = _said(0.983, 0.840)
    assert "0.983 on validation and 0.84 on test" in warning
    assert "validation/" in warning


@pytest.mark.parametrize(
    "case",
    [
        {"validation": 0.845, "test": 0.838},
        {"validation": 0.80, "test": 0.838},
        {"validation": 0.90, "test": 0.80, "samples": (40, 60)},
        {"validation": 1.0, "test": 1.0},
        {"validation": 0.983, "test": 0.840, "split": "validation"},
        {"validation": 9.0, "test": 3.0, "points": 1},
        {"validation": 0.9, "test": 0.2, "higher": False},
    ],
    ids=["nearly equal", "worse", "few samples", "perfect", "no test data", "own unit", "an error"],
)
def test_nothing_is_said_where_chance_explains_it(case):
    """Nor without test data, nor of metrics whose spread is not known."""
    assert _said(**case) == []
