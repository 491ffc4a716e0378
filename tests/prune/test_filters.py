"""Filter pruning in one call: budgets, what is returned, and the errors."""

import numpy as np
import pytest

from edgeprune.errors import DataError, RecipeError
from edgeprune.models.count import count
from edgeprune.models.keras3_file import import_keras3
from edgeprune.prune import filters
from edgeprune.prune.filters import channel_groups, mask_filters, prune_filters


@pytest.fixture
def model(L, randomize):
    import tf_keras

    i = L.image()
    x = L.Conv2D(12, 3, activation="relu", name="b")(L.Conv2D(8, 3, padding="same", name="a")(i))
    return randomize(tf_keras.Model(i, L.head(x)))


def test_what_was_removed_is_returned(model):
    """``removed`` names channels within groups; masking them gives the oracle that the model was compared with."""
    import tensorflow as tf

    found = prune_filters(model, 0.25, allocation="uniform")
    assert {name: len(numbers) for name, numbers in found.removed.items()} == {"a": 2, "b": 3}
    assert [found.model.get_layer(name).filters for name in "ab"] == [6, 9]
    kernel = np.delete(model.get_layer("a").kernel.numpy(), found.removed["a"], axis=-1)
    np.testing.assert_array_equal(found.model.get_layer("a").kernel.numpy(), kernel)
    x = tf.random.stateless_normal((2, 4, 4, 3), [0, 0])
    np.testing.assert_allclose(mask_filters(model, found.removed)(x), found.model(x), rtol=1e-4, atol=1e-5)
    assert found.difference < 1e-4


def test_groups_are_listed(model):
    """The groups of a model, with sizes and members, are there without pruning it."""
    assert [(group.name, group.size, group.frozen) for group in channel_groups(model)] == [
        ("a", 8, None),
        ("b", 12, None),
        ("head", 3, "output of the model"),
    ]


def test_verification_can_be_left_out(model):
    """Without ``verify`` no oracle is built, and there is no difference to report."""
    assert prune_filters(model, 0.5, verify=False).difference is None


@pytest.mark.parametrize(
    "budget",
    [{}, {"rate": 0.0}, {"rate": 1.0}, {"rate": 0.5, "max_macs": 0.5}, {"max_params": -0.1}, {"rate": "0.5"}],
    ids=str,
)
def test_wrong_budgets(model, budget):
    """No budget, several, or one outside (0, 1) is an error that says so."""
    with pytest.raises(RecipeError, match="The pruning budget is"):
        prune_filters(model, **budget)


def test_unknown_allocation(model):
    """An unknown allocation is an error that lists the known ones."""
    with pytest.raises(RecipeError, match=r"no allocation 'fair'(.|\n)*uniform, global"):
        prune_filters(model, 0.5, allocation="fair")


def test_unknown_criterion(model):
    """An unknown criterion is an error that lists the known ones."""
    with pytest.raises(RecipeError, match=r"no criterion 'l3'(.|\n)*l1, l2"):
        prune_filters(model, 0.5, criterion="l3")


@pytest.mark.parametrize("criterion", [name for name, c in filters.CRITERIA.items() if c.needs_data])
def test_criteria_that_need_data_say_so(model, criterion):
    """Without data, a criterion that looks at it is an error."""
    with pytest.raises(DataError, match="looks at data"):
        prune_filters(model, 0.5, criterion=criterion)


def test_keras_3_models_are_translated(keras3_model):
    """A model of Keras 3 is taken everywhere, and what comes out is a tf_keras model."""
    import tf_keras

    assert count(keras3_model).params == 3 * 8 + 8 + 8 * 2 + 2
    assert [group.name for group in channel_groups(keras3_model)] == ["hidden", "head"]
    found = prune_filters(keras3_model, 0.5)
    assert isinstance(found.model, tf_keras.Model)
    assert isinstance(mask_filters(keras3_model, found.removed), tf_keras.Model)


@pytest.fixture
def keras3_model():
    keras = import_keras3()
    i = keras.Input((3,))
    return keras.Model(i, keras.layers.Dense(2, name="head")(keras.layers.Dense(8, name="hidden")(i)))
