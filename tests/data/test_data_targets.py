"""Facts about targets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import edgeprune.data.targets
from edgeprune.data import InputSpec, load_data
from edgeprune.data.targets import TargetFacts, target_facts
from edgeprune.errors import DataError
from edgeprune.recipe.config import DataConfig

SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5)
ARRAYS = st.one_of(
    hnp.arrays(np.int16, SHAPES, elements=st.integers(-3, 3)),
    hnp.arrays(np.float32, SHAPES, elements=st.sampled_from([0, 0.5, 1, 2.25, 3])),
    hnp.arrays(np.bool_, SHAPES),
    hnp.arrays(np.int64, st.integers(1, 8)).map(lambda y: np.eye(4, dtype=np.float32)[y % 4]),
)


@given(ARRAYS, st.data())
def test_facts_of_an_array_are_those_of_its_parts_merged(array, data):
    """Wherever an array is cut, the facts of both parts merged are the facts of the array, in either order."""
    both = np.concatenate([array, array[::-1]])
    cut = data.draw(st.integers(1, len(both) - 1))
    first, second = target_facts(both[:cut]), target_facts(both[cut:])
    assert first.merged(second) == second.merged(first)
    assert first.merged(second) == target_facts(both)


@given(hnp.arrays(np.float64, SHAPES, elements=st.sampled_from([-1, 0, 0.25, 0.5, 0.75, 1, 2])))
def test_facts_are_what_their_names_say(array):
    """Against the definitions, one by one."""
    facts = target_facts(array)
    assert (facts.shape, facts.dtype) == (array.shape[1:], "float64")
    assert (facts.low, facts.high) == (array.min(), array.max())
    assert facts.whole == all(value.is_integer() for value in array.flat)
    assert facts.values == (frozenset(map(int, array.flat)) if facts.whole else None)
    rows = [row.tolist() for row in array.reshape(-1, array.shape[-1])] if array.ndim > 1 else [[]]
    kinds = {
        "one_hot": all(sorted(row) == [0] * (len(row) - 1) + [1] for row in rows),
        "multi_hot": all(set(row) <= {0, 1} for row in rows),
        "distribution": all(min(row, default=-1) >= 0 and sum(row) == 1 for row in rows),
    }
    expected = next((kind for kind, holds in kinds.items() if holds), None) if len(rows[0]) > 1 else None
    assert facts.rows == expected


def test_facts_do_not_depend_on_the_size_of_chunks(monkeypatch):
    """Looked at sample by sample, an array has the same facts as at once; many values are not kept."""
    arrays = [np.arange(9000).reshape(3000, 3), np.arange(50.0), np.eye(5)[np.arange(99) % 5]]
    at_once = [target_facts(array) for array in arrays]
    monkeypatch.setattr(edgeprune.data.targets, "CHUNK_BYTES", 1)
    assert [target_facts(array) for array in arrays] == at_once
    assert at_once[0].values is None
    assert at_once[0].whole


def test_samples_of_other_sizes_leave_the_axis_open():
    """Axes on which parts differ are None; another number of axes is an error."""
    facts = target_facts(np.zeros((2, 5, 3)))
    assert facts.merged(target_facts(np.zeros((1, 4, 3)))).shape == (None, 3)
    with pytest.raises(ValueError, match="zip"):
        facts.merged(target_facts(np.zeros((1, 3))))


def _sources(x, y):
    import tensorflow as tf

    return {"arrays": (x, y), "dataset": tf.data.Dataset.from_tensor_slices((x, y)).batch(7)}


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_data_has_the_facts_of_all_its_targets(kind):
    """Each kind of source gives the same facts, in the structure of y, over train, validation and test."""
    x = np.zeros((300, 2), np.float32)
    y = {"digit": np.arange(300) % 10, "place": (np.linspace(0, 1, 300), np.eye(3)[np.arange(300) % 3])}
    data = load_data(_sources(x, y)[kind], DataConfig(), InputSpec(((2,),)))
    assert data.targets == {
        "digit": target_facts(y["digit"]),
        "place": (target_facts(y["place"][0]), target_facts(y["place"][1])),
    }
    assert data.train.store.targets == data.targets
    assert data.train.labels is not None


def test_facts_of_folders_are_of_their_classes(flat_folder):
    """Class numbers 0, 1, 2, as int64."""
    data = load_data(flat_folder, DataConfig(), InputSpec(((8, 8, 3),)))
    assert data.targets == TargetFacts((), "int64", 0.0, 2.0, True, frozenset({0, 1, 2}), None)


def test_splits_are_merged_and_must_have_one_form():
    """Facts cover the values of test only; labels by name in one split alone are an error that shows both forms."""
    x, y = np.zeros((9, 2)), np.arange(9)
    parts = {"train": (x, y), "validation": (x, y + 5), "test": (x, y + 50)}
    assert load_data(parts, DataConfig(), InputSpec(((2,),))).targets.high == 58
    with pytest.raises(DataError, match=r"train has an array \[samples\], test has {a: an array \[samples\]}"):
        load_data({"train": (x, y), "test": (x, {"a": y})}, DataConfig(), InputSpec(((2,),)))
