"""What channels cost on a board, from the command line and in Python."""

import json

import numpy as np
import pytest
import tf_keras
from commands import run
from matrix import representatives

from edgeprune.errors import RecipeError
from edgeprune.target import load_target
from edgeprune.tradeoff import channel_costs

layers = tf_keras.layers


@pytest.fixture(scope="module")
def model():
    inputs = layers.Input((32, 32, 3), name="image")
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="wide")(inputs)
    x = layers.Conv2D(16, 3, strides=4, activation="relu", name="late")(x)
    return tf_keras.Model(inputs, layers.Dense(4, name="out")(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("mode", representatives(["int8", "float32"], "int8"))
def test_channels_that_cost_more_save_more(model, mode):
    """A channel of a large feature map saves more than one of a small map; less latency leaves less of the weights."""
    found = channel_costs(model, load_target("rpi4"), mode)
    assert found["groups"]["wide"] > found["groups"]["late"] > 0
    assert len(found["budgets"]) > 3
    for row in found["budgets"]:
        assert row["latency"] <= row["asked"]
        assert row["latency_ms"] == pytest.approx(row["latency"] * found["latency_ms"])
    losses = [row["lost"] for row in found["budgets"]]
    assert losses == sorted(losses)


def test_a_model_that_was_never_trained_is_shown():
    """Biases and statistics are equal then, and the converter keeps equal ones once: no reason to fail."""
    inputs = layers.Input((16, 16, 3))
    x = layers.Conv2D(16, 3, padding="same", name="stem")(inputs)
    for name in "ab":
        y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same", use_bias=False)(x)))
        x = layers.Add(name=name)([x, layers.Conv2D(16, 3, padding="same")(y)])
    model = tf_keras.Model(inputs, layers.Dense(4, name="out")(layers.GlobalAveragePooling2D()(x)))
    before = model.get_weights()
    assert channel_costs(model, load_target("rpi4"), "int8")["budgets"]
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", representatives(["ethos-u55-128", "ethos-u65-256"], "ethos-u55-128"))
def test_a_compiler_gives_milliseconds_too(model, name):
    """Where nothing but the compiler knows the speed: it is asked; of float files it knows none, which is said."""
    pytest.importorskip("ethosu.vela", reason="needs ethos-u-vela")
    found = channel_costs(model, load_target(name), "int8")
    assert found["groups"]["wide"] > 0
    assert found["budgets"]
    assert all(row["latency"] <= row["asked"] for row in found["budgets"])
    with pytest.raises(RecipeError, match="stay on the processor"):
        channel_costs(model, load_target(name), "float32")


def test_a_target_without_coefficients_is_refused(model):
    """There is nothing to estimate by, and the message says what gives it."""
    target = load_target("rpi4").model_copy(update={"latency": None})
    with pytest.raises(RecipeError, match="no coefficients to estimate a latency"):
        channel_costs(model, target, "int8")


def test_inspect_shows_them(model, tmp_path, monkeypatch):
    """As a column and a table, or in the document; without a target they are not there."""
    monkeypatch.setenv("COLUMNS", "180")
    model.save(tmp_path / "model.keras")

    def printed(*options):
        done = run("inspect", "model.keras", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = printed("--target", "rpi4")
    assert "saves µs" in shown
    assert "[filters] max_latency" in shown
    assert "on_target" not in json.loads(printed("--json"))
    assert json.loads(printed("--json", "--target", "rpi4", "--mode", "float32"))["on_target"]["mode"] == "float32"


def test_where_a_file_does_not_follow_its_channels_the_rest_is_shown(tmp_path):
    """Attention with a head less becomes other operators: groups are listed, and a note says what is not known."""
    inputs = layers.Input((6, 8))
    x = layers.MultiHeadAttention(2, 6, name="attention")(inputs, inputs)
    model = tf_keras.Model(inputs, layers.Dense(3, name="out")(layers.GlobalAveragePooling1D()(x)))
    model.save(tmp_path / "model.keras")
    ended = run("inspect", tmp_path / "model.keras", "--target", "rpi4", "--json")
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert "What a channel costs on rpi4 is not known" in document["note"]
    assert document.get("on_target") is None
    assert any(group["name"] == "attention/heads" for group in document["groups"])
