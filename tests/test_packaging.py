"""The wheel: what is installed outside the checkout is complete."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = {
    "edgeprune/data/digits.npz",
    "edgeprune/recipe/template.toml.txt",
    "edgeprune/recipe/builtin/magnitude-int8.toml",
    "edgeprune/report/report.html",
    "edgeprune/report/report.md",
    "edgeprune/targets/rpi4.toml",
    "edgeprune/calibration/sampling.py",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode and "setuptools" in done.stderr:
        pytest.skip("pip cannot fetch setuptools to build with")
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_module_and_data_file(wheel):
    """Each tracked file of the packages is in it, under the name that it is imported by."""
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "edgeprune", "targets", "calibration"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    files = [name for name in tracked if not (ROOT / name).is_symlink()]
    expected = {name if name.startswith("edgeprune/") else f"edgeprune/{name}" for name in files}
    assert expected - names == set()
    assert names >= DATA


def test_the_installed_wheel_runs_outside_the_checkout(wheel, tmp_path):
    """Without the checkout on the path, and without the test's own packages: targets and recipes are found."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False, system_site_packages=False)
    site = next(environment.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    ours = Path(next(path for path in sys.path if path.endswith("site-packages")))
    (site / "borrowed.pth").write_text(f"{ours}\n")  # dependencies, after the wheel's own files
    command = [environment / "bin" / "python", "-m", "edgeprune", "targets", "list"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "rpi4" in done.stdout
