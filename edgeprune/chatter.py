"""Suppress lines that C++ libraries write to file descriptors, bypassing ``sys.stderr`` and ``sys.stdout``."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Literal


@contextlib.contextmanager
def without_lines(pattern: re.Pattern[str], descriptor: Literal[1, 2] = 2) -> Iterator[None]:
    """Hold back what is written to a file descriptor; at the end, write the lines that ``pattern`` does not match."""
    with contextlib.ExitStack() as stack:
        try:
            _flush(descriptor)
            saved = os.dup(descriptor)
        except (OSError, AttributeError):  # there is none, as in a daemon
            yield
            return
        stack.callback(os.close, saved)
        caught = stack.enter_context(tempfile.TemporaryFile())
        os.dup2(caught.fileno(), descriptor)
        try:
            yield
        finally:
            _flush(descriptor)
            os.dup2(saved, descriptor)
            caught.seek(0)
            for line in caught:
                if not pattern.match(line.decode(errors="replace")):
                    os.write(descriptor, line)


def _flush(descriptor: Literal[1, 2]) -> None:
    """What Python and the C library still hold of a standard stream."""
    (sys.stdout if descriptor == 1 else sys.stderr).flush()
    if descriptor == 1:  # C does not hold standard error back
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).fflush(None)
