"""A report as a build writes it (figures made up, plausible), and variations that a view must cope with."""

import copy
import functools
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from matrix import representatives

from edgeprune.evaluate.answers import Answers
from edgeprune.report.outcomes import describe_samples, outcomes, positions
from edgeprune.report.schema import parse
from edgeprune.report.views import render
from edgeprune.tasks.task import Output

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


def placed():
    """A pick whose operators are known, on a board with an accelerator: two branches, one operator on the CPU."""
    report = estimated()
    reads = [[], [0], [1], [0], [2, 3], [4]]
    names = ["QUANTIZE", "CONV_2D", "CONV_2D", "CONV_2D", "ADD", "SOFTMAX"]
    report["variants"][3]["operators"] = [
        {
            "index": index, "name": name, "output_name": f"tensor {index}", "output_shape": [1, 8, 8, 4],
            "dtype": "int8", "macs": 1000 * index, "weight_bytes": 100 * index, "reads": reads[index],
            "weight_sparsity": 0.5 if name == "CONV_2D" else None, "estimated_ms": 0.1 * index,
            "on_accelerator": name != "SOFTMAX",
        }
        for index, name in enumerate(names)
    ]  # fmt: skip
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
        "rounded": {"layers": 2, "nearest": 2.5e-3, "moments": 1.25e-4, "used": True},
    }
    return report


def collect(output, labels, answers):
    """What a file answered, as the evaluation of a build collects it."""
    answered = Answers([output])
    answered.add(labels, [answers.astype(np.float32)])
    return answered


def with_outcomes(report, output, labels, before, after, inputs, folder=None, class_names=None):
    """The report with the answers of its baseline and its pick; pictures of images go into ``folder``."""
    pair = collect(output, labels, before), collect(output, labels, after)
    parts = outcomes(*pair, class_names, output.name)
    describe_samples(parts["flipped"], [array[positions(parts["flipped"])] for array in inputs], folder)
    report["variants"][0]["outcomes"], report["variants"][3]["outcomes"] = parts["baseline"], parts["pick"]
    return {**report, "flipped": parts["flipped"], "class_names": parts["class_names"]}


def digits(folder):
    """A classifier of ten named classes, with pictures of the flipped samples in ``folder``."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 2000)
    before = 2.2 * np.eye(10)[labels] + rng.gumbel(size=(2000, 10)) * 0.55
    after = before + rng.normal(size=(2000, 10)) * 0.4 - 0.7 * (np.arange(10) == 3)
    rows, columns = np.mgrid[:32, :32] / 32
    images = np.stack([rows, columns, rows * columns], -1) * (0.3 + 0.07 * labels)[:, None, None, None]
    output = Output("logits", kind="classification", classes=10, is_logits=True)
    report = with_outcomes(
        sample(), output, labels, before, after, [images], folder,
        ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    )  # fmt: skip
    for variant in report["variants"]:
        accuracy = {"value": variant["metric"]["value"], "higher_is_better": True, "points": 100.0}
        loss = {"value": 0.4 + (1 - accuracy["value"]), "higher_is_better": False, "points": 1.0}
        common = {"samples": 10000, "split": "test"}
        variant["metrics"] = {"accuracy": {**accuracy, **common}, "log_loss": {**loss, **common}}
    return report


def explained():
    """Channels chosen under two limits, one of which binds: a group in the middle, one whole, one at its narrowest."""
    report = sample()

    def step(loss, ms, worth):
        return {"channels": 8, "loss": loss, "saved": {"macs": 1e6 * ms, "latency": ms}, "worth": worth}

    def reason(name, channels, kept, losses, last, following):
        curve = [{"channels": channels - 8 * number, "loss": loss} for number, loss in enumerate(losses)]
        loss = next(point["loss"] for point in curve if point["channels"] == kept)
        steps = {"last": last, "next": following}
        return {"name": name, "channels": channels, "kept": kept, "loss": loss, **steps, "curve": curve}

    reasons = [
        reason("stem", 16, 16, [0.0, 9.0], None, step(9.0, 0.02, 1.0)),
        reason("block", 32, 16, [0.0, 1.0, 3.0, 8.0], step(2.0, 0.05, 2.5), step(5.0, 0.05, 2.5)),
        reason("late", 24, 8, [0.0, 0.4, 1.0], step(0.6, 0.2, 10.0), None),
    ]
    limits = [
        {"name": "latency", "value": 0.9, "most": 1.0, "price": 0.5},
        {"name": "macs", "value": 1.5e6, "most": 2e6, "price": 0.0},
    ]
    chosen = {"loss": 4.0, "bound": 4.0, "seconds": 0.5, "multiple": 8, "widths": None}
    gone = {"block": [0, 1, 2, 7, 9, *range(21, 32)], "late": None, "stem": []}
    channels = [
        {"name": name, "layers": [f"{name}_conv"], "original": 32, "gone": numbers, "frozen": None}
        for name, numbers in gone.items()
    ]
    pruning = {"name": "filters", "criterion": "reconstruct", "channels": channels}
    report["pruning"] = [{**pruning, "allocation": {**chosen, "limits": limits, "reasons": reasons}}]
    return report


def differing():
    """A table classified into three classes without names, one of which is never answered."""
    rng = np.random.default_rng(1)
    labels, inputs = rng.integers(0, 3, 300), rng.normal(size=(300, 4))
    before = np.abs(np.eye(3)[labels] - 0.3 * rng.random((300, 3)))
    after = before * (1, 1, 0)
    after += 0.3 * rng.random((300, 3)) * (1, 1, 0)
    output = Output("kind", kind="classification", classes=3)
    return with_outcomes(sample(), output, labels, before, after, [inputs])


def residuals():
    """Two angles from windows of a sensor: residuals, and the samples whose error grew most."""
    rng = np.random.default_rng(2)
    truth, inputs = rng.normal(size=(500, 2)), rng.normal(size=(500, 64, 6))
    before = truth + 0.1 * rng.normal(size=truth.shape)
    after = truth + 0.05 + 0.16 * rng.normal(size=truth.shape)
    return with_outcomes(regression(), Output("angles", kind="regression"), truth, before, after, [inputs])


def masks():
    """A segmentation into 30 classes: no drawn matrix, 25 classes shown."""
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 30, (40, 8, 8))
    before = np.eye(30)[truth] + 0.9 * rng.random((40, 8, 8, 30))
    after = np.eye(30)[truth] + 1.2 * rng.random((40, 8, 8, 30))
    output = Output("mask", kind="segmentation", classes=30)
    return with_outcomes(sample(), output, truth, before, after, [rng.normal(size=(40, 16, 16, 5))])


VARIATIONS = {
    make.__name__: make
    for make in (
        sample,
        only_baseline,
        missed_gate,
        regression,
        nothing_measured,
        crowded,
        estimated,
        placed,
        quantized,
        explained,
        differing,
        residuals,
        masks,
    )
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


# What these have beside the others is drawn by tests of the modules that draw it.
DRAWN = ("regression", "residuals", "placed", "estimated", "differing", "masks")


@pytest.fixture(params=representatives(VARIATIONS, *(name for name in VARIATIONS if name not in DRAWN)))
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


@pytest.fixture(scope="session")
def pictured(tmp_path_factory):
    """The report on ten classes of images, and its run folder; not to be changed."""
    folder = tmp_path_factory.mktemp("pictured")
    return digits(folder), folder


@pytest.fixture
def collected():
    """Makes the answers of a file with one output: (output, labels, answers)."""
    return collect
