"""Recurrent layers and wrappers: hidden units are channels, and removing them is exact."""

import pytest
from matrix import representatives

from edgeprune.prune.channels.analyse import analyse

CASES = {}


def case(**groups):
    """Enter a model with its expected groups (see the fixture ``check_case``)."""

    def enter(build):
        CASES[build.__name__] = (build, groups)
        return build

    return enter


RECURRENT = {
    "SimpleRNN": {},
    "LSTM": {},
    "LSTM without bias": {"use_bias": False},
    "LSTM backwards": {"go_backwards": True},
    "GRU": {},
    "GRU with one bias": {"reset_after": False},
}


@pytest.mark.parametrize("name", representatives(RECURRENT, "LSTM backwards", "GRU with one bias"))
def test_stacked(check_case, name):
    """Units of both layers can go; the first one's are read by the second."""

    def build(L):
        layer = getattr(L, name.split()[0])
        i = L.Input((4, 3))
        x = layer(6, return_sequences=True, unroll=True, name="first", **RECURRENT[name])(i)
        return i, L.Dense(3, name="head")(layer(5, unroll=True, name="second", **RECURRENT[name])(x))

    check_case(build, {"first/units": (6, "first second"), "second/units": (5, "head second")})


@pytest.mark.parametrize("mode", representatives(["concat", "sum", "mul", "ave", None], "mul"))
def test_bidirectional(check_case, mode):
    """Both directions lose the same units, however they are merged."""

    def build(L):
        i = L.Input((4, 3))
        x = L.Dense(4, name="before")(i)
        x = L.Bidirectional(L.LSTM(6, return_sequences=True, unroll=True), merge_mode=mode, name="both")(x)
        x = x if mode else L.Concatenate()(x)
        return i, L.Dense(3, name="head")(L.GlobalMaxPooling1D()(x))

    groups = {"before": (4, "before both"), "both/units": (6, "both head")}
    found = check_case(build, groups)
    kernel = next(m for m in found.group("both/units").members if m.layer == "head")
    assert kernel.index.tolist() == list(range(6)) * (1 if mode in ("sum", "mul", "ave") else 2)


@case(**{"both/units": (6, "both head")})
def bidirectional_with_its_own_backward_layer(L):
    i = L.Input((4, 3))
    both = L.Bidirectional(L.GRU(6, unroll=True), backward_layer=L.LSTM(6, go_backwards=True, unroll=True), name="both")
    return i, L.Dense(3, name="head")(both(i))


@case(before="this form of Bidirectional ('both') has no channel rule")
def bidirectional_with_states(L):
    i = L.Input((4, 3))
    x, *_ = L.Bidirectional(L.GRU(6, return_state=True, unroll=True), name="both")(L.Dense(4, name="before")(i))
    return i, L.Dense(3, name="head")(x)


@case(**{"encode/units": (6, "decode encode head")})
def states_passed_on(L):
    i, j = L.Input((4, 3)), L.Input((5, 2))
    _, h, c = L.LSTM(6, return_state=True, unroll=True, name="encode")(i)
    x = L.LSTM(6, return_sequences=True, unroll=True, name="decode")(j, initial_state=[h, c])
    return [i, j], L.Dense(3, name="head")(x)


@case(**{"memory/units": "the initial state of 'memory' cannot be removed"})
def state_from_the_input(L):
    i, state = L.Input((4, 3)), L.Input((6,))
    return [i, state], L.Dense(3, name="head")(L.GRU(6, name="memory")(i, initial_state=state))


@case(**{"memory/units": (6, "head memory"), "words": (4, "memory words")})
def masked_words(L):
    i = L.Input((5,), dtype="int32")
    x = L.Embedding(7, 4, mask_zero=True, name="words")(i)
    return i, L.Dense(3, name="head")(L.LSTM(6, name="memory")(x))


@case(**{"memory/units": (6, "head memory")})
def explicit_mask(L):
    i, mask = L.Input((5, 2)), L.Input((5,), dtype="bool")
    return [i, mask], L.Dense(3, name="head")(L.LSTM(6, unroll=True, name="memory")(i, mask=mask))


