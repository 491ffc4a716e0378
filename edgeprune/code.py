"""Import the user's code, named on the command line: ``package.module:function`` or ``file.py:function``."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeprune.errors import EdgepruneError


def load_function(source: str, error: type[EdgepruneError]) -> Callable[..., Any]:
    """Import a function. This runs the user's module, which is safe because the user named it.

    Modules beside a ``file.py``, and modules in the working folder, can be imported.

    Args:
        source: ``package.module:function`` or ``path/file.py:function``.
        error: the class of error to raise.

    Raises:
        error: no such file, module or function, or importing it raised.
    """
    place, _, name = source.rpartition(":")
    module = import_file(Path(place), source, error) if place.endswith(".py") else _import_module(place, source, error)
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        raise error(
            f"There is no function {name!r} in {place}.",
            expected=f"one of: {', '.join(known)}." if known else f"{place} to define a function {name}().",
        )
    return function


def import_file(path: Path, source: str, error: type[EdgepruneError]) -> ModuleType:
    """Import a Python file as a module.

    Args:
        path: the file.
        source: what the user wrote, for messages.
        error: the class of error to raise.
    """
    if not path.is_file():
        raise error(f"The file {path} of {source} does not exist.", expected="file.py:function.")
    name = f"edgeprune_user_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look the module up by name
    try:
        with _importable(path.resolve().parent), users_code(f"Importing {path}", error):
            spec.loader.exec_module(module)
    except error:
        del sys.modules[name]
        raise
    return module


def _import_module(place: str, source: str, error: type[EdgepruneError]) -> ModuleType:
    with _importable(Path.cwd()):
        try:
            found = importlib.util.find_spec(place)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise error(
                f"There is no module {place!r} to import for {source}.",
                expected="package.module:function, importable from the working folder, or file.py:function.",
                fix="check the name, install the package, or run edgeprune from the folder that holds it.",
            )
        with users_code(f"Importing {place}", error):
            return importlib.import_module(place)


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


@contextlib.contextmanager
def users_code(doing: str, error: type[EdgepruneError]) -> Iterator[None]:
    """Turn any exception of the user's code, and ``sys.exit``, into an ``error`` whose cause is the original."""
    try:
        yield
    except (Exception, SystemExit) as problem:
        raise error(
            f"{doing} raised {type(problem).__name__}: {problem}",
            fix="run it by itself in Python, or use --debug to see the traceback.",
        ) from problem
