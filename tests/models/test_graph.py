"""One index over a functional model: who makes and who reads each tensor, and how often a layer is called."""

import pytest

from edgeprune.models.graph import View, activation_name, flat, is_symbolic, ordered_nodes, symbol_of


@pytest.fixture(scope="module")
def L(keras):
    return keras.layers


@pytest.fixture(scope="module")
def siamese(keras, L):
    """Two inputs through one layer; the sum reads one tensor twice, and a tensor inside is an output, too."""
    a, b = L.Input((4,), name="a"), L.Input((4,), name="b")
    shared = L.Dense(4, name="shared")
    left, right = shared(a), shared(L.Rescaling(2.0, name="twice")(b))
    total = L.Add(name="sum")([left, left, right])
    return keras.Model({"a": a, "b": b}, [left, L.Dense(2, name="head")(total)], name="siamese")


def names(nodes):
    return [node.layer.name for node in nodes]


def test_calls_come_after_what_they_read(siamese):
    """Every tensor that a call takes is made by an earlier one, and the keys number the calls of each layer."""
    view = View(siamese)
    place = {id(node): number for number, node in enumerate(view.nodes)}
    for node in view.nodes:
        assert all(place[id(view.maker(tensor))] < place[id(node)] for tensor in node.keras_inputs)
    once = {(name, 0) for name in ("a", "b", "twice", "sum", "head")}
    assert set(view.calls) == once | {("shared", 0), ("shared", 1)}
    assert list(view.calls.values()) == view.nodes == ordered_nodes(siamese)


def test_a_shared_layer_has_several_uses(siamese):
    """The uses of a layer are its calls, in the order of their indices."""
    view = View(siamese)
    shared = siamese.get_layer("shared")
    assert view.uses(shared) == [view.calls["shared", 0], view.calls["shared", 1]]
    assert names(view.uses(siamese.get_layer("head"))) == ["head"]


def test_a_call_that_reads_a_tensor_twice_is_one_reader(siamese):
    """Readers are calls, each once, whatever the number of arguments; an output of the model may have some."""
    view = View(siamese)
    left = siamese.outputs[0]
    assert names(view.readers(left)) == ["sum"]
    assert view.is_end(left)
    assert view.maker(left).layer.name == "shared"
    assert view.readers(siamese.outputs[1]) == []
    assert not view.is_end(view.calls["sum", 0].outputs)


def test_arguments_by_keyword_are_read(keras, L):
    """Tensors among keyword arguments have readers like all others."""
    inputs = L.Input((3, 4), name="x")
    value = L.Dense(4, name="value")(inputs)
    attended = L.MultiHeadAttention(2, 2, name="mha")(inputs, value=value)
    view = View(keras.Model(inputs, attended))
    assert names(view.readers(value)) == ["mha"]


def test_every_tensor_of_an_operation_has_its_maker(keras, L):
    """The parts that a split makes are tensors of one call, each with readers of its own."""
    import tensorflow as tf

    inputs = L.Input((4,), name="x")
    first, second = tf.split(inputs, 2, axis=1)
    view = View(keras.Model(inputs, [L.Dense(2, name="one")(first), L.Dense(2, name="two")(second)]))
    assert view.maker(first) is view.maker(second)
    assert len(flat(view.maker(first).outputs)) == 2
    assert names(view.readers(first)) == ["one"]
    assert names(view.readers(second)) == ["two"]


def test_a_model_within_a_model_is_one_call(keras, L):
    """A nested model is a layer of the outer one, which knows nothing of the calls inside."""
    inner_input = L.Input((4,))
    inner = keras.Model(inner_input, L.Dense(4, name="inside")(inner_input), name="inner")
    inputs = L.Input((4,), name="x")
    view = View(keras.Model(inputs, inner(inner(inputs))))
    assert list(view.calls) == [("x", 0), ("inner", 0), ("inner", 1)]


def test_other_models_of_the_same_layers_are_not_seen(keras, siamese):
    """A layer that another model calls, too, has only the readers and uses of this one."""
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.ReLU()(siamese.get_layer("shared")(inputs)))
    view = View(siamese)
    assert len(view.uses(siamese.get_layer("shared"))) == 2


def test_what_the_outputs_need(keras, L):
    """Needed are the calls on the way to the outputs, and all inputs; a tensor that is replaced needs no maker."""
    inputs = L.Input((4,), name="x")
    stem = L.Dense(4, name="stem")(inputs)
    block = L.Dense(4, name="block")(stem)
    model = keras.Model(inputs, L.Dense(2, name="head")(block))
    view = View(model)
    assert view.needed() == set(map(id, view.nodes))
    left = view.needed({id(block): stem})
    assert names(node for node in view.nodes if id(node) in left) == ["x", "stem", "head"]


def test_symbols_are_those_of_tensorflow_2(keras, L):
    """An operation has the name that users call it by, though ``tf.transpose`` is recorded as TensorFlow 1's."""
    import tensorflow as tf

    inputs = L.Input((4, 3))
    for made, symbol in (
        (tf.transpose(inputs, [0, 2, 1]), "transpose"),
        (inputs + 1.0, "__operators__.add"),
        (inputs[:, 0], "__operators__.getitem"),
        (L.ReLU()(inputs), ""),
    ):
        assert symbol_of(made.node.layer) == symbol
        assert is_symbolic(made)
    assert not is_symbolic(tf.zeros([2]))
    assert not is_symbolic("bij,bjk->bik")


def test_activations_have_names(L):
    """A function has its name and an activation that is a layer that of its class; no activation is a linear one."""
    assert activation_name(L.Dense(2, activation="relu")) == "relu"
    assert activation_name(L.Dense(2)) == "linear"
    assert activation_name(L.Flatten()) == "linear"
    assert activation_name(L.Dense(2, activation=L.ReLU(6.0))) == "ReLU"
