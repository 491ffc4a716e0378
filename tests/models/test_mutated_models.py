"""A sample of the fuzzer of model files; ``benchmarks/mutated_models.py`` runs any number."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "mutated_models.py"


@pytest.mark.parametrize("count", [15, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_files_are_models_or_one_message(count, tmp_path):
    """Cut, overwritten and hostile files of all formats: a model or one message each, and nothing else happens."""
    command = [sys.executable, str(SCRIPT), "--count", str(count), "--seed", "7"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
