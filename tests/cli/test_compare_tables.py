"""What ``compare`` and ``bench`` print of metrics."""

import io

import numpy as np
import pytest
from commands import run
from rich.console import Console
from rich.table import Table
from task_files import KINDS

from edgeprune.cli.bench_tables import _add_accuracy as add_of_bench
from edgeprune.cli.compare import _add_metrics


def printed(table, color=False):
    console = Console(file=io.StringIO(), width=200, force_terminal=color, color_system="standard" if color else None)
    console.print(table)
    return console.file.getvalue()


def compared(**pairs):
    table = Table("", "A", "B", "change")
    metrics = {
        name: {"values": values, "higher_is_better": higher, "points": points}
        for name, (values, higher, points) in pairs.items()
    }
    outputs = {"angle": {"agreement": 0.987, "max_abs_difference": 0.25}}
    _add_metrics(table, {"samples": 1000, "metrics": metrics, "outputs": outputs})
    return table


@pytest.mark.parametrize(
    ("values", "higher", "points", "text", "style"),
    [
        ([0.8, 0.75], True, 100.0, "−5.00 points", "red"),
        ([0.8, 0.85], True, 100.0, "+5.00 points", "green"),
        ([2.0, 2.2], False, 1.0, "+10 % (worse)", "red"),
        ([2.0, 1.8], False, 1.0, "−10.0 % (better)", "green"),
        ([2.0, 2.2], True, 1.0, "+10 % (better)", "green"),
        ([2.0, 2.0], False, 1.0, "same", "dim"),
    ],
)
def test_a_change_is_green_where_the_metric_is_better(values, higher, points, text, style):
    """Points for fractions, a part of A's value for metrics in their own unit; the metric says which way is better."""
    table = compared(metric=(values, higher, points))
    change = next(iter(table.columns[3].cells))
    assert text in change.plain
    assert change.style == style


def test_metrics_have_their_own_names():
    """Each metric stands under its name with the number of samples, and each output's agreement below."""
    text = printed(compared(mean_absolute_error=([2.0, 2.2], False, 1.0)))
    assert "mean_absolute_error on 1,000 test samples" in text
    assert "agreement with A on 1,000 test samples" in text
    assert "98.70%" in text
    assert "largest difference from A" in text


def of_bench(**known):
    table = Table("", "file")
    add_of_bench(table, [{"accuracy": {"samples": 200, **known}}])
    return printed(table)


def test_bench_shows_the_metric_that_counts():
    """The metric on the device and here in its own unit; agreement where there are no classes."""
    metrics = {"mae": {"value": 2.5, "host_value": None, "higher_is_better": False, "points": 1.0}}
    metric = {"name": "mae", "value": 2.5, "host_value": None}
    text = of_bench(metric=metric, metrics=metrics, top1_agreement=None, agreement=0.5)
    assert "mae on the device, 200 samples" in text
    assert "2.5" in text
    assert "agreement of both, 200 samples" in text
    assert "50.0%" in text
    text = of_bench(metric=None, metrics={}, top1_agreement=0.25, agreement=0.25)
    assert "same class on both, 200 samples" in text
    assert "on the device" not in text


def test_commands_measure_a_regression(tmp_path):
    """From the command line: compare and bench print the error of a regression; a task with two readings is one message
    and exit code 2."""
    one = KINDS["regression"](tmp_path)
    arrays = {f"{key}_{name}": values for name, pair in one.splits.items() for key, values in zip("xy", pair)}  # noqa: B905
    np.savez(tmp_path / "data.npz", **arrays)
    np.savez(tmp_path / "odd.npz", **{**arrays, **{key: (v > 0) * 1 for key, v in arrays.items() if key[0] == "y"}})

    done = run("compare", one.float32, one.int8, "--data", "data.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mean_absolute_error" in done.stdout
    done = run("bench", one.float32, "--device", "host", "--data", "data.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mean_absolute_error on the device" in done.stdout
    done = run("compare", one.float32, one.int8, "--data", "odd.npz", cwd=tmp_path)
    assert (done.returncode, "kind =" in done.stderr, "Traceback" in done.stderr) == (2, True, False)
