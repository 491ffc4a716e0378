"""The sdist and the wheel: what is published is complete, and what it says about itself holds."""

import ast
import configparser
import email
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.message import Message
from pathlib import Path
from typing import NamedTuple

import pytest

from edgeprune import __version__

ROOT = Path(__file__).parents[1]
LINKS = {"edgeprune/calibration", "edgeprune/targets"}  # their targets are packages, too
NOT_PUBLISHED = {".gitignore", *LINKS}
PYTHONS = ("3.11", "3.12", "3.13")


class Built(NamedTuple):
    """What ``python -m build`` makes, and the wheel that pip makes of the checkout itself."""

    sdist: Path
    wheel: Path
    wheel_of_checkout: Path


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    """Paths of the files that git has, from the root of the checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.rstrip("\0").split("\0"))


@pytest.fixture(scope="module")
def packaged(tracked) -> set[str]:
    """Paths in the wheel of the tracked files of all packages."""
    files = {name for name in tracked - LINKS if name.split("/")[0] in ("edgeprune", "targets", "calibration")}
    return {name if name.startswith("edgeprune/") else f"edgeprune/{name}" for name in files}


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Skips where pip reaches no package index."""
    folder = tmp_path_factory.mktemp("index")
    done = _pip("download", "--retries", "0", "--no-deps", "--dest", folder, "setuptools>=68")
    if done.returncode:
        pytest.skip("pip cannot fetch setuptools: no package index is reached")


@pytest.fixture(scope="module")
def built(tmp_path_factory, tracked, index) -> Built:
    """Made of the tracked files alone: neither an older build nor an untracked file gets in."""
    folder = tmp_path_factory.mktemp("packaging")
    for name in tracked:
        copy = folder / "checkout" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy, follow_symlinks=False)
    _succeeds(_run(sys.executable, "-m", "build", "--outdir", folder / "dist", folder / "checkout"))
    _succeeds(_pip("wheel", "--no-deps", "--wheel-dir", folder / "direct", folder / "checkout"))
    (sdist,) = folder.glob("dist/*.tar.gz")
    (wheel,) = folder.glob("dist/*.whl")
    (direct,) = folder.glob("direct/*.whl")
    return Built(sdist, wheel, direct)


@pytest.fixture(scope="module")
def metadata(built) -> Message:
    """The core metadata of the wheel."""
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_the_changelog_begins_with_this_version():
    """Below what is unreleased, the first section of the changelog is that of the package's version."""
    sections = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert sections[:2] == ["Unreleased", __version__]


