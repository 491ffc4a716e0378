"""Recurrent layers in formats that are calibrated: which become loops, and the same model without."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from edgeprune.checking.model import check
from edgeprune.convert.converter import convert
from edgeprune.convert.recurrent import MAX_STEPS, loops, preflight, without_loops
from edgeprune.errors import ConversionError
from edgeprune.models.verify import check_same
from edgeprune.profiling.profile import profile
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.runtime.interpreter import find_runtime
from edgeprune.runtime.session import Session
from edgeprune.tflite.flatbuffer import parse

L = tf_keras.layers
STEPS, FEATURES = 4, 6
FLOAT = QuantizationPlan("float32", "float", False)


def images(x):
    return L.Reshape([STEPS, 2, 3, 1])(x)


def lines(x):
    return L.Reshape([STEPS, 6, 1])(x)


def blocks(x):
    return L.Reshape([STEPS, 1, 2, 3, 1])(x)


def masked(x):
    return L.Masking()(x)


# What becomes a loop → the same step by step: equal to the model, and without WHILE in the file.
LOOPS = {
    "gru": lambda x: L.GRU(3)(x),
    "gru of Keras 1": lambda x: L.GRU(3, reset_after=False, return_sequences=True)(x),
    "rnn": lambda x: L.SimpleRNN(3, go_backwards=True)(x),
    "lstm of Keras 2.2": lambda x: L.LSTM(3, recurrent_activation="hard_sigmoid")(x),
    "no bias": lambda x: L.LSTM(3, use_bias=False)(x),
    "relu": lambda x: L.LSTM(3, activation="relu", return_sequences=True)(x),
    "masked": lambda x: L.LSTM(3)(masked(x)),
    "states": lambda x: L.LSTM(3, return_state=True)(x)[1],
    "initial": lambda x: L.GRU(3)(x, initial_state=L.Dense(3)(x[:, 0])),
    "both ways": lambda x: L.Bidirectional(L.GRU(3, return_sequences=True), merge_mode="sum")(masked(x)),
    "unlike ways": lambda x: L.Bidirectional(L.GRU(3), backward_layer=L.SimpleRNN(3, go_backwards=True))(x),
    "states both ways": lambda x: L.Bidirectional(L.LSTM(3, return_state=True))(x)[1],
    "cells": lambda x: L.RNN([L.LSTMCell(3), L.GRUCell(2)], return_sequences=True)(x),
    "of every step": lambda x: L.TimeDistributed(L.GRU(3))(lines(x)),
    "convolutional 1": lambda x: L.ConvLSTM1D(2, 3, padding="same")(lines(x)),
    "convolutional 2": lambda x: L.ConvLSTM2D(2, 2, return_sequences=True, go_backwards=True)(images(x)),
    "convolutional 3": lambda x: L.ConvLSTM3D(1, (1, 2, 2))(blocks(x)),
    "convolutional states": lambda x: L.ConvLSTM2D(2, 2, return_state=True)(images(x))[2],
    "convolutional both ways": lambda x: L.Bidirectional(L.ConvLSTM2D(2, 2))(images(x)),
}
# What is one operator for the converter, or operators in a row.
FUSED = {
    "lstm": lambda x: L.LSTM(3)(x),
    "backwards": lambda x: L.LSTM(3, go_backwards=True, return_sequences=True)(x),
    "both ways": lambda x: L.Bidirectional(L.LSTM(3))(x),
    "states unread": lambda x: L.LSTM(3, return_state=True)(x)[0],
    "initial": lambda x: L.LSTM(3)(x, initial_state=[L.Dense(3)(x[:, 0]), L.Dense(3)(x[:, 1])]),
    "written out": lambda x: L.GRU(3, unroll=True)(x),
    "of every step": lambda x: L.TimeDistributed(L.LSTM(3))(lines(x)),
}


def model_of(*makes, steps=STEPS, batch=None):
    tf_keras.utils.set_random_seed(3)
    x = tf_keras.Input([steps, FEATURES], batch_size=batch)
    return tf_keras.Model(x, [make(x) for make in makes])


def ops(content):
    return {operator.name for graph in parse(content).subgraphs for operator in graph.operators}


def signals(count=16):
    return np.random.default_rng(0).normal(0, 1, [count, STEPS, FEATURES]).astype("float32")


# Every class of layer, every number of states and directions, a mask, and what is called for every step.
QUICK = (
    "gru of Keras 1", "lstm of Keras 2.2", "masked", "initial", "both ways", "states both ways", "cells",
    "of every step", "convolutional 1", "convolutional states",
)  # fmt: skip


@pytest.fixture(scope="module", params=[QUICK, pytest.param(tuple(LOOPS), marks=pytest.mark.slow)], ids=["some", "all"])
def looping(request):
    return model_of(*(LOOPS[name] for name in request.param))


@pytest.fixture(scope="module")
def fused():
    return model_of(*FUSED.values())


def test_what_loops_is_known_beforehand(looping, fused):
    """All kinds of recurrent layers that the converter does not fuse are found, and none that it does."""
    found = loops(looping)
    assert len(found) == len(looping.outputs)
    assert {loop.steps for loop in found} == {STEPS, FEATURES}  # FEATURES: where every step is a sequence itself
    assert not any(loop.obstacle for loop in found)
    assert loops(fused) == []


@pytest.mark.slow
@pytest.mark.parametrize("make", [*LOOPS.values(), *FUSED.values()], ids=[*LOOPS, *(f"fused {name}" for name in FUSED)])
def test_the_converter_agrees_about_what_loops(make):
    """A model has a WHILE in its float32 file exactly where a loop is found."""
    model = model_of(make)
    assert ("WHILE" in ops(convert(model, FLOAT))) == bool(loops(model))


def test_written_out_layers_compute_the_same(looping):
    """Every kind of loop written out has no loop left, and gives the model's own outputs under the same layer names."""
    written = without_loops(looping)
    assert loops(written) == []
    assert [layer.name for layer in written.layers] == [layer.name for layer in looping.layers]
    check_same(looping, written, "it is tested")


