"""Functions and classes of modules as text, ``module:name``: what one process can tell another."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def name_of(function: Callable[..., Any]) -> str:
    """The name of a function or class that its module has under its own name."""
    name = f"{function.__module__}:{function.__qualname__}"
    assert resolve(name) is function, name
    return name


def resolve(name: str) -> Callable[..., Any]:
    """Inverse of :func:`name_of`."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found
