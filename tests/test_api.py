"""The public API: closed, typed, documented, and imported only when it is used."""

import ast
import inspect
import json
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import edgeprune

FUNCTIONS = {
    "build", "channel_groups", "check", "compare", "count", "encode", "load_model", "mask_filters", "profile",
    "prune_filters", "reconstruct", "register_rule", "search",
}  # fmt: skip
TYPES = {
    "Baseline", "Comparison", "Constraints", "Counts", "DataSource", "Encoding", "Evidence", "Finding", "Front",
    "Group", "Limits", "OnDevice", "Profile", "Progress", "Pruned", "Recipe", "Reconstructed", "Report",
    "SearchResult", "Target", "Trial",
}  # fmt: skip
ERRORS = {
    "ConversionError", "DataError", "DeviceError", "EdgepruneError", "MissingError", "ModelError", "OutputError",
    "RecipeError", "TargetError", "UsageError", "VerificationError",
}  # fmt: skip


def test_the_api_is_closed():
    """dir() lists these names and no other; each is there, and a name that is not raises AttributeError."""
    assert set(dir(edgeprune)) == FUNCTIONS | TYPES | ERRORS | {"__version__"} == set(edgeprune.__all__)
    assert all(callable(getattr(edgeprune, name)) for name in FUNCTIONS | ERRORS | TYPES - {"DataSource"})
    with pytest.raises(AttributeError, match="has no attribute 'biuld'"):
        edgeprune.biuld  # noqa: B018


def test_type_checkers_and_the_program_find_the_same_names():
    """What is imported for type checkers is what is imported on use, from the same modules."""
    tree = ast.parse(Path(edgeprune.__file__).read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.asname: node.module for node in block.body for alias in node.names}
    assert imported == edgeprune._HOMES


def _run(code):
    """What a Python program of its own prints, as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_edgeprune_imports_nothing_else():
    """Neither TensorFlow nor NumPy nor pydantic nor another module of edgeprune, but for its version."""
    code = (
        "import json, sys; before = set(sys.modules); import edgeprune; dir(edgeprune);"
        "new = {name for name in set(sys.modules) - before if name.split('.')[0] not in sys.stdlib_module_names};"
        "print(json.dumps(sorted(new)))"
    )
    assert _run(code) == ["edgeprune", "edgeprune._version"]


def test_no_name_imports_tensorflow():
    """Every public name can be looked at without TensorFlow; only calling some of them imports it."""
    code = (
        "import json, sys, edgeprune; [getattr(edgeprune, name) for name in dir(edgeprune)];"
        "print(json.dumps(sorted({'tensorflow', 'tf_keras', 'keras', 'matplotlib'} & sys.modules.keys())))"
    )
    assert _run(code) == []


def test_names_mean_the_same_whatever_was_imported_before():
    """Importing every module first, those called like a function among them, changes no public name."""
    scripts = ("__main__", "emulator_guest")
    code = (
        "import importlib, json, pkgutil, edgeprune\n"
        "from edgeprune._tensorflow import import_tf; import_tf()\n"
        "for module in pkgutil.walk_packages(edgeprune.__path__, 'edgeprune.'):\n"
        f"    if not module.name.endswith({scripts}): importlib.import_module(module.name)\n"
        "print(json.dumps({name: getattr(getattr(edgeprune, name), '__qualname__', None) for name in dir(edgeprune)}))"
    )
    found = _run(code)
    assert {name: found[name] for name in FUNCTIONS | ERRORS | TYPES - {"DataSource"}} == {
        name: name for name in FUNCTIONS | ERRORS | TYPES - {"DataSource"}
    }


# -- types ------------------------------------------------------------------------------------------------------------


def _namespace(module):
    """A module's names with those that it imports for type checkers only."""
    tree = ast.parse(inspect.getsource(module))
    guarded = [
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    ]
    names = dict(vars(module))
    exec(compile(ast.Module([line for node in guarded for line in node.body], []), module.__name__, "exec"), names)
    return names


def _hints(thing):
    names = _namespace(inspect.getmodule(thing))
    return typing.get_type_hints(thing, names, names)


def _mentions_any(hint):
    return hint is typing.Any or any(map(_mentions_any, _parts(hint)))


def _parts(hint):
    found = typing.get_args(hint)
    return [inner for part in found for inner in (part if isinstance(part, list) else [part])]


