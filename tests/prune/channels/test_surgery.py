"""The pruned model is the old one without some channels: everything else stays."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.errors import ModelError, VerificationError
from edgeprune.prune.channels import surgery
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.filters import prune_filters


@pytest.fixture
def model(L, randomize):
    import tf_keras

    image, extra = tf_keras.Input((4, 4, 3), name="image"), tf_keras.Input((5,), name="extra")
    x = L.Normalization(name="scale")(image)
    x = L.Conv2D(8, 3, padding="same", kernel_regularizer="l2", kernel_constraint="max_norm", name="stem")(x)
    x = L.BatchNormalization(name="norm", momentum=0.7)(x)
    y = L.Dense(8, bias_regularizer="l1", name="vector", trainable=False)(extra)
    x = L.Dropout(0.3, name="drop")(L.Add(name="sum")([x, L.Reshape((1, 1, 8), name="fold")(y)]))
    small = L.Conv2D(2, 1, name="small")(x)
    outputs = {"image": small, "label": L.Dense(3, name="label")(L.GlobalAveragePooling2D(name="pool")(x))}
    return randomize(tf_keras.Model({"b": image, "a": extra}, outputs, name="net"))


@pytest.fixture
def pruned(model, random_keep):
    graph = analyse(model)
    return surgery.remove(graph, random_keep(graph))


def test_the_model_given_is_not_changed(model, random_keep):
    """Weights, configs and layers of the model given are the same bits before and after."""
    weights, config = [w.numpy() for w in model.weights], str(model.get_config())
    graph = analyse(model)
    surgery.remove(graph, random_keep(graph))
    surgery.mask(graph, random_keep(graph))
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(weights, model.weights, strict=True))
    assert str(model.get_config()) == config


def test_everything_but_sizes_stays(model, pruned):
    """Configs differ in numbers of channels only: names, regularizers, constraints, momenta, rates are kept."""
    for old, new in zip(model.layers, pruned.layers, strict=True):
        assert type(new) is type(old)
        before, after = old.get_config(), new.get_config()
        sizes = {key for key in before if str(before[key]) != str(after[key])}
        assert sizes <= {"filters", "units", "target_shape"}
        assert [w.name for w in new.weights] == [w.name for w in old.weights]
    assert pruned.get_layer("stem").filters < 8
    assert pruned.name == model.name


def test_trainable_flags_stay(model, random_keep):
    """Frozen layers stay frozen, and a frozen model stays frozen with its layers' own flags."""
    graph = analyse(model)
    new = surgery.remove(graph, random_keep(graph))
    assert [layer.trainable for layer in new.layers] == [layer.trainable for layer in model.layers]
    model.trainable = False
    model.get_layer("stem").trainable = True
    new = surgery.remove(graph, random_keep(graph))
    assert not new.trainable
    assert [layer._trainable for layer in new.layers] == [layer._trainable for layer in model.layers]
    assert [w.name for w in new.weights] == [w.name for w in model.weights]


def test_signature_stays(model, pruned):
    """Inputs and outputs keep names, order, structure, shapes and dtypes."""
    assert list(pruned.input) == list(model.input) == ["b", "a"]
    assert list(pruned.output) == list(model.output)
    assert pruned.output_names == model.output_names
    for old, new in zip(model.inputs + model.outputs, pruned.inputs + pruned.outputs, strict=True):
        assert (old.name, old.shape, old.dtype) == (new.name, new.shape, new.dtype)


def test_keeping_everything_is_a_copy(model):
    """Nothing removed: the new model computes the same numbers, bit for bit, also with Normalization's statistics."""
    graph = analyse(model)
    new = surgery.remove(graph, np.ones(len(graph.units), bool))
    inputs = surgery.random_inputs(model, 0)
    for key, value in model(inputs).items():
        np.testing.assert_array_equal(value.numpy(), new(inputs)[key].numpy())
    assert not {id(w) for w in new.weights} & {id(w) for w in model.weights}


def test_pruned_model_trains_saves_and_converts(pruned, train_step, tflite_outputs, tmp_path):
    """The new model is an ordinary one: a training step, .keras there and back, and a .tflite that agrees."""
    import tf_keras

    pruned.save(tmp_path / "pruned.keras")
    loaded = tf_keras.models.load_model(tmp_path / "pruned.keras")
    inputs = surgery.random_inputs(pruned, 0)
    expected = {key: value.numpy() for key, value in pruned(inputs).items()}
    for key, value in loaded(inputs).items():
        np.testing.assert_allclose(value.numpy(), expected[key], rtol=1e-5, atol=1e-6)
    found = tflite_outputs(pruned, [inputs[key] for key in ("a", "b")])
    for value, array in zip([expected[key] for key in sorted(expected)], found, strict=True):
        np.testing.assert_allclose(array, value[:1], rtol=1e-4, atol=1e-5)
    train_step(pruned)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_dtype_policies_stay(L, check, policy):
    """Layers keep their policy, and the oracle holds in every number format."""
    import tf_keras

    i = L.image()
    x = L.Conv2D(8, 3, dtype=policy, name="stem")(i)
    x = L.Dense(6, dtype=policy, name="a")(L.Flatten(dtype=policy)(x))
    model = tf_keras.Model(i, L.Dense(3, dtype="float32", name="head")(x))
    if policy == "mixed_bfloat16":
        graph = analyse(model)
        keep = np.ones(len(graph.units), bool)
        keep[graph.groups[0].units[:3]] = False
        pruned = surgery.remove(graph, keep)
        surgery.verify(pruned, surgery.mask(graph, keep))
    else:
        pruned = check(model).pruned
    assert [layer.dtype_policy.name for layer in pruned.layers] == [layer.dtype_policy.name for layer in model.layers]


