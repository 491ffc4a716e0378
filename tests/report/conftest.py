"""A report as a build writes it (figures made up, plausible), and variations that a view must cope with."""

import copy
import functools
import hashlib
import json
from pathlib import Path

import pytest

from edgeprune.report.schema import parse
from edgeprune.report.views import render

SAMPLE = Path(__file__).parent / "sample_report.json"


def sample():
    return json.loads(SAMPLE.read_text("utf-8"))


def only_baseline():
    report = sample()
    report["variants"] = report["variants"][:1]
    return {
        **report, "pick": "float32", "picks": dict.fromkeys(report["picks"], "float32"),
        "gates": [], "training": [], "warnings": [],
    }  # fmt: skip


def missed_gate():
    report = sample()
    report["gates"][0] = {"name": "max_drop", "limit": 1.0, "value": 1.03, "passed": False}
    report["gates"].append({"name": "max_latency", "limit": 0.2, "value": 0.1239, "passed": True})
    return report


def regression():
    report = sample()
    report["metric"] = {"name": "mae", "higher_is_better": False, "points": 1.0}
    for variant, value in zip(report["variants"], (2.314, 2.351, 2.298, 2.402), strict=True):
        variant["metric"]["value"] = variant["validation"]["value"] = value
        variant["drop_points"] = round(value - 2.314, 4)
        variant["parity"]["top1_agreement"] = None
    for number, epoch in enumerate(report["training"][0]["epochs"]):
        epoch["metric"], epoch["val_metric"] = 2.6 - 0.1 * number, 2.7 - 0.1 * number
    report["gates"] = []
    return report


def nothing_measured():
    report = sample()
    for variant in report["variants"]:
        variant["latency"]["measured"] = []
        for key in ("gzip_bytes", "nonzero_params", "macs", "weight_sparsity", "metric", "parity", "drop_points"):
            variant[key] = None
        variant["memory"]["arena_bytes"] = variant["validation"] = None
    report["gates"] = [{"name": "max_latency", "limit": 1.0, "value": None, "passed": False}]
    report["training"] = []
    return report


def crowded():
    report = sample()
    for number in range(8):
        variant = copy.deepcopy(report["variants"][1 + 2 * (number % 2)])
        name = f"filters-0.{number}-int8"
        value = 0.8281 + 0.0004 * (number % 3)
        variant.update(name=name, file=f"variants/sample-resnet8-{name}.tflite", baseline=False, warnings=[])
        variant["sha256"] = hashlib.sha256(name.encode()).hexdigest()
        variant.update(bytes=95440 - 40 * number, gzip_bytes=60200 - 60 * number)
        variant["metric"]["value"], variant["drop_points"] = value, round(100 * (0.8377 - value), 4)
        report["variants"].append(variant)
    return report


def estimated():
    report = sample()
    for variant, median in zip(report["variants"], (8.4, 2.9, 8.4, 2.9), strict=True):
        variant["latency"]["estimated"] = {
            "median_ms": median, "low_ms": 0.8 * median, "high_ms": 1.3 * median, "threads": 4, "model_version": 1,
        }  # fmt: skip
    return report


def quantized():
    """Two outputs, a file that departs from its model, trials of mixed precision, and an equalized model."""
    report = sample()
    parity = report["variants"][1]["parity"]
    errors = {"max_abs_error": 0.25, "mean_abs_error": 0.03125}
    parity["outputs"] = [{"name": "classes", **errors, "top1_agreement": 0.97}]
    parity["outputs"].append({"name": "boxes", **errors, "top1_agreement": None})
    parity["origin"] = {
        "layer": "conv2d_3", "operator": "CONV_2D", "tensor": "a;b", "sqnr_db": 21.5, "sqnr_before_db": 36.25,
    }  # fmt: skip
    report["variants"][1]["mixed"] = {
        "float_layers": ["conv2d_3", "dense"],
        "trials": [
            {"float_operators": 0, "drop_points": 2.25, "bytes": 95000, "met": False, "chosen": False},
            {"float_operators": 2, "drop_points": 0.125, "bytes": 140000, "met": True, "chosen": True},
        ],
        "warnings": [],
    }
    report["variants"][3]["prepared"] = {
        "equalized": [{"producer": "conv2d", "consumer": "conv2d_1"}],
        "corrected_biases": ["conv2d", "dense"],
    }
    return report


VARIATIONS = {
    make.__name__: make
    for make in (sample, only_baseline, missed_gate, regression, nothing_measured, crowded, estimated, quantized)
}


@pytest.fixture
def report():
    """A fresh copy of the sample."""
    return sample()


@pytest.fixture(params=VARIATIONS)
def any_report(request):
    """Each of the variations in turn."""
    return VARIATIONS[request.param]()


@functools.lru_cache
def _html(name):
    return render(parse(VARIATIONS[name]()), "report.html")


@pytest.fixture(params=VARIATIONS)
def any_html(request):
    """report.html of each of the variations in turn; drawn once."""
    return _html(request.param)


@pytest.fixture
def html():
    """report.html of a variation by its name; drawn once."""
    return _html


@pytest.fixture
def variations():
    """Makers of reports by name."""
    return VARIATIONS
