"""Where trials run: in this process, or in others of this machine. Another place is a class with the same methods."""

from __future__ import annotations

import dataclasses
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol

from edgeprune._tensorflow import import_tf
from edgeprune.workers import Worker, WorkerDied

# No sign of life is expected of a training that takes days.
_NO_LIMIT_S = 1e9
# A process whose memory has grown by this factor and by so many bytes since its first call is replaced by a fresh one.
_GROWN, _GROWN_BYTES = 1.5, 500_000_000


@dataclasses.dataclass(frozen=True)
class Job:
    """A call of a module's function; its arguments can be pickled unless it runs in this process.

    ``here``: on this machine, because it writes into the run folder.
    """

    number: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    here: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a job: what the function returned, or what ended it."""

    number: int
    value: Any = None
    error: Exception | None = None


class Executor(Protocol):
    """Runs jobs, several at a time.

    Attributes:
        jobs: how many.
    """

    @property
    def jobs(self) -> int: ...

    def submit(self, job: Job) -> None:
        """Begin a job; at most ``jobs`` are under way."""

    def next(self, timeout_s: float | None = None) -> Outcome | None:
        """The outcome of a job that is under way, whichever ends first; None where the time is up before."""

    def close(self) -> None:
        """End what is under way; its outcomes are lost. Finished stages stay."""


class InProcess:
    """Runs one job at a time in this process, where models and data may be objects in memory."""

    jobs = 1

    def __init__(self) -> None:
        self._job: Job | None = None

    def submit(self, job: Job) -> None:
        self._job = job

    def next(self, timeout_s: float | None = None) -> Outcome | None:
        """As :meth:`Executor.next`; a job is not ended when the time is up, for nobody else could."""
        job, self._job = self._job, None
        assert job is not None
        try:
            return Outcome(job.number, job.function(*job.arguments))
        except Exception as error:
            return Outcome(job.number, error=error)

    def close(self) -> None:
        self._job = None


class Processes:
    """Runs jobs in processes of this machine, which share its processors. One that dies costs its job only.

    Args:
        jobs: how many processes.
    """

    def __init__(self, jobs: int):
        self.jobs = jobs
        self._todo: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        environment = thread_environment(jobs)
        self._workers = [Worker("The process of a trial", warm_up, environment=environment) for _ in range(jobs)]
        self._closed = False
        for worker in self._workers:
            worker.start()
            threading.Thread(target=self._serve, args=(worker,), daemon=True).start()

    def submit(self, job: Job) -> None:
        self._todo.put(job)

    def next(self, timeout_s: float | None = None) -> Outcome | None:
        try:
            return self._done.get(timeout=None if timeout_s is None else max(timeout_s, 0))
        except queue.Empty:
            return None

    def close(self) -> None:
        self._closed = True
        for worker in self._workers:
            self._todo.put(None)
            worker.kill()

    def _serve(self, worker: Worker) -> None:
        first = 0
        while (job := self._todo.get()) is not None and not self._closed:
            try:
                value = worker.call(job.function, *job.arguments, limit_s=_NO_LIMIT_S)
                outcome = Outcome(job.number, value)
            except Exception as error:
                outcome = Outcome(job.number, error=error)
            memory = outcome.value.get("rss_bytes", 0) if isinstance(outcome.value, dict) else 0
            first = first or memory
            if isinstance(outcome.error, WorkerDied):
                first = 0
            elif memory > max(_GROWN * first, first + _GROWN_BYTES):
                worker.close()
                first = 0
            self._done.put(outcome)
        worker.close()


def warm_up() -> None:
    """Import TensorFlow. What is there then stays: to look through it for garbage takes most of a second each time."""
    import gc

    import_tf()
    import tf_keras  # noqa: F401

    gc.collect()
    gc.freeze()


def thread_environment(jobs: int) -> dict[str, str]:
    """Variables that give each of so many processes its share of the processors; none for one process."""
    if jobs == 1:
        return {}
    threads = str(max(1, len(os.sched_getaffinity(0)) // jobs))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, threads)
