"""A search on a Ray cluster of two nodes on loopback, against the same search on one machine; and how stages travel."""

import csv
import json
import os
import socket
import tempfile
import threading
import time
from pathlib import Path

import pytest

from edgeprune.errors import MissingError, UsageError
from edgeprune.pipeline import pack_stage, unpack_stage
from edgeprune.progress import Progress
from edgeprune.searching.search import search

pytest.importorskip("optuna")
pytest.importorskip("ray")

RECIPE = """
extends = "int8"
[finetune]
epochs = 0
[filters]
max_macs = 0.5
[search]
"filters.max_macs" = {choices = [0.4, 0.55, 0.7, 0.85]}
"""


class Notes(Progress):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


_THREADS = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}


def run(folder, tmp_path, model=None, **options):
    recipe = tmp_path / "varied.toml"
    recipe.write_text(RECIPE)
    notes = Notes()
    fixed = {"target": "rpi4", "trials": 4, "deterministic": True}
    return search(model, data="demo", recipe=recipe, out=folder, progress=notes, **(fixed | options)), notes.lines


def front_of(result):
    return [(one.value, one.latency_ms, one.bytes, one.test_value) for one in result.front.trials]


def files_of(folder):
    """The figures of all files that trials made."""
    with open(folder / "trials.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {tuple(row[key] for key in ("rung", "value", "drop", "latency_ms", "bytes", "gzip_bytes")) for row in rows}


def stages_of(folder):
    return {path.parent.name: path.read_bytes() for path in (folder / "stages").glob("*/artifact.json")}


def node_folders():
    own = Path(tempfile.gettempdir()) / f"edgeprune-{os.getuid()}"
    return list(own.iterdir()) if own.is_dir() else []


def finished_stage(home):
    """A finished stage with a file of its own and one of the stage before it."""
    home.mkdir(parents=True)
    (home / "model.bin").write_bytes(b"new")
    (home / "training.npz").write_bytes(b"no part of the result")
    files = {"model": {"path": f"{home.name}/model.bin"}, "teacher": {"path": "source-1/model.bin"}}
    (home / "artifact.json").write_text(json.dumps({"key": "k", "files": files}))
    return home


def test_a_stage_travels_with_its_own_files(tmp_path):
    """What a stage made and its document arrive; files of other stages, and those of unfinished training, do not."""
    home = finished_stage(tmp_path / "a" / "finetune-2")
    files = pack_stage(home)
    assert sorted(files) == ["artifact.json", "model.bin"]
    there = tmp_path / "b" / "finetune-2"
    there.mkdir(parents=True)
    (there / "half").touch()
    unpack_stage(files, there)
    assert {path.name: path.read_bytes() for path in there.iterdir()} == files
    assert pack_stage(tmp_path / "nothing") is None


def test_one_maker_for_each_stage(tmp_path):
    """The first who asks for a missing stage makes it, others wait; if it dies, the next one makes it."""
    from edgeprune.searching.cluster import _Stages

    stages = _Stages(str(tmp_path))
    assert stages.claim("finetune-2", "first") == ("yours", [])
    assert stages.claim("finetune-2", "second") == ("wait", [])
    assert stages.claim("other-1", "second") == ("yours", [])
    stages.release("first")
    assert stages.claim("finetune-2", "second") == ("yours", [])
    assert stages.claim("other-1", "first") == ("wait", [])
    files = pack_stage(finished_stage(tmp_path / "elsewhere" / "finetune-2"))
    stages.offer("finetune-2", files)
    assert pack_stage(tmp_path / "finetune-2") == files


def test_clients_outside_of_the_cluster_are_refused(tmp_path):
    """An address of Ray's client is refused before anything is run: the run folder has to be in the cluster."""
    with pytest.raises(UsageError, match="outside of the cluster"):
        run(tmp_path / "run", tmp_path, ray="ray://127.0.0.1:10001")


def test_no_cluster_is_said_at_once(tmp_path):
    """Where nothing listens at the address, the message says how a cluster is started."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(MissingError, match=r"cannot be reached.*refused(.|\n)*ray start --head"):
        run(tmp_path / "run", tmp_path, ray=f"127.0.0.1:{port}")


def test_objects_in_memory_stay_here(tmp_path):
    """A model in memory cannot be opened by other machines, and the message says so."""
    with pytest.raises(UsageError, match="model and the data in files"):
        search(object(), data=object(), target="rpi4", out=tmp_path / "run", ray="local")


@pytest.mark.slow
def test_a_node_that_dies_costs_its_trial_only(tmp_path, monkeypatch):
    """A node is killed in the middle of a search: the front is that of one machine, and no stage is missing. The same
    search again finds all trials done, and builds nothing."""
    import ray
    from ray.cluster_utils import Cluster

    from edgeprune.data.demo import train_demo_model

    # As many threads everywhere: sums in another order are other figures.
    monkeypatch.setattr("edgeprune.searching.executors.thread_environment", lambda jobs: _THREADS)
    model = tmp_path / "digits.h5"
    train_demo_model().save(model)
    single, _ = run(tmp_path / "single", tmp_path, model, jobs=2)
    before = node_folders()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    killer = threading.Thread(target=lambda: kill(), daemon=True)

    def kill():
        seen = 0
        while seen < 3:  # both nodes are at work
            time.sleep(0.2)
            seen = 0 if ray.available_resources().get("CPU", 0) else seen + 1
        cluster.remove_node(node, allow_graceful=False)

    def after(trial):
        if killer.ident is None:
            killer.start()

    try:
        node = cluster.add_node(num_cpus=1)
        there, notes = run(tmp_path / "cluster", tmp_path, model, ray=cluster.address, callback=after)
        assert sum("is begun again" in line for line in notes) == 1, notes
        assert front_of(there) == front_of(single)
        assert files_of(tmp_path / "cluster") == files_of(tmp_path / "single")
        made = stages_of(tmp_path / "cluster")
        assert made.keys() == stages_of(tmp_path / "single").keys()
        again, _ = run(tmp_path / "cluster", tmp_path, model, ray=cluster.address)
        assert front_of(again) == front_of(single)
        assert stages_of(tmp_path / "cluster") == made
    finally:
        cluster.shutdown()
    assert len(set(node_folders()) - set(before)) <= 1  # that of the node that was killed


@pytest.mark.slow
def test_a_cluster_of_this_machine_alone(tmp_path):
    """``local`` starts one, whose trials end as everywhere, and which is gone after the search."""
    import ray

    result, _ = run(tmp_path / "run", tmp_path, trials=1, jobs=1, ray="local")
    assert result.front.trials
    assert not ray.is_initialized()
