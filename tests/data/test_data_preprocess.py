"""Preprocessing."""

import numpy as np
import pytest

from edgeprune.data import InputSpec, load_data
from edgeprune.errors import DataError
from edgeprune.recipe.config import DataConfig

SPEC = InputSpec(((8, 8, 3),))


def _rgb(count: int = 40):
    x = np.zeros((count, 8, 8, 3), np.uint8) + np.array([0, 127, 254], np.uint8)
    return x, np.arange(count) % 2


def test_formula_is_the_same_for_every_source(flat_folder, first_batch):
    """x = (pixel * scale - mean) / std, per channel, for arrays and for images."""
    config = DataConfig(scale=1 / 127, mean=(0.0, 1.0, 2.0), std=(1.0, 2.0, 0.5))
    x, _ = first_batch(load_data(_rgb(), config, SPEC).test)
    np.testing.assert_allclose(x[0, 0, 0], [0, 0, 0], atol=1e-6)
    data = load_data(flat_folder, config, SPEC)
    plain = first_batch(load_data(flat_folder, DataConfig(), SPEC).test)[0]
    expected = (plain / 127 - np.array([0, 1, 2])) / np.array([1, 2, 0.5])
    np.testing.assert_allclose(first_batch(data.test)[0], expected, rtol=1e-5)
    assert data.preprocessing["mean"] == [0.0, 1.0, 2.0]


def test_integer_inputs_pass_unchanged(first_batch):
    """A model that takes integers gets integers."""
    spec = InputSpec(((8, 8, 3),), dtypes=("uint8",))
    x, _ = first_batch(load_data(_rgb(), DataConfig(), spec).test)
    assert x.dtype == np.uint8
    assert x[0, 0, 0].tolist() == [0, 127, 254]
    with pytest.raises(DataError, match="takes uint8 input"):
        load_data(_rgb(), DataConfig(scale=0.5), spec)


def test_size_is_taken_from_the_recipe_for_a_model_of_any_size(flat_folder, first_batch):
    """(None, None, 3) with a size in the recipe: images are resized to it."""
    spec = InputSpec(((None, None, 3),))
    assert first_batch(load_data(flat_folder, DataConfig(size=(5, 6)), spec).test)[0].shape == (12, 5, 6, 3)


FOLDER_ERRORS = {
    "size": (DataConfig(size=(9, 9)), SPEC, "takes images of 8 x 8 pixels"),
    "color": (DataConfig(color="grayscale"), SPEC, "takes 3 channels; images are read as grayscale"),
    "four channels": (DataConfig(), InputSpec(((8, 8, 4),)), "takes 4 channels"),
    "two inputs": (DataConfig(), InputSpec(((8, 8, 3), (2,))), "does not fit a model"),
    "vector": (DataConfig(), InputSpec(((64,),)), "does not fit a model"),
    "mean": (DataConfig(mean=(1.0, 2.0)), SPEC, "mean has 2 values; the model's input has 3"),
    "std": (DataConfig(std=(0.0,)), SPEC, "std is zero"),
}


@pytest.mark.parametrize("case", FOLDER_ERRORS)
def test_settings_that_do_not_fit_the_model(flat_folder, case):
    """Each contradiction between recipe and model is a DataError that says which."""
    config, spec, message = FOLDER_ERRORS[case]
    with pytest.raises(DataError, match=message):
        load_data(flat_folder, config, spec)


def test_size_and_color_are_for_images_only():
    """Settings that would have no effect are refused."""
    with pytest.raises(DataError, match="not a folder of images"):
        load_data(_rgb(), DataConfig(size=(8, 9)), SPEC)
