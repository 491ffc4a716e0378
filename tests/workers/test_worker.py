"""Tests of workers: real child processes that really die."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from processes import process_runs

from edgeprune.errors import ModelError
from edgeprune.workers import Stream, Worker, WorkerDied


@pytest.fixture
def worker():
    worker = Worker("The test")
    yield worker
    worker.close()


def test_a_call_gives_the_result_of_the_function(worker):
    """Arguments and results travel between the processes, and the child is another process."""
    assert worker.call(np.add, np.arange(3), 1).tolist() == [1, 2, 3]
    assert worker.call(os.getpid) not in (os.getpid(), 0)


def test_a_child_stays_for_the_next_call(worker):
    """Calls of one worker run in one process."""
    assert worker.call(os.getpid) == worker.call(os.getpid)


def test_what_is_loaded_is_left_alone_by_collections(worker):
    """A collection in the child does not look through modules, which in a fork would copy the parent's memory."""
    assert worker.call(gc.get_freeze_count) > 1000


def test_a_child_works_in_the_folder_of_its_parent(worker, tmp_path, monkeypatch):
    """A relative path means the same to both, also where the parent changed its working folder after the start."""
    worker.call(os.getpid)
    monkeypatch.chdir(tmp_path)
    assert worker.call(os.getcwd) == str(tmp_path)


def test_an_exception_is_raised_where_the_call_was_made(worker):
    """Errors for users arrive whole; the child goes on."""
    first = worker.call(os.getpid)
    with pytest.raises(ZeroDivisionError):
        worker.call(divmod, 1, 0)
    from edgeprune.runtime.interpreter import find_runtime

    with pytest.raises(Exception, match="no runtime 'none'") as caught:
        worker.call(find_runtime, "none")
    assert caught.value.exit_code == 2
    assert caught.value.expected.startswith("one of")
    assert worker.call(os.getpid) == first


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "memory runs out"),
        (signal.SIGSEGV, "segmentation fault"),
        (signal.SIGABRT, "gave up"),
        (signal.SIGTERM, "signal 15"),
    ],
)
def test_a_death_by_a_signal_is_an_error(worker, number, words):
    """The error says who died of what, and the next call has a fresh process."""
    with pytest.raises(WorkerDied, match=f"The test .*{words}"):
        worker.call(signal.raise_signal, number)
    assert worker.call(divmod, 7, 2) == (3, 1)


def test_a_real_crash_is_an_error(worker):
    """A read of address zero ends the child only."""
    with pytest.raises(WorkerDied, match="segmentation fault"):
        worker.call(ctypes.string_at, 0)


def test_the_last_words_are_in_the_error(worker):
    """What native code wrote before it gave up is part of the message."""
    with pytest.raises(WorkerDied, match="the scale is zero") as caught:
        worker.call(eval, "(__import__('os').write(2, b'F1126 12:00:00.1 7 x.cc:1] the scale is zero\\n'), "
                    "__import__('os').abort())")  # fmt: skip
    assert "x.cc" not in str(caught.value)


def test_a_call_without_a_sign_of_life_is_ended(worker):
    """A function that hangs is ended after its time; a stream whose items arrive is a sign of life."""
    with pytest.raises(WorkerDied, match=r"gave no sign for 0\.5 s"):
        worker.call(time.sleep, 60, limit_s=0.5)
    slowly = Stream(lambda: (time.sleep(0.2) or i for i in range(5)))
    assert worker.call(sum, slowly, limit_s=0.7) == 10


def test_an_exit_is_an_error(worker):
    """A child that leaves has not answered."""
    with pytest.raises(WorkerDied, match="exit code 3"):
        worker.call(os._exit, 3)


def test_a_stream_is_iterated_in_the_child(worker):
    """Its items are made in the parent, one by one, once for each pass."""
    made = []

    def items():
        for i in range(3):
            made.append(i)
            yield np.full(2, i)

    assert [part.tolist() for part in worker.call(list, Stream(items))] == [[0, 0], [1, 1], [2, 2]]
    assert made == [0, 1, 2]


def test_an_error_of_a_stream_is_raised(worker):
    """What goes wrong while an item is made is the error of the call."""

    def items():
        yield 1
        raise ModelError("the second sample is damaged.")

    with pytest.raises(ModelError, match="second sample"):
        worker.call(list, Stream(items))
    assert worker.call(divmod, 7, 2) == (3, 1)


def test_an_object_lives_in_the_child(worker):
    """Its methods see what earlier ones did; with the child it is gone."""
    counter = worker.create(list, (1, 2))
    counter.call("append", 3)
    assert counter.call("index", 3) == 2
    with pytest.raises(WorkerDied):
        worker.call(os.abort)
    with pytest.raises(WorkerDied, match="has ended"):
        counter.call("append", 4)
    counter.close()


def test_threads_take_turns(worker):
    """Calls of several threads do not mix."""
    results = {}

    def run(number):
        results[number] = worker.call(pow, number, 2)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: number**2 for number in range(8)}


def test_a_child_ends_with_its_parent(tmp_path):
    """Killed without a chance to say so, a parent leaves no process behind, even in the middle of a call."""
    script = (
        "import os, time; from edgeprune.workers import Worker\n"
        "w = Worker('It'); print(w.call(os.getpid), flush=True); w.call(time.sleep, 600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    time.sleep(0.2)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process_runs(child):
        time.sleep(0.05)
    assert not process_runs(child)


def test_nothing_is_imported_from_the_working_folder(tmp_path, monkeypatch, worker):
    """A file that has the name of a package, in the folder where edgeprune runs, is not the package."""
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert worker.call(np.add, 1, 2) == 3


def test_a_fork_serves_as_a_fresh_process_does():
    """It has what this process has loaded, dies alone, with its last words, and ends when it is closed."""
    script = (
        "import os, sys, json; from edgeprune.workers import Worker, WorkerDied\n"
        "json.loaded_here = 7; w = Worker('It', fork=lambda: True)\n"
        "assert w.call(eval, \"__import__('json').loaded_here\") == 7\n"
        "first = w.call(os.getpid); assert first != os.getpid()\n"
        "try: w.call(eval, \"(__import__('os').write(2, b'the scale is zero\\\\n'), __import__('os').abort())\")\n"
        "except WorkerDied as death: assert death.how == 'gave up' and death.said == 'the scale is zero', vars(death)\n"
        "second = w.call(os.getpid); assert second != first\n"
        "w.close()\n"
        "try: os.kill(second, 0)\n"
        "except ProcessLookupError: print('closed')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("closed\n", 0), done.stderr


def test_a_fork_holds_no_other_worker_open():
    """A worker that is closed ends by itself, though a fork was made while it lived."""
    script = (
        "import os; from edgeprune.workers import Worker\n"
        "first, second = Worker('First'), Worker('Second', fork=lambda: True)\n"
        "first.call(os.getpid); second.call(os.getpid)\n"
        "process = first._child._process; first.close(); print(process.returncode)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr
