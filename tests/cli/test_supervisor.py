"""Tests of the process that watches a command: real commands that really crash."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time

import pytest
from commands import run
from matrix import representatives
from processes import process_runs

EDGEPRUNE = [sys.executable, "-m", "edgeprune"]
# Data whose function runs in the command's process, as training does.
FUNCTION = """
import os, signal, time
import numpy as np
def data():
    if {when}:
        {what}
    r = np.random.default_rng(0)
    return {{"train": (r.random((32, 4), "float32"), r.integers(0, 2, 32)),
             "test": (r.random((8, 4), "float32"), r.integers(0, 2, 8))}}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import tf_keras

    path = tmp_path_factory.mktemp("model") / "one.keras"
    model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.save(path)
    return path


def build(folder, model, what, when="True", start=subprocess.run, **options):
    (folder / "own.py").write_text(FUNCTION.format(what=what, when=when))
    command = [*EDGEPRUNE, "build", model, "--target", "rpi4", "--data", "own.py:data", "--recipe", "float"]
    return start(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def test_a_crash_is_followed_by_a_run_without_onednn(tmp_path, model):
    """The way around the known cause is taken, said while it happens and in the report."""
    done = build(tmp_path, model, "signal.raise_signal(signal.SIGSEGV)", "os.environ['TF_ENABLE_ONEDNN_OPTS'] != '0'")
    assert done.returncode == 0, done.stderr
    assert "ended with a segmentation fault in TensorFlow" in done.stderr
    assert "went on without oneDNN's kernels" in " ".join(done.stdout.split())


@pytest.mark.slow
def test_a_crash_that_comes_again_is_one_message(tmp_path, model):
    """Where it happened, what ended, what is kept; exit code 3, and no signal."""
    done = build(tmp_path, model, "signal.raise_signal(signal.SIGABRT)")
    assert done.returncode == 3
    last = done.stderr[done.stderr.rindex("edgeprune:") :]
    assert "build, in the stage 'model', ended with an abort" in last
    assert "Finished stages" in last
    assert "To fix:" in last


def test_a_process_that_is_killed_says_that_memory_may_be_the_cause(tmp_path, model):
    """SIGKILL is what Linux sends where memory runs out."""
    done = build(tmp_path, model, "signal.raise_signal(signal.SIGKILL)")
    assert done.returncode == 3
    assert "memory runs out" in done.stderr


def test_a_stage_that_never_ended_is_recognised(tmp_path, model):
    """Killed in the middle of a stage, the next build says when that was begun, and goes on."""
    script = (
        "import edgeprune, os, signal, sys\n"
        "from edgeprune.progress import Progress\n"
        "class Kill(Progress):\n"
        "    def begin(self, what, total): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"edgeprune.build({str(model)!r}, target='rpi4', data='own.py:data', recipe='float', out='runs/one-rpi4', "
        "progress=Kill())"
    )
    (tmp_path / "own.py").write_text(FUNCTION.format(what="pass", when="False"))
    assert subprocess.run([sys.executable, "-c", script], cwd=tmp_path).returncode == -signal.SIGKILL
    done = run("build", model, "--target", "rpi4", "--data", "own.py:data", "--recipe", "float", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "evaluate was begun at" in " ".join(done.stderr.split())


def test_debug_shows_what_native_code_wrote(tmp_path):
    """The advice of an error about a child process works: what it wrote is on standard error."""
    code = (
        "import sys; from edgeprune.cli import _run\n"
        "import edgeprune.cli.doctor as d; from edgeprune.workers import Worker\n"
        'wrote = \'(__import__("os").write(2, b"first words\\\\nlast words\\\\n"), __import__("os").abort())\'\n'
        "d.doctor.callback = lambda **_: Worker('It').call(eval, wrote)\n"
        "sys.argv = ['edgeprune', '--debug', 'doctor']; sys.exit(_run('doctor', '--debug' in sys.argv))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "first words" in done.stderr, done.stderr
    assert "It gave up: last words." in done.stderr


# Ctrl-C ends builds with 130 in tests/test_build.py.
@pytest.mark.parametrize(
    ("number", "code"),
    representatives([(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)], (signal.SIGTERM, -signal.SIGTERM)),
)
def test_signals_are_passed_on(tmp_path, model, number, code):
    """What is sent to the command ends it as it would without a watching parent."""
    process = build(tmp_path, model, "open('there', 'w'); time.sleep(60)", start=subprocess.Popen)
    _until(lambda: (tmp_path / "there").exists())
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "Traceback" not in said


def test_an_interrupt_of_all_its_processes_is_one(tmp_path, model):
    """As `timeout` and runners of jobs send it: to the command's process and its parent, which passes it on."""
    start = functools.partial(subprocess.Popen, start_new_session=True)
    process = build(tmp_path, model, "open('there', 'w'); time.sleep(60)", start=start)
    _until(lambda: (tmp_path / "there").exists())
    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said


def test_nothing_is_left_of_a_command_that_is_killed(tmp_path, model):
    """The fork ends with its parent, so that another build can take its place."""
    what = "open('there.new', 'w').write(str(os.getpid())); os.rename('there.new', 'there'); time.sleep(60)"
    process = build(tmp_path, model, what, start=subprocess.Popen)
    _until(lambda: (tmp_path / "there").exists())
    process.kill()
    process.communicate()
    child = int((tmp_path / "there").read_text())
    _until(lambda: not process_runs(child))


def _until(holds, limit_s=120.0):
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
