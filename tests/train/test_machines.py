"""Training on several machines: two processes on loopback, each with a folder of its own."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune.errors import UsageError
from edgeprune.progress import Progress
from edgeprune.train.machines import together


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """What ``multiworker.py`` prints in each of two processes."""
    script, addresses = Path(__file__).with_name("multiworker.py"), [f"127.0.0.1:{port}" for port in free_ports(2)]
    running = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        command = [sys.executable, script, tmp_path_factory.mktemp(f"worker{index}")]
        environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
        running.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        )
    printed = []
    for process in running:
        out, errors = process.communicate()
        assert process.returncode == 0, errors[-3000:]
        printed.append(json.loads(out.splitlines()[-1]))
    return printed


def test_all_workers_have_the_same_model(workers):
    """Weights and validation loss, with a replica on each."""
    first, second = workers
    assert first["replicas"] == second["replicas"] == 2
    assert (first["weights"], first["val_loss"]) == (second["weights"], second["val_loss"])


def test_two_workers_learn_what_one_machine_does(workers):
    """Gradients are only summed in another order."""
    assert all(worker["difference"] < 1e-5 for worker in workers)


def test_a_worker_that_lost_its_state_goes_on_from_the_others(workers):
    """The first worker's state is everyone's: to the last bit what an unbroken training makes."""
    assert all(worker["resumes"] for worker in workers)


def test_workers_at_different_stages_are_told(workers):
    """The message names the stage of each."""
    for worker in workers:
        assert "worker 0 at stage0, worker 1 at stage1" in worker["astray"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "is not set"),
        ("{", "cannot be used"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "cannot be used"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}', "not one of"),
    ],
)
def test_what_names_no_workers_is_refused(monkeypatch, given, said):
    """Before anything waits for them; with the line to write."""
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if given:
        monkeypatch.setenv("TF_CONFIG", given)
    with pytest.raises(UsageError, match=said) as caught, together(["none", "multiworker"], Progress()):
        pass
    assert "export TF_CONFIG" in str(caught.value)
