"""A parent that only watches: where native code ends the process of a command, it still says what happened.

The converter and the interpreters have processes of their own (:mod:`edgeprune.workers`). TensorFlow itself, which
loads, trains and evaluates, runs in the command's process. So the command runs in a fork that is made before TensorFlow
is loaded, which costs about a millisecond; its parent waits, passes signals on, and holds no memory to speak of.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import threading
from collections.abc import Callable

import click

from edgeprune._tensorflow import ONEDNN, WITHOUT_ONEDNN

EXIT_CODE = 3
# Passed on where they were sent to this process alone; what a terminal sends reaches the fork by itself.
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CRASHES = {
    signal.SIGSEGV: "a segmentation fault",
    signal.SIGABRT: "an abort",
    signal.SIGBUS: "a bus error",
    signal.SIGILL: "an illegal instruction",
    signal.SIGFPE: "an arithmetic error",
}
_SENT_BY_USER = 0  # siginfo's si_code SI_USER, of kill(2)
_PR_SET_PDEATHSIG = 1  # prctl(2)
_NOTE_BYTES = 256
# What the fork does at the moment, in memory that it shares with its parent.
_note: mmap.mmap | None = None


def doing(what: str) -> None:
    """Note what this process does, such as ``the stage 'filters'``, for the case that it does not live to say so."""
    if _note is not None:
        _note[:] = what.encode()[: _NOTE_BYTES - 1].ljust(_NOTE_BYTES, b"\0")


def supervised(command: str, kept: str, run: Callable[[], int]) -> int:
    """Run a command in a fork of this process.

    A crash of a command that keeps what it finished is followed by one more try without oneDNN's kernels, of which some
    gradients corrupt memory (the weights of 1x1 convolutions with strides, in TensorFlow 2.21 on some processors).

    Args:
        command: its name.
        kept: what it keeps for the next start; empty: nothing.
        run: what the fork does; returns its exit code.

    Returns:
        The exit code: that of ``run``, or 3 where the fork did not live to give one.
    """
    global _note
    if not _can_fork():
        return run()
    _note = mmap.mmap(-1, _NOTE_BYTES)
    number = _forked(run)
    if number in _CRASHES and kept and os.environ.get(ONEDNN) != "0" and WITHOUT_ONEDNN not in os.environ:
        _say(
            f"{_where(command)} ended with {_CRASHES[signal.Signals(number)]} in TensorFlow. oneDNN's kernels are a "
            "known cause, so it goes on without them, from what is finished."
        )
        os.environ[WITHOUT_ONEDNN] = "1"
        sys.argv = [argument for argument in sys.argv if argument != "--fresh"]
        number = _forked(run)
    if number <= 0:
        return -number
    if number in _PASSED_ON or number == signal.SIGPIPE:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    if number == signal.SIGKILL:
        what = "was killed, which is what happens when memory runs out"
        fix = "close other programs, or use a machine with more memory; a smaller [finetune] batch_size needs less."
    else:
        what = f"ended with {_CRASHES.get(signal.Signals(number), f'signal {number}')} in TensorFlow's native code"
        fix = "run the command with --debug and report the model, if it is not damaged."
    _say(f"{_where(command)} {what}. {kept}".strip() + f"\nTo fix: {fix}")
    return EXIT_CODE


def _can_fork() -> bool:
    """Whether a fork is safe, which it is not where threads run, and signals can be told apart (Linux)."""
    single = threading.active_count() == 1 and "tensorflow" not in sys.modules
    return single and hasattr(os, "fork") and hasattr(signal, "sigwaitinfo")


def _forked(run: Callable[[], int]) -> int:
    """Run in a fork; returns the number of the signal that ended it, or its exit code, negative."""
    doing("")
    watched = {*_PASSED_ON, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _die_with(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sys.exit(run())
    try:
        return _wait(child, watched)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(child: int, watched: set[signal.Signals]) -> int:
    while True:
        info = signal.sigwaitinfo(watched)
        if info.si_signo != signal.SIGCHLD:
            if info.si_code == _SENT_BY_USER:
                os.kill(child, info.si_signo)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def _die_with(parent: int) -> None:
    """End this process with its parent, even where that is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(EXIT_CODE)


def _where(command: str) -> str:
    stage = _note[:].rstrip(b"\0").decode("utf-8", "replace") if _note else ""
    return f"{command}, in {stage}," if stage else command


def _say(message: str) -> None:
    click.echo(f"edgeprune: {message}", err=True)
