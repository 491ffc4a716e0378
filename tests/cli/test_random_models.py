"""The commands on random models; ``benchmarks/fuzz_models.py`` tries many more."""

import random

import pytest
from fuzzing import do, run, save_truth
from matrix import representatives
from random_models import FORMATS, random_model, save_data, write


def _results(number, folder, commands, endings):
    """What becomes of the commands on the model of this number, in those formats that its Keras writes."""
    made = random_model(number)
    save_truth(folder / "truth.npz", made.inputs, made.outputs, made.traits)
    task = {"target": "rpi4", "data": save_data(made, folder), "samples": str(folder / "truth.npz")}
    paths = [
        path for path in (write(made, folder, ending) for ending in FORMATS[made.kind] if ending in endings) if path
    ]
    chosen = random.Random(number).choice(paths)
    for command in commands:
        for path in paths if command == "inspect" else [chosen]:
            yield command, path.name, made.traits, run(command, path, folder, do, task)


@pytest.mark.parametrize("number", representatives([9, 10, 13], 10))
def test_random_models_are_opened_or_refused(number, tmp_path):
    """Files of a random model are opened as the same model, or refused by a message whose advice helps."""
    for *run_of, result in _results(number, tmp_path, ["inspect"], (".keras", ".h5")):
        assert not result.failed, (run_of, result)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(100, 140))
def test_random_models_are_checked_and_built(number, tmp_path):
    """The commands work on a random model, or refuse it by a message whose advice helps."""
    for *run_of, result in _results(number, tmp_path, ["inspect", "check", "build"], (".keras", ".h5", "")):
        assert not result.failed, (run_of, result)
