"""Run external commands: every command is logged and has a time limit, and every failure is an error for the user."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgeprune.errors import ConversionError, MissingError

logger = logging.getLogger(__name__)
TAIL_LINES = 12
_EXCEPTION = re.compile(r"[\w.]+(Error|Exception): ")
# Seconds between telling a command to end and killing it, in which adb and ssh can end the program on the device.
_GRACE_S = 1.0


@dataclass(frozen=True)
class Output:
    """What a command printed, on both streams, and how many seconds it took."""

    text: str
    seconds: float


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (None when its time was up), what it printed, and how many seconds it took."""

    code: int | None
    stdout: bytes
    stderr: bytes
    seconds: float


def find(command: str) -> Path | None:
    """The path of a command: beside this Python, where pip installs scripts, else on PATH; None if not found."""
    beside = shutil.which(command, path=str(Path(sys.executable).parent))
    found = beside or shutil.which(command)
    return Path(found) if found else None


def execute(
    command: Sequence[str | Path],
    *,
    timeout_s: float,
    fix: str,
    cwd: Path | None = None,
    stdin: BinaryIO | int = subprocess.DEVNULL,
    stderr: int = subprocess.PIPE,
) -> Ended:
    """Run a command until it ends or its time is up. An exit code other than 0 is not an error here.

    Args:
        command: program and arguments; no shell.
        timeout_s: seconds after which it is stopped; what it printed until then is kept.
        fix: what the user can do when the program is missing.
        cwd: the working folder; None for this process's.
        stdin: a file to read from; ``subprocess.PIPE``: open and empty until the command ends.
        stderr: ``subprocess.STDOUT`` for both streams in one.

    Raises:
        MissingError: the program cannot be started.
    """
    words = [str(word) for word in command]
    name = Path(words[0]).name
    logger.info("running: %s", shlex.join(words))
    started = time.monotonic()
    try:
        # In a session of its own, so that Ctrl-C in the terminal reaches only this process, which ends the command.
        process = subprocess.Popen(
            words, cwd=cwd, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True
        )
    except OSError as error:
        raise MissingError(f"{name} cannot be started: {error.strerror or error}.", fix=fix) from None
    # Taken away from ``communicate``, which would close it at once.
    kept, process.stdin = process.stdin, None
    code: int | None = None
    try:
        out, err = process.communicate(timeout=timeout_s)
        code = process.returncode
    except subprocess.TimeoutExpired:
        out, err = _stop(process)
    except BaseException:
        _stop(process)
        raise
    finally:
        if kept:
            kept.close()
    seconds = time.monotonic() - started
    logger.info("%s ended with %s after %.1f s", name, "no answer" if code is None else code, seconds)
    return Ended(code, out, err or b"", seconds)


def _stop(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """End a command, and kill it if it does not react; returns what it has printed."""
    process.terminate()
    try:
        return process.communicate(timeout=_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
    try:
        return process.communicate(timeout=_GRACE_S)
    except subprocess.TimeoutExpired as left:  # a child process keeps the pipes open
        return left.stdout or b"", left.stderr or b""


def call(command: Sequence[str | Path], *, timeout_s: float, fix: str, cwd: Path | None = None) -> Output:
    """Run a command that must succeed.

    Args:
        command: program and arguments; no shell.
        timeout_s: seconds after which it is stopped.
        fix: what the user can do when the program is missing.
        cwd: the working folder; None for this process's.

    Raises:
        MissingError: the program cannot be started, or did not end in time.
        ConversionError: it ended with an exit code other than 0; with the last lines of its output.
    """
    words = [str(word) for word in command]
    name, shown = Path(words[0]).name, shlex.join(words)
    ended = execute(words, timeout_s=timeout_s, fix=fix, cwd=cwd, stderr=subprocess.STDOUT)
    text = ended.stdout.decode("utf-8", "replace")
    if ended.code is None:
        raise MissingError(
            f"{name} did not end within {timeout_s:g} s.", fix=f"run it by hand to see what it is waiting for: {shown}"
        )
    if ended.code != 0:
        tail = "\n".join(_last_words(text.strip().splitlines()[-TAIL_LINES:]))
        how = f"failed with exit code {ended.code}" if ended.code > 0 else f"crashed ({_signal_name(-ended.code)})"
        raise ConversionError(f"{name} {how}:\n{tail}", fix=f"run it by hand: {shown}")
    return Output(text, ended.seconds)


def _last_words(lines: Sequence[str]) -> Sequence[str]:
    """What a program ended with; of a Python program's traceback, the exception."""
    raised = [number for number, line in enumerate(lines) if _EXCEPTION.match(line)]
    return lines[raised[-1] :] if raised else lines


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
