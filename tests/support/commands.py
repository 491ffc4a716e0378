"""Commands as users type them, run in this process: what they print and how they end, without starting TensorFlow.

What watches a command, signals and what native code writes need a process of their own: see tests/cli/test_supervisor.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from pathlib import Path
from unittest import mock


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``edgeprune ARGUMENTS`` in the folder ``cwd``: exit code, standard output and standard error."""
    from edgeprune import cli

    words = ["edgeprune", *map(str, arguments)]
    if "--debug" in words:
        raise ValueError("main() moves --debug to the front: test it in a process of its own")
    command = next((word for word in words[1:] if not word.startswith("-")), "")
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(cwd or Path.cwd()))
        stack.enter_context(mock.patch.object(sys, "argv", words))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        code = cli._run(command, False)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
