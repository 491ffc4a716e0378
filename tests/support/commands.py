"""Commands as users type them, run in this process: what they print and how they end, without starting TensorFlow.

What watches a command, signals and what native code writes need a process of their own: see tests/cli/test_supervisor.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import jsonschema


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``edgeprune ARGUMENTS`` in the folder ``cwd``: exit code, standard output and standard error.

    What it prints with ``--json`` must follow the schema of the command.
    """
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
        if "--deterministic" in words:
            stack.callback(_without_determinism)
        code = cli._run(command, False)
    if "--json" in words and out.getvalue():
        follows_schema(words[1:], json.loads(out.getvalue()))
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def _without_determinism() -> None:
    """A command leaves the mode on for the rest of its process, which is that of other tests."""
    from tensorflow.python.framework.config import disable_op_determinism

    disable_op_determinism()


def follows_schema(words: list[str], document: Any) -> None:
    """The document that a command printed follows one of the schemas that are its own."""
    from edgeprune.schemas import PRINTED

    names = PRINTED.get(words[0]) or PRINTED[" ".join(words[:2])]
    faults = {name: sorted(f"{one.json_path}: {one.message}" for one in _validator(name).iter_errors(document))
              for name in names}  # fmt: skip
    assert not all(faults.values()), faults


@functools.cache
def _validator(name: Any) -> jsonschema.Draft202012Validator:
    from edgeprune.schemas import schema_path

    return jsonschema.Draft202012Validator(json.loads(schema_path(name).read_text("utf-8")))
