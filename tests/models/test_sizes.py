"""Inputs of open size: what is said about them, and the models rebuilt for fixed ones."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.errors import ModelError, UsageError
from edgeprune.models.count import count
from edgeprune.models.load import load_model
from edgeprune.models.sizes import Inputs, example, for_a_look, parse, with_sizes


def _models(keras):
    """Open models of several kinds, with a shape that each can take."""
    k = keras.layers
    image = keras.Input((None, None, 3), name="image")
    skip = k.Conv2D(4, 3, padding="same", activation="relu")(image)
    down = k.Conv2D(8, 3, strides=2, padding="same")(skip)
    up = k.Conv2DTranspose(4, 2, strides=2)(down)
    unet = keras.Model(image, k.Conv2D(2, 1)(k.Concatenate()([skip, up])))
    sound = keras.Input((None, 6), name="sound")
    gru = k.Bidirectional(k.GRU(4, return_sequences=True))(sound)
    speech = keras.Model(sound, k.Dense(3)(k.GlobalMaxPooling1D()(gru)))
    words = keras.Sequential([k.Embedding(20, 4, mask_zero=True), k.LSTM(3), k.Dense(2)])
    words.build((None, None))
    table = keras.Input((5,), name="table")
    both = keras.Model([image, table], k.Concatenate()([k.GlobalAveragePooling2D()(skip), k.Dense(3)(table)]))
    fixed_batch = keras.Input((None, 4), 3)
    attention = keras.Model(fixed_batch, k.MultiHeadAttention(2, 3)(fixed_batch, fixed_batch))
    return {
        "unet": (unet, [(8, 12, 3)]),
        "speech": (speech, [(7, 6)]),
        "words": (words, [(9,)]),
        "both": (both, [(6, 4, 3), (5,)]),
        "attention": (attention, [(5, 4)]),
    }


@pytest.fixture(scope="module")
def models(keras):
    return _models(keras)


@pytest.mark.parametrize(
    "name", representatives(["unet", "speech", "words", "both", "attention"], "speech", "words", "both", "attention")
)
def test_a_model_of_fixed_sizes_computes_what_the_open_one_does(models, keras, name):
    """Same outputs, weights and names; every shape is known; it survives saving."""
    model, shapes = models[name]
    model = load_model(model)
    sized = with_sizes(model, shapes)
    assert [tuple(tensor.shape)[1:] for tensor in sized.inputs] == shapes
    assert sized.input_names == model.input_names
    assert sized.count_params() == model.count_params()
    batch = model.inputs[0].shape[0] or 2
    values = [np.random.default_rng(0).integers(0, 9, (batch, *shape)).astype("float32") for shape in shapes]
    values = values if len(values) > 1 else values[0]
    np.testing.assert_allclose(sized(values), model(values), rtol=1e-5, atol=1e-5)
    assert with_sizes(sized, shapes) is sized
    assert count(sized).macs > 0 or name == "words"


def test_sizes_are_given_alone_in_order_or_by_name(models, keras):
    """The only open input needs no name; a dict fills in the inputs that it names, and others stay open."""
    both = Inputs.of(models["both"][0])
    assert both.filled((6, 4, 3)) == both.filled([(6, 4, 3), (5,)]) == both.filled({"image": (6, 4, 3)})
    assert both.filled(None) == both.shapes
    assert load_model(models["both"][0], input_shape={"image": [6, 4, 3]}).inputs[0].shape == (None, 6, 4, 3)
    assert parse(["a=1,2", "b=c=3"]) == {"a": (1, 2), "b=c": (3,)}
    assert parse(["1,2", "3"]) == [(1, 2), (3,)]
    assert parse([]) is None


@pytest.mark.parametrize(
    "given", [(6, 4), (6, 4, 1), (0, 4, 3), {"picture": (6, 4, 3)}, [(6, 4, 3)] * 3, {"table": (6,)}, (6.5, 4, 3)]
)
def test_sizes_that_do_not_fit_are_refused(models, given):
    """Other axes, other fixed sizes, other inputs: one message that lists the inputs as they are."""
    with pytest.raises(UsageError):
        Inputs.of(models["both"][0]).filled(given)


@pytest.mark.parametrize("texts", [["224x224"], ["a=1", "2"], ["a="], [""]])
def test_an_option_that_is_no_shape_is_refused(texts):
    """Sizes are whole numbers with commas, all with a name or none."""
    with pytest.raises(UsageError):
        parse(texts)


@pytest.mark.parametrize("shapes", [[(2, 2, 3)], [(7, 9, 3)]])
def test_sizes_that_a_layer_cannot_take_are_refused(keras, shapes):
    """Too small for a window, or odd where branches meet again: the message names the shape."""
    k = keras.layers
    image = keras.Input((None, None, 3))
    half = k.UpSampling2D()(k.MaxPooling2D(2)(image)) if shapes[0][0] == 7 else k.Conv2D(3, 3)(image)
    model = keras.Model(image, k.Add()([half, image]) if shapes[0][0] == 7 else half)
    with pytest.raises(ModelError, match="cannot take inputs of the shape"):
        with_sizes(model, shapes)


def test_examples_suit_the_kind_of_input():
    """Images, features over time, waveforms and words get examples of their own."""
    assert example((None, None, 3), False) == (224, 224, 3)
    assert example((None, 40), False) == (100, 40)
    assert example((None, 40, 1), False) == (100, 40, 1)
    assert example((None, 1), False) == (16_000, 1)
    assert example((None,), True) == (128,)
    assert example((None, None, None, 1), False) == (16, 112, 112, 1)


def test_counting_asks_for_the_size_with_the_right_example(models):
    """MACs are not known without a size; the message's own example gives them."""
    with pytest.raises(ModelError, match="--input-shape 100,6"):
        count(models["speech"][0])
    macs = [count(models["speech"][0], input_shape=(length, 6)).macs for length in (10, 20, 30)]
    assert macs[2] - macs[1] == macs[1] - macs[0] > 0
    with pytest.raises(ModelError, match="'image=224,224,3'"):
        count(models["both"][0])
    assert "128" in Inputs.of(models["words"][0]).option


def test_a_look_takes_sizes_that_the_model_can_take(keras, models):
    """96 pixels, or as many as the layers need; a model of fixed sizes is taken as it is, without a word."""
    sized, said = for_a_look(models["unet"][0])
    assert sized.inputs[0].shape == (None, 96, 96, 3)
    assert "96x96x3" in said
    image = keras.Input((None, None, 1))
    wide = keras.Model(image, keras.layers.MaxPooling2D(100)(image))
    assert for_a_look(wide)[0].inputs[0].shape == (None, 224, 224, 1)
    assert for_a_look(sized) == (sized, None)
