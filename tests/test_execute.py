"""external.execute: what a command did, whatever its end."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from edgeprune.errors import MissingError
from edgeprune.external import execute


def python(code, **options):
    return execute([sys.executable, "-c", code], **{"timeout_s": 60, "fix": "", **options})


def test_any_exit_code_is_an_answer():
    """Exit code and both streams come back as bytes."""
    ended = python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")
    assert (ended.code, ended.stdout, ended.stderr) == (7, b"out\n", b"err\n")


def test_what_was_printed_until_the_time_was_up_is_kept():
    """A command that is stopped has no exit code, but its output."""
    ended = python("import time; print('first', flush=True); time.sleep(60)", timeout_s=3)
    assert (ended.code, ended.stdout) == (None, b"first\n")
    assert ended.seconds < 30


def test_standard_input_stays_open():
    """With a pipe, the command waits for more input; by default it finds none."""
    code = "import sys; print(len(sys.stdin.read()), flush=True)"
    assert python(code).stdout == b"0\n"
    assert python(code, stdin=subprocess.PIPE, timeout_s=2).code is None


def test_ctrl_c_ends_the_command():
    """An interrupt while it runs ends the command, too."""
    threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        python("import time; time.sleep(60)")
    assert time.monotonic() - started < 30


def test_a_program_that_is_not_there():
    """It is missing, with what to do."""
    with pytest.raises(MissingError, match="install it"):
        execute(["no-such-tool"], timeout_s=1, fix="install it.")
