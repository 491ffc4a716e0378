"""Rules for layers of one's own: the example in the documentation, whose layers a rule speaks for, and mistakes."""

import re
from pathlib import Path

import pytest

import edgeprune
from edgeprune.context import Trust
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.channels.rules import registry

DOCS = Path(__file__).parents[4] / "docs"


@pytest.fixture(autouse=True)
def own_rules(monkeypatch):
    """No rules of earlier tests, and none left behind."""
    monkeypatch.setattr(registry, "OWN_RULES", {})
    return registry.OWN_RULES


@pytest.fixture(scope="module")
def example():
    """The code in the documentation: layers, their rules, and a model that is pruned."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "pruning.md").read_text("utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "register_rule(" in block]
    return code


def behind_stem(layer):
    import tf_keras

    layers = tf_keras.layers
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="stem")(inputs)
    return tf_keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(layer(x))))


def frozen(model):
    """Why the channels of the layer "stem" stay; None: they can go."""
    return next(group for group in edgeprune.channel_groups(model) if group.name == "stem").frozen


def test_the_example_of_the_documentation_runs(example):
    """Layers defined where the program runs are pruned by their rules, and what is left equals the oracle."""
    scope = {"__name__": "__main__"}
    exec(example, scope)
    result = scope["result"]
    removed = sum(map(len, result.removed.values()))
    assert removed == 7  # a quarter of 16 + 12
    sizes = {layer.name: layer for layer in result.model.layers}
    assert sizes["mix"].channels == 12 - len(result.removed.get("mix", ()))
    assert result.difference < 1e-4
    before, after = (analyse(model).totals for model in (scope["model"], result.model))
    assert after["macs"] < before["macs"]


def test_a_rule_in_a_file_of_layers_holds(example, tmp_path):
    """What --custom-objects names may bring the rules of its layers along."""
    file = tmp_path / "layers.py"
    file.write_text(example.split("inputs = tf_keras.Input")[0])
    trust = Trust.of(True, file)
    assert frozen(behind_stem(trust.custom_objects["Gain"]())) is None


def test_without_a_rule_the_channels_stay():
    """A layer that edgeprune does not know freezes what reaches it, and the reason names its class."""
    import tf_keras

    class Doubled(tf_keras.layers.Layer):
        def call(self, x):
            return 2 * x

    assert "Doubled" in frozen(behind_stem(Doubled()))


def test_a_rule_speaks_for_its_very_name_only():
    """A subclass of a layer with a rule may compute anything: it needs a rule of its own."""
    import tf_keras

    class Doubled(tf_keras.layers.Layer):
        def call(self, x):
            return 2 * x

    class Squared(Doubled):
        def call(self, x):
            return x * x

    edgeprune.register_rule("Doubled")(lambda call: call.inputs[0])
    assert frozen(behind_stem(Doubled())) is None
    assert "Squared" in frozen(behind_stem(Squared()))


def test_a_layer_named_as_one_of_keras_leaves_that_one_alone():
    """A rule for an own class called Conv2D holds for it, and not for tf_keras.layers.Conv2D."""
    import tf_keras

    class Conv2D(tf_keras.layers.Layer):
        def call(self, x):
            return 2 * x

    edgeprune.register_rule("Conv2D")(lambda call: call.inputs[0])
    assert frozen(behind_stem(Conv2D())) is None
    (group, other) = edgeprune.channel_groups(behind_stem(tf_keras.layers.Conv2D(5, 1, name="second")))[:2]
    assert (group.size, other.size) == (6, 5)


def test_a_layer_of_keras_without_a_rule_can_be_given_one():
    """tf_keras has layers that edgeprune has no rule for; a registered rule speaks for them."""
    import tf_keras

    assert "RandomFlip" in frozen(behind_stem(tf_keras.layers.RandomFlip()))
    edgeprune.register_rule("RandomFlip")(lambda call: call.inputs[0])
    assert frozen(behind_stem(tf_keras.layers.RandomFlip())) is None


def test_the_later_rule_of_a_name_holds(own_rules):
    """A name that is registered twice, as by a notebook's cell that runs twice, gets the later rule."""
    first, second = (lambda call: call.inputs[0]), (lambda call: call.inputs[0])
    assert edgeprune.register_rule("Mine", "Yours")(first) is first
    edgeprune.register_rule("Mine")(second)
    assert own_rules == {"Mine": second, "Yours": first}


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: edgeprune.register_rule(lambda call: call.inputs[0]), "register_rule was given <function"),
        (lambda: edgeprune.register_rule(), "was given nothing"),
        (lambda: edgeprune.register_rule("Mine")("not a function"), "The rule for Mine is 'not a function'"),
    ],
)
def test_what_is_no_rule_is_refused(use, words, own_rules):
    """Names that are none, and rules that cannot be called, are usage errors that say what was given."""
    with pytest.raises(edgeprune.UsageError, match=words):
        use()
    assert not own_rules


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda call: None, r"sizes \[None\]"),
        (lambda call: call.inputs[0][1:], r"sizes \[\(None, 6\)\]"),
        (lambda call: (None, None, call.produce(5)), r"sizes \[\(None, None, 5\)\]"),
        (lambda call: [call.inputs[0], call.inputs[0]], r"shapes \[\(6, 6, 6\)\]"),
    ],
)
def test_a_rule_that_does_not_fit_the_layer_is_an_error(rule, words):
    """Too few axes, axes of another size, or outputs that the layer does not have: the error shows both sides."""
    import tf_keras

    class Doubled(tf_keras.layers.Layer):
        def call(self, x):
            return 2 * x

    edgeprune.register_rule("Doubled")(rule)
    with pytest.raises(edgeprune.ModelError, match=words) as error:
        frozen(behind_stem(Doubled(name="twice")))
    assert "Doubled" in str(error.value)
    assert "'twice'" in str(error.value)
