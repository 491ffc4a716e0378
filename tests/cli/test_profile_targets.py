"""``edgeprune profile`` for several targets."""

import json

import pytest
from commands import run

from edgeprune.target import load_target, target_names


def test_each_target_has_a_profile_of_its_own(tiny_files):
    """Several targets make one document, whose entries are the documents of one target each."""
    path = str(tiny_files["int8"])
    both = json.loads(run("profile", path, "--target", "rpi4", "--target", "coral-usb", "--json").stdout)
    alone = [json.loads(run("profile", path, "--target", name, "--json").stdout) for name in ("rpi4", "coral-usb")]
    assert both == {"file": path, "targets": alone, "missing": []}


def test_each_target_has_a_folder_for_its_node_data(tiny_files, tmp_path):
    """Figures of operators for Model Explorer are another for each target."""
    path, options = str(tiny_files["int8"]), ["--target", "rpi4", "--target", "coral-usb"]
    assert run("profile", path, *options, "--model-explorer", str(tmp_path / "nodes"), "--json").returncode == 0
    names = {folder.name: {file.name for file in folder.iterdir()} for folder in (tmp_path / "nodes").iterdir()}
    assert set(names) == {"rpi4", "coral-usb"}
    assert all(names.values())


def test_each_of_many_targets_is_a_row(tiny_files):
    """The table has every target with its figures; a warning that several share is said once."""
    with_compiler = {name for name in target_names() if (made := load_target(name).compiler) and made.required}
    boards = [name for name in target_names() if name not in with_compiler]
    done = run("profile", str(tiny_files["int8"]), *(word for name in boards for word in ("--target", name)))
    assert done.returncode == 0, done.stderr
    for name in boards:
        assert any(line.split()[:1] == [name] for line in done.stdout.splitlines()), name
    assert done.stdout.count("rpi5: The latency estimate") == 1


def test_a_compiler_that_is_missing_costs_its_target_only(tiny_files, monkeypatch):
    """All other boards have their rows; the missing one is named with what to install, and the exit code says so."""
    monkeypatch.setattr("edgeprune.hardware.vela_compiler.version", lambda: None)
    options = [word for name in ("rpi4", "ethos-u55-128") for word in ("--target", name)]
    done = run("profile", str(tiny_files["int8"]), *options, "--json")
    assert done.returncode == 3
    document = json.loads(done.stdout)
    assert [one["target"] for one in document["targets"]] == ["rpi4"]
    assert [one["target"] for one in document["missing"]] == ["ethos-u55-128"]
    assert "ethos-u55-128" in done.stderr
    assert run("profile", "missing.tflite", *options).stderr.count("missing.tflite") == 1


@pytest.mark.parametrize("names", [("rpi4", "raspberry-pi-4"), ("all", "rpi4")])
def test_a_target_given_twice_is_refused(names, tiny_files):
    """One board under two of its names is said before anything is computed."""
    options = [word for name in names for word in ("--target", name)]
    done = run("profile", str(tiny_files["int8"]), *options)
    assert done.returncode == 2
    assert "each once" in done.stderr


def test_plots_of_several_targets_have_a_folder_each(tiny_files, tmp_path):
    """Plots of one target are where they were; of several, each target has a folder of its name."""
    path = str(tiny_files["int8"])
    assert run("profile", path, "--target", "rpi4", "--target", "rpi3", "--plot", str(tmp_path)).returncode == 0
    assert sorted(p.parent.name for p in tmp_path.rglob("latency.png")) == ["rpi3", "rpi4"]
