import numpy as np
import pytest

from edgeprune.devices import host
from edgeprune.errors import UsageError


@pytest.mark.parametrize("name", ["float32", "int8"])
@pytest.mark.parametrize(("kernels", "ran"), [("default", "xnnpack"), ("builtin", "builtin")])
def test_latency_says_what_was_measured(tiny_files, name, kernels, ran):
    """A measurement names device, runtime, threads and the kernels that ran, and its figures are ordered."""
    found = host.measure_latency(tiny_files[name], threads=1, kernels=kernels)
    assert found["device"] == f"host: {host.cpu_model()}"
    assert found["runtime"].startswith("ai-edge-litert ")
    assert (found["threads"], found["kernels"]) == (1, ran)
    assert 50 <= found["runs"] <= 500
    assert 0 < found["min_ms"] <= found["median_ms"] <= found["p95_ms"] <= found["max_ms"]


def test_fast_models_run_more_often_than_asked(tiny_files):
    """A model of microseconds is run up to the limit, as 50 runs would be over before the clock settles."""
    assert host.measure_latency(tiny_files["float32"])["runs"] == 500


@pytest.mark.parametrize(("runs", "warmup"), [(49, 5), (50, 0)])
def test_too_few_runs_are_refused(tiny_files, runs, warmup):
    """Fewer than 50 runs, or no warm-up, is a usage error."""
    with pytest.raises(UsageError, match="too few"):
        host.measure_latency(tiny_files["float32"], runs=runs, warmup=warmup)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [(np.float32, 0, 1), (np.int8, -128, 127), (np.uint8, 0, 255), (np.int16, -32768, 32767), (np.int64, 0, 0)],
)
def test_random_inputs_fill_the_range_of_their_type(dtype, low, high):
    """Floats lie in [0, 1), small integers use their whole range, wide ones are zero."""
    values = host.random_input({"dtype": dtype, "shape": (1, 64, 64, 16)}, np.random.default_rng(0))
    assert values.dtype == dtype
    assert (values.min(), values.max()) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3)) or (
        dtype == np.int16 and values.min() < -32000 and values.max() > 32000
    )


def test_the_processor_has_a_name():
    """The name of the processor is one line of text."""
    assert host.cpu_model().strip()
    assert "\n" not in host.cpu_model()
