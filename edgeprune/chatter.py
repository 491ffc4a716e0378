"""Suppress lines that C++ libraries write to file descriptor 2, bypassing ``sys.stderr``."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def without_lines(pattern: re.Pattern[str]) -> Iterator[None]:
    """Hold back what is written to file descriptor 2; at the end, write the lines that ``pattern`` does not match."""
    with contextlib.ExitStack() as stack:
        try:
            sys.stderr.flush()
            saved = os.dup(2)
        except (OSError, AttributeError):  # there is no standard error, as in a daemon
            yield
            return
        stack.callback(os.close, saved)
        caught = stack.enter_context(tempfile.TemporaryFile())
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            caught.seek(0)
            for line in caught:
                if not pattern.match(line.decode(errors="replace")):
                    os.write(2, line)
