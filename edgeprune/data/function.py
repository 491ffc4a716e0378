"""Functions of the user, named on the command line: ``package.module:function`` or ``file.py:function``."""

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

from edgeprune.errors import DataError


def import_function(source: str) -> Callable[..., Any]:
    """Import a function. This runs the user's module: naming it is what the user asked for.

    Modules beside a ``file.py``, and modules in the working folder, can be imported.

    Args:
        source: ``package.module:function`` or ``path/file.py:function``.

    Raises:
        DataError: no such file, module or function, or importing it raised.
    """
    place, _, name = source.rpartition(":")
    module = _import_file(Path(place), source) if place.endswith(".py") else _import_module(place, source)
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        raise DataError(
            f"There is no function {name!r} in {place}.",
            expected=f"one of: {', '.join(known)}." if known else f"{place} to define a function {name}().",
        )
    return function


def call_function(function: Callable[[], Any], name: str) -> Any:
    """Call a data function without arguments.

    Raises:
        DataError: it raised; the message names the exception, ``__cause__`` holds it.
    """
    with _users_code(f"The data function {name}"):
        return function()


def source_hash(function: Callable[..., Any]) -> bytes:
    """sha256 of the file that defines a function; of its name if there is no file (an interactive session)."""
    target = inspect.unwrap(getattr(function, "func", function))
    try:
        file = inspect.getsourcefile(target if hasattr(target, "__code__") else type(target))
    except TypeError:
        file = None
    if file and Path(file).is_file():
        return hashlib.sha256(Path(file).read_bytes()).digest()
    return hashlib.sha256(repr(getattr(target, "__qualname__", type(target))).encode()).digest()


def _import_file(path: Path, source: str) -> ModuleType:
    if not path.is_file():
        raise DataError(f"The file {path} of {source} does not exist.", expected="file.py:function.")
    name = f"edgeprune_user_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look the module up by name
    try:
        with _importable(path.resolve().parent), _users_code(f"Importing {path}"):
            spec.loader.exec_module(module)
    except DataError:
        del sys.modules[name]
        raise
    return module


def _import_module(place: str, source: str) -> ModuleType:
    with _importable(Path.cwd()):
        try:
            found = importlib.util.find_spec(place)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise DataError(
                f"There is no module {place!r} to import for {source}.",
                expected="package.module:function, importable from the working folder, or file.py:function.",
                fix="check the name, install the package, or run edgeprune from the folder that holds it.",
            )
        with _users_code(f"Importing {place}"):
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
def _users_code(doing: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise DataError(
            f"{doing} raised {type(error).__name__}: {error}",
            expected="no exception.",
            fix="run it in Python by itself; --debug shows the traceback.",
        ) from error