def _methods(cls):
    """The public methods, properties and constructor that a class of ours defines."""
    for name, value in vars(cls).items():
        value = getattr(value, "fget", None) or getattr(value, "__func__", value)
        is_ours = inspect.isfunction(value) and value.__module__ == cls.__module__
        if is_ours and (not name.startswith("_") or name in ("__init__", "__getitem__", "__contains__")):
            yield value


def _signatures():
    for name in sorted(FUNCTIONS):
        yield name, getattr(edgeprune, name)
    for name in sorted((TYPES | ERRORS) - {"DataSource", "Comparison"}):
        for method in _methods(getattr(edgeprune, name)):
            yield method.__qualname__, method


@pytest.mark.parametrize(("name", "function"), list(_signatures()))
def test_no_signature_says_any(name, function):
    """Every argument and result of a public function or method has a type, and none is or contains Any."""
    hints, signature = _hints(function), inspect.signature(function)
    expected = {parameter for parameter in signature.parameters if parameter != "self"}
    assert expected <= hints.keys()
    if not name.endswith("__init__"):
        assert "return" in hints
    assert not [key for key, hint in hints.items() if _mentions_any(hint)]


@pytest.mark.parametrize("name", sorted(TYPES - {"DataSource", "Recipe", "Target", "Report", "Progress"}))
def test_no_attribute_says_any(name):
    """What a public type holds is typed, too."""
    assert not [key for key, hint in _hints(getattr(edgeprune, name)).items() if _mentions_any(hint)]


def test_the_types_are_shipped():
    """py.typed tells type checkers that the annotations are meant for them."""
    assert (Path(edgeprune.__file__).parent / "py.typed").is_file()


# What type checkers should say about a program that uses the API.
PROGRAM = """
import numpy

import edgeprune

report = edgeprune.build("model.keras", target="rpi4", data="images")
reveal_type(report.variants[0].bytes)
reveal_type(edgeprune.count(edgeprune.load_model("model.keras")).macs)
reveal_type(edgeprune.check("model.tflite", "coral")[0].severity)
reveal_type(edgeprune.compare("a.tflite", "b.tflite")["figures"]["bytes"]["change"])
reveal_type(edgeprune.profile("a.tflite", "rpi4").memory.arena_bytes)
edgeprune.biuld()
edgeprune.profile(3)
edgeprune.build(data=3)
edgeprune.build(data=(numpy.zeros((9, 4)), numpy.zeros(9)))
edgeprune.build(data=lambda: {"x": numpy.zeros((9, 4)), "y": numpy.zeros(9)})
"""


def test_mypy_sees_the_types(mypy, tmp_path):
    """mypy knows what the API returns, and finds a name that is not there and an argument of the wrong type."""
    (tmp_path / "program.py").write_text(PROGRAM)
    done = mypy(tmp_path)
    said = [line.split(": ", 2)[2] for line in done.stdout.splitlines()[:-1] if line.startswith("program.py")]
    assert said.pop().startswith('Argument "data" to "build" has incompatible type "int"; expected "str | Path |')
    assert said == [
        'Revealed type is "int"',
        'Revealed type is "int"',
        "Revealed type is \"Literal['error'] | Literal['warning'] | Literal['note']\"",
        'Revealed type is "float | int | None"',
        'Revealed type is "int"',
        'Module has no attribute "biuld"  [attr-defined]',
        'Argument 1 to "profile" has incompatible type "int"; expected "str | Path"  [arg-type]',
    ], done.stdout + done.stderr


# -- documentation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_is_documented(name):
    """The docstring of a public function says what each argument is, what comes back, and which errors there are."""
    function = getattr(edgeprune, name)
    text = inspect.getdoc(function)
    for section in ("Args:", "Returns:", "Raises:"):
        assert section in text, f"{name} has no {section}"
    arguments = text.split("Args:")[1].split("Returns:")[0]
    for parameter in inspect.signature(function).parameters:
        assert parameter in arguments, f"{name}: nothing is said about {parameter}"


@pytest.mark.parametrize("name", sorted(TYPES - {"DataSource"} | ERRORS))
def test_every_type_is_documented(name):
    """A public class says what it is."""
    assert vars(getattr(edgeprune, name))["__doc__"]
