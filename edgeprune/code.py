"""Functions that the user names: ``package.module:function`` or ``file.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeprune.errors import EdgepruneError


def load_function(spec: str, error: type[EdgepruneError]) -> Callable[..., Any]:
    """Import the function that ``spec`` names.

    Raises:
        error: with what went wrong: no such file or module, code that raises, no such function.
    """
    place, _, name = spec.rpartition(":")
    module = _load_module(place, spec, error)
    function = getattr(module, name, None)
    if not callable(function):
        raise error(f"{place} has no function {name!r}.", fix=f"define it there, or correct {spec!r}.")
    return function


def _load_module(place: str, spec: str, error: type[EdgepruneError]) -> ModuleType:
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = Path(place).resolve()
        if not path.is_file():
            raise error(f"There is no file {place}, which {spec!r} names.", fix="check the path.")
        found = importlib.util.spec_from_file_location(f"edgeprune_user_{path.stem}", path)
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        sys.modules[found.name] = module
        found.loader.exec_module(module)
        return module
    except EdgepruneError:
        raise
    except ModuleNotFoundError as problem:
        raise error(
            f"The module that {spec!r} names cannot be imported: {problem}.", fix="check the name."
        ) from problem
    except Exception as problem:  # the user's own code may raise anything; it is shown, and nothing goes on without it
        raise error(f"{place} raised {type(problem).__name__}: {problem}.", fix="mend the file.") from problem
