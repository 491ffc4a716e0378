"""The hash of a stage's own code changes with the code that it runs, and with no other."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgeprune

ROOT = Path(edgeprune.__file__).parent


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package, and a function that gives the hashes of two stage modules before and now.

    Before: when it was called last; tests change files after that only.
    """
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT, folder / "edgeprune", ignore=shutil.ignore_patterns("__pycache__"))

    def hashes():
        code = (
            "from edgeprune import sources; assert sources.__file__.startswith(%r);"
            "print(*(sources.source_hash(f'edgeprune.stages.{name}') for name in ('conversion', 'layers')))"
        )
        command = [sys.executable, "-c", code % str(folder)]
        environment = {"PYTHONPATH": str(folder), "PATH": ""}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    last = [hashes()]

    def before_and_now():
        last.append(hashes())
        return last[-2:]

    return folder / "edgeprune", before_and_now


@pytest.mark.parametrize(
    ("changed", "whose"),
    [
        pytest.param("stages/conversion.py", {"conversion"}, marks=pytest.mark.slow),
        ("convert/weight_only.py", {"conversion"}),  # imported in functions only
        ("tflite/operator_versions.csv", {"conversion"}),  # a table beside the code that reads it
        ("hardware/vela_compiler.py", {"conversion"}),  # named in a table of plug-ins
        pytest.param("prune/channels/blocks.py", {"layers"}, marks=pytest.mark.slow),
        ("calibration/sampling.py", {"conversion", "layers"}),
        pytest.param("pipeline.py", {"conversion", "layers"}, marks=pytest.mark.slow),
        ("report/sections.py", set()),
        pytest.param("cli/build.py", set(), marks=pytest.mark.slow),
        pytest.param("builder.py", set(), marks=pytest.mark.slow),
    ],
)
def test_a_change_reaches_the_stages_that_run_it(copy, changed, whose):
    """A changed file changes the hash of exactly the stages whose code reaches it."""
    folder, before_and_now = copy
    with (folder / changed).open("a") as file:
        file.write("# changed\n")
    before, after = before_and_now()
    assert {name for name, a, b in zip(("conversion", "layers"), before, after, strict=True) if a != b} == whose


def test_modules_from_elsewhere_have_no_code_of_edgeprune():
    """A stage of somebody else's package is known by its name and its inputs only."""
    from edgeprune.sources import source_hash

    assert source_hash("json") == source_hash("no.such.module")
