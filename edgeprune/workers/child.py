"""The child's side: run what the parent asks for, until it closes the connection.

A message is a tuple whose first item is its kind. From the parent: ``("call", folder, function, arguments)``, with the
parent's working folder, so that a relative path means the same to both; ``("item", value)`` and ``("stop",)``, the
answers to ``next``. To the parent: ``("next", stream, pass)``, the next item of an iterable of the parent's;
``("result", value)`` and ``("error", exception, traceback)``, which end a call.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import threading
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from edgeprune.workers.names import resolve

_connection: Connection
_objects: dict[int, Any] = {}


def main(connection: int, alive: int, warm: str) -> None:
    """Serve the parent.

    Args:
        connection: file descriptor of a socket.
        alive: file descriptor of a pipe that ends when the parent does.
        warm: name of a function to call first, such as one that imports what takes long; may be empty.
    """
    global _connection
    _connection = Connection(connection)
    threading.Thread(target=_leave_with_parent, args=(alive,), daemon=True).start()
    _die_first()
    if warm:
        resolve(warm)()
    # What is loaded now stays: a collection that looked through it would take long, and in a fork copy its pages.
    gc.freeze()
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            _, folder, name, arguments = _connection.recv()
            _answer(folder, name, arguments)


def _answer(folder: str, name: str, arguments: tuple[Any, ...]) -> None:
    try:
        os.chdir(folder)
        message: tuple[Any, ...] = ("result", resolve(name)(*arguments))
        content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # whatever it is, it is raised again where the call was made
        content = pickle.dumps(("error", portable(error), traceback.format_exc()))
    _connection.send_bytes(content)


def portable(error: Exception) -> Exception:
    """The exception, or one that says the same if it cannot go to another process."""
    with contextlib.suppress(Exception):  # not every exception can be pickled, and not every pickle can be read
        pickle.loads(pickle.dumps(error))
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _leave_with_parent(alive: int) -> None:
    """End this process when the parent's end of the pipe is closed, even in the middle of a call."""
    while os.read(alive, 1):
        pass
    os._exit(0)


def _die_first() -> None:
    """Where memory runs out, Linux shall end this process and not the parent, which can still say so."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")


class Items:
    """An iterable of the parent's (:class:`edgeprune.workers.worker.Stream`); also callable, as converters want it."""

    def __init__(self, stream: int):
        self._stream = stream
        self._passes = 0

    def __iter__(self) -> Iterator[Any]:
        number, self._passes = self._passes, self._passes + 1
        while True:
            _connection.send(("next", self._stream, number))
            answer = _connection.recv()
            if answer[0] == "stop":
                return
            yield answer[1]

    __call__ = __iter__


def create(number: int, name: str, arguments: tuple[Any, ...]) -> None:
    """Make an object that lives here, under a number that the parent gives it."""
    _objects[number] = resolve(name)(*arguments)


def method(number: int, name: str, arguments: tuple[Any, ...]) -> Any:
    """Call a method of an object that lives here."""
    return getattr(_objects[number], name)(*arguments)


def drop(number: int) -> None:
    """Forget an object."""
    _objects.pop(number, None)


def ready() -> None:
    """Do nothing; the answer says that the process is warm."""
