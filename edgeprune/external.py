"""The one way to run a command that is not Python: logged, with a time limit, every failure an error for the user."""

from __future__ import annotations

import logging
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import ConversionError, MissingError

logger = logging.getLogger(__name__)
TAIL_LINES = 12


@dataclass(frozen=True)
class Output:
    """What a command printed, both streams in one, and how long it took."""

    text: str
    seconds: float


def find(command: str) -> Path | None:
    """Where a command is: beside this Python (as pip installs scripts), else on PATH; None when it is nowhere."""
    beside = shutil.which(command, path=str(Path(sys.executable).parent))
    found = beside or shutil.which(command)
    return Path(found) if found else None


def call(command: Sequence[str | Path], *, timeout_s: float, fix: str, cwd: Path | None = None) -> Output:
    """Run a command to its end.

    Args:
        command: program and arguments; no shell.
        timeout_s: seconds after which it is killed.
        fix: what to do when the program is not there.

    Raises:
        MissingError: the program cannot be started, or did not end in time.
        ConversionError: it ended with an exit code other than 0; with the last lines of its output.
    """
    words = [str(word) for word in command]
    name, shown = Path(words[0]).name, shlex.join(words)
    logger.info("running: %s", shown)
    started = time.monotonic()
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MissingError(
            f"{name} did not end within {timeout_s:g} s.", fix=f"run it by hand to see what it waits for: {shown}"
        ) from None
    except OSError as error:
        raise MissingError(f"{name} cannot be started: {error.strerror or error}.", fix=fix) from None
    seconds = time.monotonic() - started
    logger.info("%s ended with %d after %.1f s", name, done.returncode, seconds)
    if done.returncode != 0:
        tail = "\n".join(done.stdout.strip().splitlines()[-TAIL_LINES:])
        raise ConversionError(
            f"{name} failed with exit code {done.returncode}:\n{tail}", fix=f"run it by hand: {shown}"
        )
    return Output(done.stdout, seconds)
