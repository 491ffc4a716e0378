"""The parent's side: a child process that is started when first needed, or before, and again after it died."""

from __future__ import annotations

import atexit
import contextlib
import io
import itertools
import logging
import multiprocessing
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from edgeprune.errors import EdgepruneError
from edgeprune.workers import child
from edgeprune.workers.names import name_of

logger = logging.getLogger(__name__)
T = TypeVar("T")

# A call that has given no sign for so long hangs: the longest conversion that was seen took minutes.
LIMIT_S = 3600.0
# How often a waiting parent looks whether the limit is reached.
_POLL_S = 1.0
_GRACE_S = 2.0
_TAIL_BYTES = 65536
_START = (
    "import sys; sys.path[:] = {path!r}; from edgeprune.workers.child import main; main({socket}, {alive}, {warm!r})"
)
# What a signal means to somebody who does not know its number.
_MEANING = {
    signal.SIGKILL: "was ended from outside, which is what happens when memory runs out",
    signal.SIGSEGV: "crashed (segmentation fault)",
    signal.SIGBUS: "crashed (bus error; a full disk or memory that ran out can be the cause)",
    signal.SIGABRT: "gave up",
    signal.SIGILL: "crashed (illegal instruction: it was built for another processor)",
    signal.SIGFPE: "crashed (division by zero)",
}
# Lines of a log that say nothing about a death.
_NOISE = re.compile(r"\s*$|WARNING: All log messages before|[IW]\d{4} |INFO: |\*\*\*|\s*@")


def how_it_ended(code: int) -> str:
    """What the exit code of a process means, with a signal as a negative number: the rest of a sentence about it."""
    return f"ended with exit code {code}" if code >= 0 else _MEANING.get(-code, f"was ended by signal {-code}")  # type: ignore[call-overload]


class WorkerDied(EdgepruneError):
    """A child process ended in the middle of a call.

    Attributes:
        worker: what the process does: the subject of a sentence.
        how: what happened to it: the rest of that sentence.
        said: the last line that it wrote about it; empty, if none.
    """

    def __init__(self, worker: str, how: str, said: str = ""):
        self.worker, self.how, self.said = worker, how, said
        words = f": {said}" if said else ""
        super().__init__(f"{worker} {how}{words}.", fix="use --debug for all that it wrote.")

    def __reduce__(self) -> tuple[Any, ...]:
        return WorkerDied, (self.worker, self.how, self.said)


class Stream:
    """An argument of a call that the child can iterate over, while the items are made here.

    Args:
        items: called for each pass over the items.
    """

    def __init__(self, items: Callable[[], Iterable[Any]]):
        self.items = items


class Worker:
    """A warm child process for one kind of work. Calls from several threads wait for each other.

    Args:
        name: what it does, as the subject of a sentence: "TensorFlow's converter".
        warm: a function without arguments that the child calls first.
        fork: whether the child may be a fork of this process at the moment, which is warm at once: no thread may run
            whose work, or whose locks, the child would miss. Otherwise it is a fresh process.
        environment: variables of a fresh process beside those of this one.
    """

    def __init__(
        self,
        name: str,
        warm: Callable[[], object] | None = None,
        fork: Callable[[], bool] = lambda: False,
        environment: Mapping[str, str] | None = None,
    ):
        self.name = name
        self._fork = fork
        self._environment = dict(environment or {})
        self._warm = name_of(warm) if warm else ""
        self._lock = threading.RLock()
        self._child: _Child | None = None
        self._numbers = itertools.count()
        _workers.add(self)

    def start(self) -> None:
        """Start the child without waiting for it; nothing if it is there."""
        with self._lock:
            if self._child is None or not self._child.alive:
                self.close()
                self._child = _Child(self._warm, self._fork() and threading.active_count() == 1, self._environment)

    def call(self, function: Callable[..., T], *arguments: Any, limit_s: float = LIMIT_S) -> T:
        """Call a function in the child.

        Args:
            function: of a module, by its own name.
            arguments: that can be pickled, or :class:`Stream`.
            limit_s: seconds without a sign of life after which the child is ended.

        Raises:
            WorkerDied: the child ended, or was ended because its time was up. The next call has a fresh one.
            Exception: what the function raised there.
        """
        with self._lock:
            self.start()
            assert self._child is not None
            return self._run(self._child, name_of(function), arguments, limit_s)

    def create(self, cls: Callable[..., Any], *arguments: Any) -> Remote:
        """Make an object that lives in the child, and dies with it.

        Raises:
            WorkerDied, Exception: as :meth:`call`.
        """
        with self._lock:
            self.start()
            assert self._child is not None
            number = next(self._numbers)
            self._run(self._child, name_of(child.create), (number, name_of(cls), arguments), LIMIT_S)
            return Remote(self, self._child, number)

    def kill(self) -> None:
        """End the child at once, in the middle of a call of another thread, too, which then raises WorkerDied."""
        if (process := self._child) is not None:
            process.kill()

    def close(self) -> None:
        """End the child; the next call starts another."""
        with self._lock:
            if self._child is not None:
                self._child.end()
                self._child = None

    def _run(self, process: _Child, name: str, arguments: tuple[Any, ...], limit_s: float) -> Any:
        try:
            return process.call(name, arguments, limit_s)
        except _Ended as ended:
            self.close()
            logger.debug("%s: %s", self.name, ended.log)
            raise WorkerDied(self.name, ended.how, ended.said) from None
        except _Raised as raised:
            raise raised.error from None
        except BaseException:  # interrupted, or an item could not be made: the child waits for what will not come
            self.close()
            raise


