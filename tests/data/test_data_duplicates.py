"""Samples that are in two splits are counted and named, for files, arrays and rows."""

import csv
import shutil

import numpy as np
import pytest

from edgeprune.data import InputSpec, load_data
from edgeprune.recipe.config import DataConfig


def test_image_files_in_two_splits(split_folder):
    """Two test images are copies of training images, under other names and in another class; others of the same size in
    bytes are not."""
    shutil.copy(split_folder / "train" / "cat" / "03.png", split_folder / "test" / "cat" / "copy.png")
    shutil.copy(split_folder / "train" / "dog" / "23.png", split_folder / "test" / "cat" / "other.png")
    data = load_data(str(split_folder), DataConfig(), InputSpec(((8, 8, 3),)))
    copies = [note for note in data.notes if "test samples" in note]
    counts = sorted(int(note.split()[0]) for note in copies)
    assert sum(counts) == 2  # one of the originals may be held out for validation
    assert all("of 12 test samples have the same inputs as a" in note for note in copies)
    assert "copy.png" in "".join(copies)
    assert "03.png" in "".join(copies)


def test_no_note_without_duplicates(split_folder):
    """PNGs of one colour have equal sizes, and are told apart."""
    assert load_data(str(split_folder), DataConfig(), InputSpec(((8, 8, 3),))).notes == ()


@pytest.mark.parametrize("inputs", [1, 2])
def test_arrays_in_two_splits(tmp_path, inputs):
    """Inputs count, labels do not; of several inputs all must be equal."""
    rng = np.random.default_rng(0)
    parts = {
        name: [rng.normal(size=(count, 3)) for _ in range(inputs)]
        for name, count in (("train", 30), ("val", 5), ("test", 9))
    }
    for one, other in zip(parts["test"], parts["train"], strict=True):
        one[4], one[7] = other[11], other[0]
    parts["test"][-1][7] += inputs - 1
    parts["val"][0][2] = parts["train"][0][5]
    names = ["x"] if inputs == 1 else ["a", "b"]
    x = {f"{n}_{split}": array for split, arrays in parts.items() for n, array in zip(names, arrays, strict=True)}
    y = {f"y_{split}": np.arange(len(arrays[0])) % 2 for split, arrays in parts.items()}
    np.savez(tmp_path / "d.npz", **x, **y)
    spec = InputSpec(((3,),) * inputs, () if inputs == 1 else ("a", "b"))
    notes = load_data(str(tmp_path / "d.npz"), DataConfig(), spec).notes
    if inputs == 2:
        (note,) = notes
        assert note.startswith(
            "1 of 9 test samples have the same inputs as a train sample, such as test sample 4 and train"
        )
        return
    first, second = notes
    assert first.startswith(
        "2 of 9 test samples have the same inputs as a train sample, such as test sample 4 and train"
    )
    assert second.startswith(
        "1 of 5 validation samples have the same inputs as a train sample, such as validation sample 2"
    )


def test_rows_of_tables_in_two_splits(tmp_path):
    """The lines are named; columns that are no inputs do not count."""
    for name, rows in {
        "train": [(i, i % 2, i) for i in range(40)],
        "val": [(90, 0, 1), (91, 1, 2)],
        "test": [(50, 0, 1), (7, 5, 2)],
    }.items():
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("a", "id", "y"), *rows])
    config = DataConfig(table={"target": "y", "ignore": ("id",)})
    (note,) = load_data(str(tmp_path), config, InputSpec(((1,),))).notes
    assert note.startswith(
        "1 of 2 test samples have the same inputs as a train sample, such as line 3 of test.csv and line 9 of"
    )
