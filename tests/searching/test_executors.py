"""Where trials run: processes whose death costs one job."""

import os
import signal
import time

import pytest

from edgeprune.searching.executors import InProcess, Job, Processes, thread_environment
from edgeprune.workers import WorkerDied


def number_of_process(seconds):
    """What a process answers after a while."""
    time.sleep(seconds)
    return {"pid": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")}


def end_with(number):
    """What native code does where it finds a contradiction."""
    os.kill(os.getpid(), number)


def fail():
    """What goes wrong in Python."""
    raise ValueError("no")


@pytest.fixture(scope="module")
def two():
    executor = Processes(2)
    yield executor
    executor.close()


def test_jobs_run_beside_each_other_in_processes_of_their_own(two):
    """Each has its share of the processors."""
    for number in range(2):
        two.submit(Job(number, number_of_process, (0.5,)))
    found = [two.next(120) for _ in range(2)]
    assert {one.number for one in found} == {0, 1}
    assert len({one.value["pid"] for one in found} | {os.getpid()}) == 3
    assert {one.value["threads"] for one in found} == {thread_environment(2)["OMP_NUM_THREADS"]}
    assert two.next(0.01) is None


def test_what_dies_is_an_outcome_and_others_go_on(two):
    """A crash and an exception end their own jobs; the next one is run."""
    for number, (function, arguments) in enumerate([(end_with, (int(signal.SIGSEGV),)), (fail, ())]):
        two.submit(Job(number, function, arguments))
    found = sorted((two.next(120) for _ in range(2)), key=lambda one: one.number)
    assert isinstance(found[0].error, WorkerDied)
    assert isinstance(found[1].error, ValueError)
    two.submit(Job(2, number_of_process, (0.0,)))
    assert two.next(120).value["pid"] != os.getpid()


def test_closing_ends_what_runs():
    """A job of an hour does not keep anybody waiting."""
    executor = Processes(1)
    executor.submit(Job(0, number_of_process, (0.0,)))
    pid = executor.next(120).value["pid"]
    executor.submit(Job(1, number_of_process, (3600.0,)))
    time.sleep(0.5)
    executor.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the process still runs")


def test_in_this_process():
    """One job after the other, with its error as an outcome."""
    executor = InProcess()
    executor.submit(Job(0, number_of_process, (0.0,)))
    assert executor.next().value["pid"] == os.getpid()
    executor.submit(Job(1, fail, ()))
    assert isinstance(executor.next().error, ValueError)
