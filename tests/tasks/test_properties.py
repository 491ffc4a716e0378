"""What holds for any task: figures as Keras has them, directions, picks, and no loss that the labels do not fit."""

import math
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from random_tasks import Made, RandomTask, model_of, tasks, uncompiled

from edgeprune.convert.converter import convert
from edgeprune.data import load_data
from edgeprune.data.spec import InputSpec
from edgeprune.errors import DataError, RecipeError, UsageError
from edgeprune.evaluate.accuracy import evaluate_tflite, keras_figures
from edgeprune.models.compiled import live_objects
from edgeprune.models.load import open_model
from edgeprune.progress import Progress
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.recipe.config import DataConfig, TaskConfig
from edgeprune.runtime.interpreter import find_runtime
from edgeprune.runtime.session import Session
from edgeprune.selection import Limits, check_gates, choose, drop_points
from edgeprune.tasks.losses import takes_logits
from edgeprune.tasks.resolve import resolve_task

pytestmark = pytest.mark.filterwarnings("ignore")

# Models are built for each example: no time limit per example; examples that Keras itself refuses are left out.
# No shrinking: it takes minutes here, and the example that failed says enough.
PHASES = (Phase.explicit, Phase.generate)
FEW = {
    "deadline": None,
    "phases": PHASES,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
    "database": None,
}
MANY = {**FEW, "derandomize": False}
_NAME = re.compile(r"(?:name='|own\.)(\w+)'?\)?$")
CLOSE = {"rel": 1e-4, "abs": 1e-4, "nan_ok": True}


def _prepared(made: Made, folder: Path):
    """(model, task, data in the task's form) of what is handed over, as a build has them."""
    source = made.source(folder)
    objects = made.objects if isinstance(source, Path) else live_objects(source)
    opened = open_model(source, custom_objects=made.objects if isinstance(source, Path) else None)
    data = load_data(made.data(), DataConfig(), InputSpec.of(opened.model))
    task = resolve_task(opened.model, TaskConfig(**made.config()), data, opened.compiled, objects)
    return opened.model, task, task.prepare(data)


def _expected(random: RandomTask):
    """(what the task stands for, what Keras says of it), or None where Keras does not take it."""
    # Keras refuses combinations with any type of error.
    try:
        made = Made(random)
        made.compile()
        return made, made.evaluated()
    except Exception:
        return None


def _check_figures(random: RandomTask, task, figures, expected):
    """Each metric that Keras reports is reported with the same value; where there is none, the loss or its metric.

    One of the user's own that is not the first needs no direction: it is left out, and a warning names it. Of classes
    per pixel there is the mean intersection over union, too, whether the model was compiled with it or not.
    """
    several = len(random.heads) > 1
    for name, head in zip(random.names, random.heads, strict=True):
        start = f"{name}." if several else ""
        ours = {key.removeprefix(start): value for key, value in figures.items() if key.startswith(start)}
        theirs = {key.removeprefix(start): value for key, value in expected.items() if key.startswith(start)}
        loss = theirs.pop("loss", None)
        if "mean_iou" not in theirs and any(o.name == name and o.kind == "segmentation" for o in task.outputs):
            ours.pop("mean_iou", None)
        if head.loss is None:
            assert ours == {}
        elif head.metrics or head.weighted_metrics:
            for text in (*head.metrics, *head.weighted_metrics)[1:]:
                if "own." in text:
                    own = _NAME.search(text)[1]
                    assert any(f"The metric {own!r}" in said and "not reported" in said for said in task.warnings)
                    del theirs[next(key for key in theirs if re.fullmatch(rf"{own}(_\d+)?", key))]
            assert _by_kind(ours) == pytest.approx(_by_kind(theirs), **CLOSE)
        else:
            ((metric, value),) = ours.items()
            if metric not in ("accuracy", "binary_accuracy") and loss is not None:
                assert value == pytest.approx(loss, **CLOSE)


def _by_kind(figures):
    """Values in order under names without what tells objects of one name apart.

    Keras gives them numbers, over all models of a process; here, one with weights says so beside one without.
    """
    kinds = {}
    for name, value in figures.items():
        kinds.setdefault(re.sub(r"_\d+$", "", name).replace("weighted_", ""), []).append(float(np.squeeze(value)))
    return {f"{kind}#{number}": value for kind, values in kinds.items() for number, value in enumerate(sorted(values))}


def _asks(error: RecipeError | DataError):
    """The build ends with exit code 2 and a line to write."""
    assert error.exit_code == 2
    assert re.search(r"\[task|subtract|labels", str(error)), str(error)


def _check_as_keras(random: RandomTask):
    found = _expected(random)
    if found is None:
        return
    made, expected = found
    with tempfile.TemporaryDirectory() as folder:
        try:
            model, task, data = _prepared(made, Path(folder))
        except (RecipeError, DataError) as error:
            _asks(error)
            # Only what the user made themselves has to be explained.
            assert "own." in repr(random), str(error)  # noqa: PT017
            return
    _check_figures(random, task, keras_figures(model, data.test, task), expected)
    _check_directions(model, task, data, made)