def test_a_model_without_loops_is_left_alone(fused):
    """Fused layers stay as they are: it is the same object."""
    assert without_loops(fused) is fused


@pytest.mark.parametrize("mode", ["int8", pytest.param("int16x8", marks=pytest.mark.slow)])
def test_loops_are_calibrated(mode, tmp_path):
    """Files with integers of several kinds of loops hold no WHILE, and answer nearly as the model does."""
    model = model_of(*(LOOPS[name] for name in ("gru", "relu", "convolutional 1")))
    x = signals()
    content = convert(model, QuantizationPlan(mode, "float", True), lambda: ([row[None]] for row in x))
    assert "WHILE" not in ops(content)
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    session = Session(path, model.input_names, model.output_names, runtime=find_runtime())
    for given, wanted in zip(session.run([x]), model(x), strict=True):
        error = np.asarray(given) - np.asarray(wanted)
        assert np.abs(error).mean() < 0.05 * np.abs(wanted).max()


def test_a_fused_lstm_begins_every_sample_anew(tmp_path):
    """The outputs of a file do not depend on the samples that it ran before."""
    model = model_of(FUSED["lstm"])
    path = tmp_path / "model.tflite"
    path.write_bytes(convert(model, FLOAT))
    x = signals()
    (given,) = Session(path, model.input_names, model.output_names, runtime=find_runtime()).run([x])
    np.testing.assert_allclose(given, model(x), atol=1e-5)


def looping_lambda(x):
    return L.Lambda(lambda values: tf.scan(lambda total, value: total + value, values), name="sums")(x)


class Own(L.Layer):
    """A layer of somebody's own, which Keras calls in a loop for every step where the batch is fixed."""

    def call(self, inputs):
        return tf.scan(lambda total, value: total + value, inputs)


REFUSED = {
    "open": (lambda x: L.GRU(3, name="reader")(x), None, None, ["'reader' (GRU)", "open"]),
    "long": (lambda x: L.GRU(3, name="reader")(x), MAX_STEPS + 1, None, ["'reader' (GRU)", "257 steps"]),
    "code": (looping_lambda, STEPS, None, ["'sums' (Lambda)", "its code loops"]),
    "wrapped code": (
        lambda x: L.TimeDistributed(Own(name="own"), name="each")(x),
        STEPS,
        None,
        ["'each' (TimeDistributed)", "its code loops"],
    ),
}


@pytest.mark.parametrize(("make", "steps", "batch", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_written_out_is_refused_by_layer(make, steps, batch, words):
    """The error names the layer, the reason and the format that works; that format is then not refused."""
    model = model_of(make, steps=steps, batch=batch)
    with pytest.raises(ConversionError) as caught:
        preflight(model, ["float32", "int8"])
    for word in [*words, 'modes = ["dynamic"]']:
        assert word in str(caught.value)
    with pytest.raises(ConversionError):
        convert(model, QuantizationPlan("int8", "float", True), lambda: iter(()))
    assert preflight(model, ["float32", "dynamic"]) is None


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("wrap", [lambda x: x, L.Bidirectional], ids=["plain", "bidirectional"])
def test_a_state_that_outlasts_a_sample_is_refused_in_every_format(wrap, batch):
    """Samples are independent: a build and a conversion name the layer, and what to do instead."""
    layer = wrap(L.GRU(3, stateful=True, name="keeper"))
    model = model_of(layer, batch=batch)
    for refuse in (lambda: preflight(model, ["dynamic"]), lambda: convert(model, FLOAT)):
        with pytest.raises(ConversionError, match=rf"'{layer.name}' .*stateful=True") as caught:
            refuse()
        assert "stateful=False" in str(caught.value)


def test_a_check_finds_such_a_state_in_every_format(tmp_path):
    """What a build refuses is one finding, before any format is tried."""
    model_of(lambda x: L.LSTM(3, stateful=True, name="keeper")(x), batch=1).save(tmp_path / "model.keras")
    (found,) = check(tmp_path / "model.keras", "rpi4")
    assert (found.severity, found.formats) == ("error", ("float32", "int8"))
    assert "'keeper'" in found.what
    assert "stateful=False" in found.fix


def test_the_advice_works(tmp_path):
    """What loops over an open length converts with dynamic range; a profile then says why it has no estimate."""
    path = tmp_path / "model.tflite"
    path.write_bytes(convert(model_of(LOOPS["gru"], steps=None), QuantizationPlan("dynamic", "float", False)))
    assert "WHILE" in ops(path.read_bytes())
    latency = profile(path, "rpi4").latency
    assert latency.estimated is None
    assert "loop" in latency.unknown


def test_a_build_says_what_is_written_out():
    """One line names the layers with their steps; formats without calibration need nothing."""
    model = model_of(LOOPS["gru"])
    assert "gru" in preflight(model, ["int8"])
    assert f"{STEPS} steps" in preflight(model, ["mixed"])
    assert preflight(model, ["dynamic", "float16"]) is None
