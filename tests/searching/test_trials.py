"""What an executor of trials keeps between them."""

import gc
import weakref

import pytest

from edgeprune.plan import make_plan
from edgeprune.recipe.load import parse_recipe
from edgeprune.searching import trials
from edgeprune.target import load_target


class OfATrial:
    """A model that refers to itself, which only a search for garbage finds."""

    def __init__(self):
        import tf_keras

        self.model = tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(2,))])
        self.model.itself = [self.model]


def forgotten():
    """Whether a model is gone once its trial has ended."""
    reference = weakref.ref(OfATrial().model)
    trials._forget()
    return reference() is None


@pytest.fixture
def process_of_trials():
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.collect()
    gc.freeze()  # as tests/conftest.py leaves it


@pytest.fixture
def process_of_a_user():
    gc.unfreeze()
    yield
    gc.collect()
    gc.freeze()


def test_models_of_trials_are_let_go_and_modules_are_not_looked_through_again(process_of_trials):
    """What imports left behind is set aside after the first trial that left much."""
    modules = [[] for _ in range(trials._MANY_OBJECTS + 1)]
    assert any(one is modules for one in gc.get_objects())
    assert forgotten()
    assert not any(one is modules for one in gc.get_objects())
    assert forgotten()
    assert len(gc.get_objects()) < trials._MANY_OBJECTS


def test_nothing_is_set_aside_in_the_process_of_a_user(process_of_a_user):
    """A notebook's garbage stays garbage."""
    assert gc.get_freeze_count() == 0
    assert forgotten()
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize(
    ("modes", "built"),
    [
        (["float32"], "float32"),
        (["int8-weights"], "int8-weights"),
        (["float32", "int4-weights"], "int4-weights"),
        (["mixed"], "mixed"),
        (["mixed", "int8"], "int8"),
        (["float32", "float16"], "float16"),
    ],
)
def test_a_trial_is_about_the_file_in_its_own_format(modes, built):
    """And not about float32 where limits know no better."""
    assert trials.built_mode(parse_recipe({"quantize": {"modes": modes}}, "x")) == built


def test_a_trial_of_a_lottery_is_about_the_ticket():
    """The control is there to be compared with, and comes after it."""
    plan = make_plan([parse_recipe({"extends": "lottery"}, "x")], load_target("rpi4"))
    assert plan.variants[-1].control_of
    assert trials._judged(plan).name == plan.variants[-1].control_of
