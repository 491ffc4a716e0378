"""The packages of edgeprune import in one direction. Imports in functions and for type checkers count."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _modules() -> dict[str, Path]:
    """Dotted name of each module → its file. ``calibration`` and ``targets`` lie beside the package."""
    paths = [path for folder in ("edgeprune", "calibration", "targets") for path in (ROOT / folder).rglob("*.py")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    names = [name if name.startswith("edgeprune.") else f"edgeprune.{name}" for name in names]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


def _imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of edgeprune that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (submodules & known.keys()) or {node.module}
    return {name for name in found if name.split(".")[0] == "edgeprune"}


def _packages() -> dict[str, set[str]]:
    """Package or top-level module → those that it imports."""
    known = _modules()
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        if name != "edgeprune":  # the public API, which names everything
            targets = {target.split(".")[1] for target in _imported(path, known) if target.count(".")}
            graph.setdefault(name.split(".")[1], set()).update(targets)
    return {name: targets - {name} for name, targets in graph.items()}


def test_no_circle_between_packages():
    """There is an order of all packages in which each imports only those before it."""
    graph = _packages()
    assert {"tflite", "runtime", "hardware", "calibration", "cli"} <= graph.keys()
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert order.index("errors") < order.index("tflite") < order.index("hardware") < order.index("cli")


def test_a_circle_is_found():
    """The check itself fails where two packages import each other."""
    with pytest.raises(graphlib.CycleError):
        list(graphlib.TopologicalSorter({**_packages(), "errors": {"cli"}}).static_order())
