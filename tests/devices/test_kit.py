"""The kit of files to measure a board with, and what `targets fit` proposes of it."""

import csv

import pytest
from commands import run

from edgeprune.devices.kit import FORMATS, NETWORKS, README, write_kit
from edgeprune.errors import UsageError
from edgeprune.hardware.latency.estimate import predict
from edgeprune.hardware.latency.features import UNMEASURED, caches_of, works
from edgeprune.target import CpuSeconds, load_target
from edgeprune.tflite.flatbuffer import read


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit")
    return folder, write_kit(folder)


def graphs(paths):
    return {path: read(path).subgraphs[0] for path in paths}


def test_twenty_small_files_and_how_to_measure_them(kit):
    """There are twenty, each under 6 MB; the README names each, and commands that exist."""
    folder, paths = kit
    assert len(paths) == len(set(paths)) == len(NETWORKS) * len(FORMATS) == 20
    assert max(path.stat().st_size for path in paths) < 6e6
    text = (folder / README).read_text()
    assert all(path.name in text for path in paths)
    for command in ("bench", "targets fit"):
        shown = run(*command.split(), "--help").stdout
        line = next(line for line in text.splitlines() if line.strip().startswith(f"edgeprune {command}"))
        assert all(word in shown for word in line.split() if word.startswith("--"))


def test_a_readme_of_something_else_is_not_replaced(tmp_path):
    """A kit in the folder of a project: refused before anything is made."""
    (tmp_path / README).write_text("# My project")
    with pytest.raises(UsageError, match="would be replaced"):
        write_kit(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [README]


def test_every_kind_of_work_is_much_of_some_file(kit):
    """Each coefficient of a board makes a tenth of the time of at least one file of its format."""
    board = load_target("rpi4")
    for kernels in ("builtin", "xnnpack"):
        seconds = getattr(board.latency, kernels).seconds_per
        shares = {}
        for graph in graphs(kit[1]).values():
            counted = works(graph, kernels, caches_of(board))
            parts = {}
            for work in counted:
                for term, amount in work.amounts.items():
                    key = work.dtype, term
                    parts[key] = parts.get(key, 0.0) + amount * getattr(getattr(seconds, work.dtype), term)
            for key, value in parts.items():
                shares[key] = max(shares.get(key, 0.0), value / sum(parts.values()))
        unused = {"builtin": {"panel_bytes"}, "xnnpack": {"window_rows"}}[kernels]
        for dtype in ("float32", "int8"):
            for term in set(CpuSeconds.model_fields) - unused:
                assert shares.get((dtype, term), 0) > 0.1, (kernels, dtype, term)


def test_times_lie_between_those_of_a_timer_and_of_patience(kit):
    """On a Raspberry Pi 4, no file is estimated below 20 microseconds or above 100 milliseconds."""
    board = load_target("rpi4")
    for graph in graphs(kit[1]).values():
        assert 0.02 < predict(graph, board).estimate.median_ms < 100
        assert not {operator.name for operator in graph.operators} & UNMEASURED


def test_what_is_proposed_is_of_the_kit_and_not_measured(kit, tmp_path):
    """After five files of one kind, a file of another kind is proposed first; the fit is written all the same."""
    folder, paths = kit
    measured = [path for path in paths if path.name.startswith(("pointwise", "convolution", "residual"))][:5]
    board = load_target("rpi4")
    with (folder / "m.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "device", "target", "threads", "delegate", "median_ms"])
        for path in measured:
            time = 2 * predict(read(path).subgraphs[0], board, "xnnpack").estimate.median_ms
            writer.writerow([path.name, "board", "rpi4", 4, "xnnpack", time])
    done = run("targets", "fit", "mine", "--from", folder / "m.csv", "--next", folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine.toml").is_file()
    proposed = [
        line.split(":")[0].strip() for line in done.stdout.split("best first:")[1].splitlines() if ".tflite" in line
    ]
    assert len(proposed) == 5
    assert not any(str(path) in proposed for path in measured)
    assert "pointwise" not in proposed[0]
