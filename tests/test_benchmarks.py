"""The scripts in benchmarks/ keep up with the code. What they measure is never asserted here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "benchmarks").glob("*.py"))
SCRIPTS = [path for path in MODULES if '__name__ == "__main__"' in path.read_text("utf-8")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_what_benchmarks_import_is_there(path):
    """Every name that a script imports from edgeprune exists, in functions and in code for other processes, too."""
    imports = re.findall(r"^\s*(from edgeprune[\w.]* import (?:\([^)]*\)|.+))$", path.read_text("utf-8"), re.MULTILINE)
    for line in imports:
        exec(line, {})


def test_the_table_of_benchmarks_is_complete():
    """The README of the benchmarks has one row for each script."""
    rows = re.findall(r"^\| `(\w+\.py)` \|", (ROOT / "benchmarks" / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == [path.name for path in SCRIPTS]


@pytest.mark.slow
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_answer_help(path, tmp_path):
    """--help imports the script, says what it measures, and measures nothing."""
    command = [sys.executable, str(path), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")
