"""Which of edgeprune's own code a module runs: for the keys of stages.

A stage that was finished by other code must run again, in a checkout that changes from one build to the next, too. Its
code is its module and all that this imports, in functions and by names in tables as well.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

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
def _tree(module: str) -> tuple[Path, bytes, list[ast.AST]]:
    """A module's file, its content, and of its syntax tree the imports and constants."""
    file = _file(module)
    assert file is not None
    content = file.read_bytes()
    return file, content, list(_imports_and_constants(ast.parse(content)))


def _imports_and_constants(tree: ast.AST) -> Iterator[ast.AST]:
    # ast.walk, and keeping what it gives, would take as long as parsing: a build looks through 200 modules.
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Constant):
            yield node
            continue
        for value in vars(node).values():
            if isinstance(value, list):
                waiting += [item for item in value if isinstance(item, ast.AST)]
            elif isinstance(value, ast.AST):
                waiting.append(value)


def _imports(module: str) -> set[str]:
    """The names that a module imports from edgeprune, some of which are no modules."""
    found: set[str] = set()
    for node in _tree(module)[2]:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = _NAMED.fullmatch(node.value)
            found |= {named[1]} if named else set()
    return found


@functools.cache
def _content(module: str) -> bytes:
    """A module's source, and the files beside it that it names."""
    file, content, nodes = _tree(module)
    named = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    beside = sorted(path for path in file.parent.iterdir() if path.name in named and path.is_file())
    return b"".join([content, *(path.read_bytes() for path in beside)])