def _check_directions(model, task, data, made: Made):
    """A metric moves into its direction when the outputs are moved to the labels."""
    (x, y, *w) = next(iter(data.test.batches(data.test.size)))
    several = len(task.outputs) > 1
    outputs = [np.asarray(output) for output in (model(x) if several else [model(x)])]
    ideals = [made.ideal(i, outputs[i]) for i in range(len(outputs))]
    for metric in task.metrics:
        head = made.task.heads[metric.output]
        if head.labels == "distributions":
            continue

        def figure(output, metric=metric):
            meter = task.meter([metric])
            meter.update(x, y, [*outputs[: metric.output], output, *outputs[metric.output + 1 :]], *w)
            return np.mean(list(meter.result().values()))

        before, after = figure(outputs[metric.output]), [figure(ideal) for ideal in ideals[metric.output]]
        best = max(after) if metric.higher_is_better else min(after)
        if not math.isnan(before + best):
            assert best >= before - 1e-5 if metric.higher_is_better else best <= before + 1e-5, metric.name


@settings(max_examples=5, **FEW)
@given(tasks())
def test_figures_and_directions_are_those_of_keras(random):
    """Whatever Keras evaluates is reported by name with the same value, and better is better; or the build asks."""
    _check_as_keras(random)


@pytest.mark.slow
@settings(max_examples=400, **MANY)
@given(tasks())
def test_figures_and_directions_are_those_of_keras_in_many_tasks(random):
    """As above, over more tasks."""
    _check_as_keras(random)


def _check_float32(random: RandomTask):
    found = _expected(random)
    if found is None:
        return
    made, expected = found
    with tempfile.TemporaryDirectory() as folder:
        try:
            model, task, data = _prepared(made, Path(folder))
        except (RecipeError, DataError) as error:
            _asks(error)
            return
        path = Path(folder) / "model.tflite"
        path.write_bytes(convert(model, QuantizationPlan("float32", "float", needs_samples=False)))
        session = Session(path, model.input_names, model.output_names, runtime=find_runtime(), threads=1)
        figures, _ = evaluate_tflite(session, data.test, task, progress=Progress())
        session.close()
    _check_figures(random, task, figures, expected)


@settings(max_examples=3, **FEW)
@given(tasks())
def test_a_float32_file_has_the_figures_of_keras(random):
    """The float32 .tflite has the figures of Keras' evaluate."""
    _check_float32(random)


@pytest.mark.slow
@settings(max_examples=100, **MANY)
@given(tasks())
def test_a_float32_file_has_the_figures_of_keras_in_many_tasks(random):
    """As above, over more tasks."""
    _check_float32(random)


def _check_uncompiled(random):
    model, x, y = model_of(random)

    def resolved(**config):
        part = (x, y)
        data = load_data({"train": part, "validation": part, "test": part}, DataConfig(), InputSpec.of(model))
        task = resolve_task(model, TaskConfig(**config), data)
        return task, task.prepare(data)

    try:
        task, data = resolved()
    except DataError as error:
        assert "Expected" in str(error)  # noqa: PT017
        return
    except RecipeError as error:
        kinds = re.findall(r'^ +kind = "(\w+)"', str(error), re.MULTILINE)
        assert len(kinds) > 1
        for kind in set(kinds):  # the last is "teacher"
            resolved(kind=kind)
        return
    labels, outputs = _one_batch(model, data)
    loss = task.loss_function()
    before = float(loss(labels, outputs))
    assert math.isfinite(before)
    (output,) = task.outputs
    sums_to_one = y.ndim > 1 and np.allclose(y.sum(-1), 1)
    if y.dtype.kind == "f" and not (np.floor(y) == y).all() and not sums_to_one:
        assert "crossentropy" not in output.loss.name
    values = y
    if output.kind != "regression" and output.width > 1 and y.shape != outputs.shape:
        values = np.eye(output.width)[y.reshape(outputs.shape[:-1]).astype(int)]
    ideal = values.reshape(outputs.shape).astype(np.float32)
    if output.kind != "regression":
        ideal = 8 * ideal - 4 if takes_logits(output.loss) else ideal * 0.998 + 0.001
    assert float(loss(labels, ideal)) <= before + 1e-6


def _one_batch(model, data):
    x, y, *_ = next(iter(data.test.batches(data.test.size)))
    return y, np.asarray(model(x))


@settings(max_examples=5, **FEW)
@given(uncompiled())
def test_without_compile_information_the_loss_fits_or_is_asked_for(random):
    """A loss is finite, falls towards the labels and is no cross-entropy of other numbers; or each line works."""
    _check_uncompiled(random)