class Remote:
    """An object in a worker's child; see :meth:`Worker.create`."""

    def __init__(self, worker: Worker, process: _Child, number: int):
        self._worker, self._process, self._number = worker, process, number

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object; raises as :meth:`Worker.call`."""
        with self._worker._lock:
            if not self._process.alive:
                raise WorkerDied(self._worker.name, "has ended")
            what = (self._number, method, arguments)
            return self._worker._run(self._process, name_of(child.method), what, LIMIT_S)

    def close(self) -> None:
        """Let go of the object."""
        with self._worker._lock, contextlib.suppress(WorkerDied):
            if self._process.alive:
                self._worker._run(self._process, name_of(child.drop), (self._number,), LIMIT_S)


class _Ended(Exception):
    """The child has ended."""

    def __init__(self, how: str, log: str):
        super().__init__(how)
        self.how, self.log = how, log
        lines = [line.strip() for line in log.splitlines() if not _NOISE.match(line)]
        self.said = re.sub(r"^(F\d{4} .*?\] |ERROR: )", "", lines[-1]).rstrip(".")[:300] if lines else ""


class _Raised(Exception):
    """A function in the child has raised ``error``."""

    def __init__(self, error: Exception):
        super().__init__()
        self.error = error


class _Fork:
    """A fork of this process, with the methods of ``Popen`` that are needed."""

    def __init__(self, function: Callable[..., None], *arguments: Any):
        self._process = multiprocessing.get_context("fork").Process(target=function, args=arguments, daemon=True)
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("fork", timeout or 0)
        return code

    def kill(self) -> None:
        self._process.kill()


class _Child:
    def __init__(self, warm: str, fork: bool, environment: Mapping[str, str]):
        ours, theirs = socket.socketpair()
        alive, self._alive = os.pipe()
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115  # open as long as the child lives
        # In a session of its own, so that Ctrl-C in the terminal reaches only the parent.
        if fork:
            self._process: subprocess.Popen[bytes] | _Fork = _Fork(
                self._forked, theirs.fileno(), alive, (ours.fileno(), self._alive), warm
            )
        else:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START.format(path=sys.path, socket=theirs.fileno(), alive=alive, warm=warm)],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env={**os.environ, **environment},
                pass_fds=(theirs.fileno(), alive),
                start_new_session=True,
            )
        theirs.close()
        os.close(alive)
        self._connection = Connection(ours.detach())

    def _forked(self, connection: int, alive: int, of_parent: Sequence[int], warm: str) -> None:
        """What a fork does."""
        os.setsid()
        # Kept open here, they would not end where the parent closes them, or does not live to.
        for number in of_parent:
            os.close(number)
        for other in filter(None, (worker._child for worker in _workers)):
            os.close(other._alive)
            other._connection.close()
        for number in (1, 2):
            os.dup2(self._log.fileno(), number)
        child.main(connection, alive, warm)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def call(self, name: str, arguments: tuple[Any, ...], limit_s: float) -> Any:
        streams: list[Callable[[], Iterable[Any]]] = []
        passes: dict[tuple[int, int], Iterator[Any]] = {}
        self._log.seek(0)
        self._log.truncate()
        try:
            self._connection.send_bytes(_dumps(("call", os.getcwd(), name, arguments), streams))
            while True:
                kind, *content = self._receive(limit_s)
                if kind == "result":
                    return content[0]
                if kind == "error":
                    logger.debug("%s%s", self._written(), content[1])
                    raise _Raised(content[0])
                stream, number = content
                items = passes.setdefault((stream, number), iter(streams[stream]()))
                self._connection.send(next((("item", item) for item in items), ("stop",)))
        except (EOFError, ConnectionError):
            raise self._ended() from None

    def _receive(self, limit_s: float) -> Any:
        deadline = time.monotonic() + limit_s
        while not self._connection.poll(min(_POLL_S, limit_s)):
            if time.monotonic() >= deadline:
                self._process.kill()
                self._process.wait()
                raise _Ended(f"gave no sign for {limit_s:g} s and was ended", self._written())
        return self._connection.recv()

    def _ended(self) -> _Ended:
        try:
            code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:  # it closed the connection and goes on
            self._process.kill()
            code = self._process.wait()
        return _Ended(how_it_ended(code), self._written())

    def _written(self) -> str:
        size = self._log.seek(0, io.SEEK_END)
        self._log.seek(max(size - _TAIL_BYTES, 0))
        return self._log.read().decode("utf-8", "replace")

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self._connection.close()
        os.close(self._alive)  # which ends the child, whatever it does
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _dumps(message: object, streams: list[Callable[[], Iterable[Any]]]) -> bytes:
    """Pickle a message; the streams in it are kept here, and stand in the child for :class:`child.Items`."""
    content = io.BytesIO()
    _Pickler(content, streams).dump(message)
    return content.getvalue()


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, streams: list[Callable[[], Iterable[Any]]]):
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._streams = streams

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Stream):
            self._streams.append(value.items)
            return child.Items, (len(self._streams) - 1,)
        return NotImplemented


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for worker in list(_workers):
        worker.close()
