"""What an executor of trials keeps between them."""

import gc
import weakref

import pytest

from edgeprune.searching import trials


@pytest.fixture
def unfrozen():
    yield
    gc.unfreeze()


def test_models_of_trials_are_let_go_and_modules_are_not_looked_through_again(unfrozen):
    """Models that refer to themselves go with their trial; what imports left behind is set aside after the first."""
    import tf_keras

    def of_a_trial():
        model = tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(2,))])
        model.itself = [model]
        return weakref.ref(model)

    before = gc.get_freeze_count()
    for _ in range(3):
        reference = of_a_trial()
        trials._forget()
        assert reference() is None
        assert gc.get_freeze_count() > before
        assert len(gc.get_objects()) < trials._MANY_OBJECTS