@pytest.mark.slow
@settings(max_examples=1500, **MANY)
@given(uncompiled())
def test_without_compile_information_the_loss_fits_or_is_asked_for_in_many_cases(random):
    """As above, over more of them."""
    _check_uncompiled(random)


# --- picks


class Scale:
    """A metric as picks see it."""

    def __init__(self, higher_is_better: bool, points: float):
        self.higher_is_better, self.points = higher_is_better, points


@st.composite
def builds(draw):
    """(metric, variants, limits)."""
    fraction = draw(st.booleans())
    metric = Scale(draw(st.booleans()), 100.0 if fraction else 1.0)
    # Few different values, so that ties and limits are met; binary fractions, so that differences are exact.
    values = st.sampled_from(
        [0.0, 0.25, 0.5, 0.515625, 0.53125, 0.75, 1.0] if fraction else [0.0, 1.0, 16.0, 17.0, 32.0]
    )
    values = st.one_of(values, values, values, st.just(math.nan))
    count = draw(st.integers(1, 6))
    baseline = draw(st.integers(0, count - 1))
    variants = []
    for i in range(count):
        value, test = draw(values), draw(values)
        variants.append(
            {
                "name": f"v{i}",
                "baseline": i == baseline,
                "control_of": "v0" if i != baseline and draw(st.integers(0, 5)) == 0 else None,
                "validation": {"value": value},
                "test": {"value": test},
                "bytes": draw(st.integers(1, 4)),
                "gzip_bytes": draw(st.integers(1, 4)),
                "latency": {"measured": [{"median_ms": draw(st.sampled_from([1.0, 2.0, 3.0])), "device": "here"}]},
            }
        )
    limits = Limits(
        draw(st.sampled_from([None, "0", "1", 25, "5%", "50%", "0%"])),
        draw(st.sampled_from([None, 1, 3])),
        draw(st.sampled_from([None, 1.0, 2.5])),
    )
    return metric, variants, limits


def _worse(metric, baseline, value):
    return baseline - value if metric.higher_is_better else value - baseline


def _keeps(metric, max_drop, baseline, value):
    """The rule: fractions in points, "P%" relative to the baseline; default 2 points, or 5 % of other metrics."""
    fraction = metric.points == 100
    words = {True: "2", False: "5%"}[fraction] if max_drop is None else str(max_drop)
    if words.endswith("%"):
        return _worse(metric, baseline, value) <= float(words[:-1]) / 100 * abs(baseline)
    return 100 * _worse(metric, baseline, value) <= float(words)


@settings(max_examples=400, **FEW)
@given(builds())
def test_picks_and_gates_follow_the_rule(build):
    """The picks and gates are those that a plain reading of the rule gives, for any metric and any limits."""
    metric, variants, limits = build
    baseline = next(variant for variant in variants if variant["baseline"])
    if metric.points != 100 and limits.max_drop is not None and "%" not in str(limits.max_drop):
        with pytest.raises(UsageError, match=r"max-drop 5%"):
            choose(variants, limits, metric)
        return
    picks = choose(variants, limits, metric)
    by_name = {variant["name"]: variant for variant in variants}
    eligible = [variant for variant in variants if not variant["control_of"]]
    assert all(by_name[name] in eligible for name in picks.values())

    quality = by_name[picks["quality"]]
    for other in eligible:
        gain = -_worse(metric, quality["validation"]["value"], other["validation"]["value"])
        assert not gain > 0
        if gain == 0:
            assert quality["gzip_bytes"] <= other["gzip_bytes"]
        if math.isnan(quality["validation"]["value"]):
            assert math.isnan(other["validation"]["value"])

    def fits(variant):
        return (
            _keeps(metric, limits.max_drop, baseline["validation"]["value"], variant["validation"]["value"])
            and (limits.max_size is None or variant["bytes"] <= limits.max_size)
            and (limits.max_latency is None or variant["latency"]["measured"][0]["median_ms"] <= limits.max_latency)
        )

    def size(variant):
        return variant["gzip_bytes"], variant["bytes"]

    fitting = [variant for variant in eligible if fits(variant)]
    balanced = by_name[picks["balanced"]]
    assert (fits(balanced) and size(balanced) == min(map(size, fitting))) if fitting else balanced is quality
    assert size(by_name[picks["compact"]]) == min(map(size, eligible))

    pick = {**balanced, "drop_points": drop_points(metric, baseline["test"]["value"], balanced["test"]["value"])}
    gates = {gate["name"]: gate["passed"] for gate in check_gates(pick, limits, metric, baseline["test"]["value"])}
    expected = {}
    if limits.max_drop is not None:
        expected["max_drop"] = _keeps(metric, limits.max_drop, baseline["test"]["value"], balanced["test"]["value"])
    if limits.max_size is not None:
        expected["max_size"] = balanced["bytes"] <= limits.max_size
    if limits.max_latency is not None:
        expected["max_latency"] = balanced["latency"]["measured"][0]["median_ms"] <= limits.max_latency
    assert gates == expected
