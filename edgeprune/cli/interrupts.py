"""Ctrl-C that is not lost.

Python raises KeyboardInterrupt wherever it happens to be. Where that is a finalizer, or a function that native code
calls, the exception is written down or dropped there, and the command would go on as if nothing had been asked. So an
interrupt is remembered until the command ends, and raised again the next time that progress is reported.
"""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType

# One Ctrl-C may come twice: `timeout`, runners of jobs and editors send it to all processes of a group, and the parent
# of this one passes it on. So soon after the first, a second is the same one, and not to end what the first began.
_SAME_SECONDS = 1.0
_interrupted: float | None = None


def remember() -> None:
    """From now on an interrupt of this process is remembered. Does nothing where SIGINT is ignored (a background job
    of a shell) or has a handler of its own."""
    global _interrupted
    _interrupted = None
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _dropped


def raise_lost() -> None:
    """Raise an interrupt that came earlier and did not end the command.

    Raises:
        KeyboardInterrupt: one came.
    """
    if _interrupted is not None:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _interrupted
    now = time.monotonic()
    if _interrupted is not None and now - _interrupted < _SAME_SECONDS:
        return
    _interrupted = now
    raise KeyboardInterrupt


def _dropped(dropped: sys.UnraisableHookArgs) -> None:
    """What Python could not raise is written down, but for an interrupt, which is raised later."""
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
