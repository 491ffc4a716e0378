"""Ctrl-C that is not lost.

Python raises KeyboardInterrupt wherever it happens to be. Where that is a finalizer, or a function that native code
calls, the exception is written down or dropped there, and the command would go on as if nothing had been asked. So an
interrupt is remembered until the command ends, and raised again the next time that progress is reported.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

_interrupted = False


def remember() -> None:
    """From now on an interrupt of this process is remembered. Does nothing where SIGINT is ignored (a background job
    of a shell) or has a handler of its own."""
    global _interrupted
    _interrupted = False
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        sys.unraisablehook = _dropped


def raise_lost() -> None:
    """Raise an interrupt that came earlier and did not end the command.

    Raises:
        KeyboardInterrupt: one came.
    """
    if _interrupted:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


def _dropped(dropped: sys.UnraisableHookArgs) -> None:
    """What Python could not raise is written down, but for an interrupt, which is raised later."""
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
