"""A file on a device and here, whatever its task."""

import json

import numpy as np
import pytest
from matrix import representatives
from task_files import KINDS

from edgeprune.data import InputSpec, load_data
from edgeprune.devices.bench import bench
from edgeprune.devices.protocol import Job
from edgeprune.evaluate.accuracy import keras_figures
from edgeprune.evaluate.sample import compare_outputs, host_outputs, load_sample
from edgeprune.recipe.config import DataConfig, TaskConfig
from edgeprune.tasks.resolve import resolve_task
from edgeprune.tasks.stating import stated

IN_CLASSES = {"two_heads": True, "regression": False, "binary": True, "masks": True}


@pytest.fixture(scope="module", params=representatives(KINDS, "two_heads", "masks"))
def kind_and_made(request, tmp_path_factory):
    return request.param, KINDS[request.param](tmp_path_factory.mktemp(request.param))


def test_every_kind_is_measured_on_the_device(kind_and_made):
    """All 200 test samples, float32: the figures on the device and here are Keras' own; the outputs are equal."""
    kind, one = kind_and_made
    data = load_data(one.splits, DataConfig(), InputSpec.of(one.model))
    task = resolve_task(one.model, TaskConfig(), data)
    expected = keras_figures(one.model, task.prepare(data).test, task)
    files = (one.float32, one.int8)
    sample = load_sample(files, one.splits, DataConfig(), stated(task, TaskConfig()))
    assert sample.size == 200
    for result in json.loads(json.dumps(bench("host", Job(files, runs=10), sample=sample)))["results"]:
        found = result["accuracy"]
        close = 1e-4 if result["file"].endswith("float32.tflite") else 0.1
        for side in ("value", "host_value"):
            figures = {name: pair[side] for name, pair in found["metrics"].items()}
            assert figures == pytest.approx(expected, abs=close)
        assert found["metric"]["name"] == task.name
        assert found["metric"]["value"] == found["metrics"][task.name]["value"]
        assert (found["top1_agreement"], found["max_abs_error"]) == (1.0 if IN_CLASSES[kind] else None, 0.0)
        assert (found["accuracy"] is None) == (kind in ("regression", "masks"))
        assert found["agreement"] == 1


def test_what_needs_this_machine_is_none_without_it(kind_and_made):
    """A file that runs on the device only has its figures there, and nothing to compare with."""
    _, one = kind_and_made
    task = TaskConfig(kind="teacher")
    for config in (None, task):
        sample = load_sample((one.int8,), one.splits, DataConfig(), config)
        found = compare_outputs(host_outputs(one.int8, sample), None, sample, one.int8)
        assert (found["top1_agreement"], found["agreement"], found["outputs"]) == (None, None, None)
        assert (found["metric"] is None) == (config is task)
        assert config is task or found["metric"]["host_value"] is None


def test_outputs_that_differ_are_found(kind_and_made):
    """Outputs of the device that are off by one everywhere differ by one."""
    _, one = kind_and_made
    sample = load_sample((one.float32,), one.splits, DataConfig())
    here = host_outputs(one.float32, sample)
    found = compare_outputs([values + 1 for values in here], here, sample, one.float32)
    assert found["max_abs_error"] == pytest.approx(1)
    assert [output["max_abs_difference"] for output in found["outputs"].values()] == pytest.approx([1] * len(here))


def test_samples_are_chosen_at_random(kind_and_made):
    """The samples are 200 of the test part, with their labels."""
    _, one = kind_and_made
    x, _ = one.splits["test"]
    sample = load_sample((one.float32,), one.splits, DataConfig())
    assert not np.array_equal(sample.inputs[0], x)
    assert np.array_equal(np.sort(sample.inputs[0], 0), np.sort(x, 0))


def test_a_measurement_has_the_warnings_about_its_figures(kind_and_made):
    """As a comparison has: here, that samples are scaled otherwise than the file takes them."""
    _, one = kind_and_made
    files = (one.int8,)
    assert bench("host", Job(files, runs=2), sample=load_sample(files, one.splits, DataConfig()))["warnings"] == []
    sample = load_sample(files, one.splits, DataConfig(scale=1000.0))
    (warning,) = bench("host", Job(files, runs=2), sample=sample)["warnings"]
    assert "the .tflite takes" in warning
