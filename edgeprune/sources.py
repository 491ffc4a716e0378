"""Which of edgeprune's own code a module runs: for the keys of stages.

A stage that was finished by other code must run again, in a checkout that changes from one build to the next, too. Its
code is its module and all that this imports, in functions and by names in tables as well.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import importlib.util
import re
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

PACKAGE = "edgeprune"
# "module" or "module:name", as tables of plug-ins hold them.
_NAMED = re.compile(rf"({PACKAGE}(?:\.\w+)+)(?::\w+)?")


@functools.cache
def source_hash(module: str) -> str:
    """SHA-256 over the files of a module of edgeprune and of all modules of edgeprune that it needs.

    The tables that these name and that lie beside them count, too. Modules from elsewhere have no hash; what of them
    matters is among the versions.
    """
    digest = hashlib.sha256()
    for name in sorted(_needed(module)):
        digest.update(name.encode())
        digest.update(_content(name))
    return digest.hexdigest()


def _needed(module: str) -> set[str]:
    """The modules that are reached from ``module``, itself included."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen and _file(name) is not None:
            seen.add(name)
            waiting += _imports(name)
    return seen


@functools.cache
def _file(module: str) -> Path | None:
    """The source file of a module of edgeprune; None for any other module, and for names that are no modules."""
    package, *names = module.split(".")
    if package != PACKAGE or not names:
        return None
    # Finding the first package imports nothing but edgeprune; below it, finding would import its packages.
    spec = importlib.util.find_spec(f"{package}.{names[0]}")
    if spec is None or spec.origin is None:
        return None
    top = Path(spec.origin)
    if len(names) == 1:
        return top
    place = top.parent.joinpath(*names[1:])
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


@functools.cache
def _names(module: str) -> tuple[frozenset[str], frozenset[str]]:
    """What a module imports from edgeprune, some of which are no modules; and the strings in it.

    From its compiled code, which Python keeps beside it: parsing 270 files would take a second of every build.
    """
    imported: set[str] = set()
    strings: set[str] = set()
    waiting = [SourceFileLoader(module, str(_file(module))).get_code(module)]
    while waiting:
        code = waiting.pop()
        assert code is not None
        imported |= _imported(code)
        strings |= set(_texts(code.co_consts))
        waiting += [value for value in code.co_consts if isinstance(value, CodeType)]
    return frozenset(imported), frozenset(strings)


def _imported(code: CodeType) -> set[str]:
    """What the code imports from edgeprune, with the names that it takes of each module."""
    found: set[str] = set()
    if not any(name.partition(".")[0] == PACKAGE for name in code.co_names):
        return found
    names: object = None
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            taken = names if isinstance(names, tuple) else ()
            found |= {instruction.argval, *(f"{instruction.argval}.{name}" for name in taken)}
        names = instruction.argval  # those of "from module import names" are loaded right before
    return found


def _texts(value: object) -> Iterator[str]:
    """The strings in a constant, and in those that it holds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple | frozenset):
        for item in value:
            yield from _texts(item)


def _imports(module: str) -> frozenset[str]:
    """The names that a module imports from edgeprune, some of which are no modules; also by names in tables."""
    imported, strings = _names(module)
    return imported | {named[1] for text in strings if (named := _NAMED.fullmatch(text))}


@functools.cache
def _content(module: str) -> bytes:
    """A module's source, and the files beside it that it names."""
    file = _file(module)
    assert file is not None
    _, strings = _names(module)
    beside = sorted(path for path in file.parent.iterdir() if path.name in strings and path.is_file())
    return b"".join(path.read_bytes() for path in (file, *beside))