def test_packages_are_the_folders_with_modules():
    """The packages of setup.cfg are the folders that hold Python files, each under the name that it is imported by."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", "utf-8")
    places = dict(line.split(" = ") for line in setup["options"]["package_dir"].split("\n") if line)
    found = {
        ".".join([package, *path.parent.relative_to(ROOT / place).parts])
        for package, place in places.items()
        for path in (ROOT / place).rglob("*.py")
    }
    assert setup["options"]["packages"].split() == sorted(found | {"edgeprune.targets"})  # it holds TOML only


def test_the_sdist_holds_what_is_tracked(built, tracked):
    """The sdist is the checkout, but for three files and for what setuptools writes."""
    with tarfile.open(built.sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames() if not archive.getmember(name).isdir()}
    written = {name for name in files if name in ("PKG-INFO", "setup.cfg") or name.startswith("edgeprune.egg-info/")}
    assert sorted(files - written) == sorted(tracked - NOT_PUBLISHED - {"setup.cfg"})
    assert written >= {"PKG-INFO", "setup.cfg"}


@pytest.mark.parametrize("which", ["wheel", "wheel_of_checkout"])
def test_the_wheel_holds_every_module_and_data_file_once(built, packaged, which):
    """Made of the sdist or of the checkout with its links, the wheel is the tracked files of the packages, no more."""
    names = zipfile.ZipFile(getattr(built, which)).namelist()
    assert sorted(name for name in names if ".dist-info/" not in name) == sorted(packaged)


def test_the_installed_wheel_runs_outside_the_checkout(built, tmp_path):
    """Without the checkout on the path, and without the test's own packages: targets and recipes are found."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False, system_site_packages=False)
    site = next(environment.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(built.wheel) as archive:
        archive.extractall(site)
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(ours))  # dependencies, after the wheel's own files
    command = [environment / "bin" / "python", "-m", "edgeprune", "targets", "list"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "rpi4" in done.stdout


def test_the_metadata_name_version_pythons_and_urls(metadata):
    """The version is the package's own, Python 3.11 to 3.13 are classified, and links lead somewhere over https."""
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.11"
    prefix = "Programming Language :: Python :: "
    classified = {value.removeprefix(prefix) for value in metadata.get_all("Classifier") if value.startswith(prefix)}
    assert classified == {"3", *PYTHONS}
    urls = dict(value.split(", ") for value in metadata.get_all("Project-URL"))
    assert urls.keys() >= {"Homepage", "Changelog"}
    assert all(url.startswith("https://") for url in urls.values())


@pytest.mark.parametrize(
    ("folders", "extras"),
    [
        (
            ["edgeprune", "calibration"],
            {"audio", "build", "detection", "micro", "parquet", "ray", "search", "vela", "weight-only"},
        ),
        (["tests", "benchmarks", "docs", "examples"], {"build", "test"}),
    ],
    ids=["edgeprune", "tests"],
)
def test_imported_packages_are_declared(metadata, folders, extras):
    """Every installed distribution that a module imports is a requirement, not only one of a requirement."""
    declared = set()
    for requirement in metadata.get_all("Requires-Dist"):
        extra = re.search(r'extra == "([^"]+)"', requirement)
        if not extra or extra[1] in extras:
            declared.add(_normal(re.match(r"[\w.-]+", requirement)[0]))
    distributions = importlib.metadata.packages_distributions()
    providers = {
        name: {_normal(distribution) for distribution in distributions[name]}
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for name in _imported(path) - {"edgeprune"}
        if name in distributions
    }
    assert {"numpy", "tf_keras"} <= providers.keys()
    assert {name for name, distributions in providers.items() if not distributions & declared} == set()


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
def test_requirements_are_met(built, index, tmp_path, python):
    """pip finds wheels that meet all requirements and those of the tests, on each Python that is classified.

    pip takes the tags of that Python, but decides environment markers by the Python that runs it.
    """
    report = tmp_path / "report.json"
    options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--python-version", python]
    done = _pip("install", *options, "--target", tmp_path / "none", "--report", report, f"{built.wheel}[build,test]")
    _succeeds(done)
    found = {
        entry["metadata"]["name"]: entry["metadata"]["version"] for entry in json.loads(report.read_text())["install"]
    }
    assert found["edgeprune"] == __version__
    assert {"tensorflow", "tf_keras", "h5py", "keras", "pytest"} <= found.keys()


@pytest.fixture
def clean(built, index, tmp_path):
    """The Python of an environment into which only the wheel, and what builds need, is installed."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    install = ("-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt")
    _succeeds(_run(python, *install, f"{built.wheel}[build]"))
    yield python
    shutil.rmtree(environment)  # over 2 GB


@pytest.mark.slow
def test_the_demo_is_built_by_the_wheel_in_a_clean_environment(clean, tmp_path):
    """`python -m build`'s wheel, installed with what builds need, builds the demo outside the checkout."""
    _succeeds(_run(clean, "-m", "pip", "check"))
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    _succeeds(_run(clean.parent / "edgeprune", "build", "--target", "rpi4", cwd=folder))
    report = json.loads((folder / "runs" / "demo-rpi4" / "report.json").read_text())
    assert report["edgeprune_version"] == __version__
    assert (folder / "runs" / "demo-rpi4" / "demo.tflite").stat().st_size > 0


def _run(*command, cwd=None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(part) for part in command]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=1800)


def _pip(*arguments) -> subprocess.CompletedProcess[str]:
    return _run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def _succeeds(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr


def _imported(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def _normal(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
