"""What works without TensorFlow, and what the other commands then say."""

import configparser
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Modules of the requirements of the extra "build", where they have another name.
MODULES = {"tensorflow-model-optimization": "tensorflow_model_optimization", "ai-edge-litert": "ai_edge_litert"}
MODULES |= {"pillow": "PIL", "protobuf": "google.protobuf"}
LIGHT = [
    ["profile", "{int8}", "--target", "rpi4"],
    ["profile", "{int8}", "--target", "coral", "--json"],
    ["check", "{int8}", "--target", "rpi4"],
    ["compare", "{float32}", "{int8}", "--target", "rpi4"],
    ["targets", "list"],
    ["targets", "show", "rpi4"],
    ["encode", "{int8}"],
    ["init"],
]
HEAVY = [
    ["build", "--target", "rpi4"],
    ["inspect", "{float32}"],
    ["check", "{keras}", "--target", "rpi4"],
    ["sensitivity", "{keras}", "--data", "demo"],
    ["compare", "{float32}", "{int8}", "--data", "demo"],
    ["convert", "{float32}", "--keras", "model.keras"],
    ["profile", "{int8}", "--target", "rpi4", "--plot", "plots"],
]


def requirements(option: str) -> list[str]:
    """Names of distributions in a list of setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", "utf-8")
    section = "options" if option == "install_requires" else "options.extras_require"
    lines = [line for line in setup[section][option].splitlines() if line and not line.startswith("#")]
    return [re.match(r"[\w-]+", line)[0] for line in lines]


@pytest.fixture(scope="module")
def files(tiny_files, tmp_path_factory):
    """Paths by name, for the commands above; the Keras model is not read before TensorFlow is asked for."""
    keras = tmp_path_factory.mktemp("keras") / "model.keras"
    keras.write_bytes(b"")
    return {**tiny_files, "keras": keras}


@pytest.fixture
def without_build(tmp_path):
    """Runs commands in a Python in which what the extra "build" brings cannot be found, in child processes neither."""
    missing = [MODULES.get(name, name.replace("-", "_")) for name in requirements("build")]
    (tmp_path / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        f"missing = {missing}\n"
        "PathFinder.find_spec = lambda name, *rest: None if name in missing else find(name, *rest)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}

    def run(arguments):
        command = [sys.executable, *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_files_are_looked_at_without_tensorflow(without_build, files, arguments):
    """With the base requirements alone, these commands work."""
    done = without_build(["-m", "edgeprune", *(argument.format(**files) for argument in arguments)])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", HEAVY, ids=" ".join)
def test_what_is_missing_names_the_extra(without_build, files, arguments):
    """A command that needs more ends with exit code 3 and one message, which names the extra."""
    done = without_build(["-m", "edgeprune", *(argument.format(**files) for argument in arguments)])
    assert done.returncode == 3, done.stderr
    assert "pip install 'edgeprune[build]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_python_functions_name_the_extra(without_build):
    """The same from Python: a MissingError."""
    program = "import edgeprune\ntry: edgeprune.build()\nexcept edgeprune.MissingError as error: print(error.fix)"
    assert without_build(["-c", program]).stdout == "pip install 'edgeprune[build]'\n"


@pytest.mark.slow
def test_an_installation_without_extras_is_small(tmp_path):
    """In a fresh environment: under 150 MB, and profile works."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    site = next(environment.glob("lib/python*/site-packages"))
    before = _size(site)
    pip = [environment / "bin" / "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", ROOT]
    subprocess.run(pip, check=True, timeout=1200)
    assert _size(site) - before < 150e6
    command = [environment / "bin" / "edgeprune", "targets", "list"]
    assert "rpi4" in subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