def test_verify_finds_a_wrong_weight(model, pruned):
    """One weight changed by a hundredth of its scale is an error that says how large the difference is."""
    graph = analyse(model)
    masked = surgery.mask(graph, np.ones(len(graph.units), bool))
    same = surgery.remove(graph, np.ones(len(graph.units), bool))
    assert surgery.verify(same, masked) <= 1e-6
    kernel = same.get_layer("label").kernel
    kernel.assign(kernel.numpy() + 0.01)
    with pytest.raises(VerificationError, match="differs from the masked original by"):
        surgery.verify(same, masked)


def test_verify_finds_a_number_that_is_none(model):
    """An output that is not a number in one of the models only is an error; comparisons with NaN do not hide it."""
    graph = analyse(model)
    everything = np.ones(len(graph.units), bool)
    broken = surgery.remove(graph, everything)
    broken.get_layer("label").bias.assign([np.nan, 0, 0])
    with pytest.raises(VerificationError, match="by inf"):
        surgery.verify(broken, surgery.mask(graph, everything))


def test_fixed_batch_size_and_small_vocabulary(L, check):
    """Models of one batch size are verified with it, and embeddings get words that they know."""
    import tf_keras

    words = tf_keras.Input((4,), batch_size=1, dtype="int32")
    x = L.LSTM(4, stateful=True, unroll=True, name="memory")(L.Embedding(3, 5, name="words")(words))
    found = check(tf_keras.Model(words, L.Dense(2, name="head")(x)))
    assert {group.name for group in found.graph.groups if not group.frozen} == {"words", "memory/units"}


def test_words_in_floats_are_looked_up(L, check):
    """A model that looks up what its float input holds, as Sequential models with an Embedding do, is verified."""
    import tf_keras

    words = [L.Embedding(20, 12, input_length=6, name="words"), L.LSTM(6, unroll=True, name="memory")]
    model = tf_keras.Sequential([*words, L.Dense(2, name="head")])
    check(tf_keras.Model(model.input, model.output))


def test_losses_inside_the_model_are_refused(L):
    """A model with a loss as a layer (add_loss) is an error that names the layers."""
    import tensorflow as tf
    import tf_keras

    i = tf_keras.Input((5,))
    x = L.Dense(8)(i)
    model = tf_keras.Model(i, L.Dense(2)(x), name="net")
    model.add_loss(tf.reduce_mean(tf.square(x)))
    graph = analyse(model)
    for prune in (lambda: surgery.remove(graph, np.ones(len(graph.units), bool)), lambda: prune_filters(model, 0.5)):
        with pytest.raises(ModelError, match=r"'net' computes losses or metrics inside .*add_loss"):
            prune()


def test_loss_and_metrics_stay(L):
    """A compiled model is compiled with the same loss, metrics and kind of optimizer afterwards, and trains."""
    import tf_keras

    i = tf_keras.Input((5,))
    model = tf_keras.Model(i, L.Dense(2)(L.Dense(8)(i)))
    model.compile(tf_keras.optimizers.SGD(0.125), "mse", metrics=["mae"])
    graph = analyse(model)
    pruned = surgery.remove(graph, np.ones(len(graph.units), bool))
    assert (pruned.loss, float(pruned.optimizer.learning_rate)) == ("mse", 0.125)
    assert set(pruned.train_on_batch(np.ones((2, 5)), np.ones((2, 2)), return_dict=True)) == {"loss", "mae"}


@pytest.mark.parametrize("policy", representatives(["mixed_float16", "float16", "float64"], "mixed_float16"))
def test_sums_without_weights_in_other_formats(L, check, policy):
    """Where nothing but a sum consumes channels, the oracle zeroes them in the format that they come in."""
    import tensorflow as tf
    import tf_keras

    inputs = L.Input((5, 3))
    a, b = (L.Dense(6, dtype=policy, name=name)(inputs) for name in "ab")
    product = tf.matmul(a, b, transpose_b=True)
    checked = check(tf_keras.Model(inputs, L.Dense(3, dtype="float32", name="head")(product)), count_macs=False)
    assert checked.pruned.get_layer("a").units < 6


def test_initial_values_of_the_old_size_are_forgotten(L, check):
    """Initializers may hold arrays of the old size, such as embeddings that were trained elsewhere."""
    import tf_keras

    words = tf_keras.Input((4,), dtype="int32")
    known = tf_keras.initializers.Constant(np.ones((9, 6), np.float32))
    x = L.Embedding(9, 6, embeddings_initializer=known, name="words")(words)
    bias = tf_keras.initializers.Constant(np.arange(8.0, dtype=np.float32))
    x = L.Dense(8, bias_initializer=bias, kernel_initializer="ones", name="dense")(L.Flatten()(x))
    checked = check(tf_keras.Model(words, L.Dense(3, name="head")(x)))
    assert checked.pruned.get_layer("dense").units < 8
    assert type(checked.pruned.get_layer("dense").kernel_initializer).__name__ == "Ones"


def test_a_tensor_of_unknown_rank_is_refused(L):
    """An operation that drops whatever axes have size 1 is named, with what to write instead."""
    import tensorflow as tf
    import tf_keras

    inputs = L.Input((1, 4))
    model = tf_keras.Model(inputs, tf.squeeze(L.Dense(6)(inputs)))
    with pytest.raises(ModelError, match=r"squeeze(.|\n)*axis=1"):
        analyse(model)
