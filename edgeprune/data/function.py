"""Data functions of the user: calling them, and knowing when their source has changed."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path

from edgeprune.code import users_code
from edgeprune.errors import DataError


def call_function(function: Callable[[], object], name: str) -> object:
    """Call a data function without arguments.

    Raises:
        DataError: it raised; the message names the exception, ``__cause__`` holds it.
    """
    with users_code(f"The data function {name}", DataError):
        return function()


def source_hash(function: Callable[..., object]) -> bytes:
    """sha256 of the file that defines a function; of its name if there is no file (an interactive session)."""
    target = inspect.unwrap(getattr(function, "func", function))
    try:
        file = inspect.getsourcefile(target if hasattr(target, "__code__") else type(target))
    except TypeError:
        file = None
    if file and Path(file).is_file():
        return hashlib.sha256(Path(file).read_bytes()).digest()
    return hashlib.sha256(repr(getattr(target, "__qualname__", type(target))).encode()).digest()