@case(a="time steps of 'memory' cannot be removed", **{"memory/units": (6, "head memory")})
def channels_as_time(L):
    i = L.Input((5, 2))
    x = L.Permute((2, 1))(L.Dense(4, name="a")(i))
    return i, L.Dense(3, name="head")(L.SimpleRNN(6, name="memory")(x))


@case(**{"memory/units": "softmax normalises over these channels (layer 'memory')"})
def recurrent_softmax(L):
    i = L.Input((4, 3))
    return i, L.Dense(3, name="head")(L.SimpleRNN(6, activation="softmax", name="memory")(i))


@case(**{"memory/units": (6, "head memory")})
def shared_recurrent_layer(L):
    i, j, memory = L.Input((4, 3)), L.Input((5, 3)), L.LSTM(6, unroll=True, name="memory")
    return [i, j], L.Dense(3, name="head")(L.Subtract()([memory(i), memory(j)]))


@case(before="no channel rule for RNN (layer 'cell')")
def other_cells_freeze(L):
    i = L.Input((4, 3))
    x = L.RNN(L.StackedRNNCells([L.LSTMCell(4), L.GRUCell(5)]), name="cell")(L.Dense(4, name="before")(i))
    return i, L.Dense(3, name="head")(x)


@case(conv=(6, "conv depth norm point"), point=(5, "head point"))
def time_distributed(L):
    i = L.Input((2, 4, 4, 3))
    x = L.TimeDistributed(L.Conv2D(6, 3, padding="same", activation="relu"), name="conv")(i)
    x = L.TimeDistributed(L.BatchNormalization(), name="norm")(x)
    x = L.TimeDistributed(L.DepthwiseConv2D(3), name="depth")(x)
    x = L.TimeDistributed(L.Dense(5), name="point")(x)
    x = L.TimeDistributed(L.UnitNormalization())(x)
    x = L.TimeDistributed(L.GlobalAveragePooling2D())(x)
    return i, L.Dense(3, name="head")(L.Flatten()(x))


@case(conv=(6, "conv head"))
def time_distributed_flatten(L):
    i = L.Input((3, 2, 2, 2))
    x = L.TimeDistributed(L.Conv2D(6, 1), name="conv")(i)
    x = L.TimeDistributed(L.Flatten())(x)
    x = L.TimeDistributed(L.Reshape((2, 12)))(x)
    return i, L.Dense(3, name="head")(L.TimeDistributed(L.Reshape((24,)))(x))


@case(before="this form of TimeDistributed ('nested') has no channel rule")
def time_distributed_model(L):
    import tf_keras

    inner = L.Input((3,))
    model = tf_keras.Model(inner, L.Dense(4)(inner))
    i = L.Input((5, 2))
    x = L.TimeDistributed(model, name="nested")(L.Dense(3, name="before")(i))
    return i, L.Dense(3, name="head")(x)


def test_weights_shared_through_a_wrapper(L, randomize):
    """A layer that is called by itself and inside a wrapper keeps its channels, and what reaches it says why."""
    import tf_keras

    shared = L.Dense(8, name="shared")
    i, j = L.Input((5, 3)), L.Input((3,))
    x = L.TimeDistributed(shared, name="steps")(L.Dense(6, name="before")(i))
    outputs = L.Dense(2, name="head")(L.Flatten()(x)), shared(L.Dense(6, name="beside")(j))
    graph = analyse(randomize(tf_keras.Model([i, j], outputs)))
    assert {group.name: group.frozen for group in graph.groups} == {
        "before": "'steps' shares weights with 'shared'",
        "beside": "'shared' shares weights with 'steps'",
        "head": "output of the model",
    }


# Of every kind of layer the case that has the most to it, and each reason that freezes.
ALWAYS = (
    "bidirectional_with_states",
    "states_passed_on",
    "state_from_the_input",
    "explicit_mask",
    "channels_as_time",
    "other_cells_freeze",
    "time_distributed",
    "time_distributed_model",
)


@pytest.mark.parametrize("name", representatives(CASES, *ALWAYS))
def test_rule(check_case, name):
    """The layer ties exactly the channels that it should, and the pruned model equals both oracles."""
    check_case(*CASES[name])
