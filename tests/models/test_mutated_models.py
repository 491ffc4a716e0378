"""A sample of the fuzzer of model files; ``benchmarks/mutated_models.py`` runs any number."""

import importlib
from pathlib import Path

import pytest
from fuzzing import as_found

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("count", [8, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_files_are_models_or_one_message(count, tmp_path, monkeypatch, capsys):
    """Cut, overwritten and hostile files of all formats: a model or one message each, and nothing else happens."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    fuzzer = importlib.import_module("mutated_models")
    with as_found():  # layers are named, and files mutated, as in a fresh process; what loads them is one
        failures = fuzzer.run(tmp_path, count, seed=7, keep=None)
    assert failures == 0, capsys.readouterr().out[-3000:]
