"""Patterns over layer names mean the same in every section of a recipe."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import RecipeError
from edgeprune.recipe import patterns
from edgeprune.recipe.config import ClusterConfig, WeightsConfig

NAMES = st.lists(st.text("abAB_[]*1", min_size=1, max_size=5), max_size=6, unique=True)
PATTERNS = st.lists(st.text("abAB_[]*?1", min_size=1, max_size=4), max_size=3)


@given(NAMES, PATTERNS, PATTERNS)
def test_exclude_wins_and_the_order_of_patterns_says_nothing(names, include, exclude):
    """What is chosen stands in the order of the names, each once, whatever the order of the patterns is."""
    found = patterns.matching(names, include, exclude)
    wanted = [n for n in names if any(fnmatch.fnmatchcase(n, p) for p in include)]
    assert found == [n for n in wanted if not any(fnmatch.fnmatchcase(n, p) for p in exclude)]
    assert found == patterns.matching(names, include[::-1], exclude[::-1])


@given(NAMES)
def test_exactly_matches_one_name(names):
    """A name with brackets and stars in it, made a pattern, matches itself and nothing else."""
    for name in names:
        assert patterns.matching(names, [patterns.exactly(name)]) == [name]


def test_capital_letters_count():
    """On every system, as they do in Keras."""
    assert patterns.matching(["Conv", "conv"], ["c*"]) == ["conv"]


def test_of_several_names_one_is_enough():
    """A group of layers matches by its own name and by that of any of its layers."""
    assert patterns.matches(["group", "conv", "add"], ["x", "con?"])
    assert not patterns.matches(["group", "conv", "add"], ["on*"])
    assert not patterns.matches([], ["*"])


def test_the_first_pattern_with_a_value_counts():
    """The others that match are not looked at; a value of zero is a value."""
    table = {"conv_1": 0.0, "conv*": 0.5, "*": 0.9}
    assert [patterns.value_of([name], table) for name in ("conv_1", "conv_2", "dense")] == [0.0, 0.5, 0.9]
    assert patterns.value_of(["dense"], {"conv*": 0.5}) is None


def test_a_name_with_a_capital_letter_too_many_is_found_near():
    """The message names what comes nearest, not what comes first."""
    with pytest.raises(RecipeError, match=r"'Head' in \[weights\] exclude matches no layer(.|\n)*as head\."):
        patterns.check_patterns("weights", {"include": ["*"], "exclude": ["Head"]}, ["a", "b", "head"])


@pytest.fixture(scope="module")
def model():
    """Three layers, one of them named head."""
    tf_keras = pytest.importorskip("tf_keras")
    layers = tf_keras.layers
    image = layers.Input((8, 8, 3), name="image")
    x = layers.GlobalAveragePooling2D(name="pool")(layers.Conv2D(8, 3, name="body")(image))
    return tf_keras.Model(image, layers.Dense(8, name="logits")(layers.Dense(40, name="head")(x)))


def of_weights(model, key, pattern):
    from edgeprune.prune.weights.kernels import selected

    return selected(model, WeightsConfig(**{key: (pattern,)}))


def of_cluster(model, key, pattern):
    from edgeprune.quantize.cluster import select

    return select(model, ClusterConfig(**{key: (pattern,)}))


def of_filters(model, key, pattern):
    from edgeprune.prune.choice.budget import Constraints
    from edgeprune.prune.filters import prune_filters

    constraints = Constraints(**{key: (pattern,) if key == "protect" else {pattern: 0.5}})
    return prune_filters(model, rate=0.25, constraints=constraints)


def of_layers(model, key, pattern):
    from edgeprune.prune.channels.blocks import BlockEvidence, prune_blocks

    return prune_blocks(model, remove=1, evidence=BlockEvidence(), **{key: (pattern,)})


SECTIONS = [
    ("weights", "include", of_weights), ("weights", "exclude", of_weights),
    ("cluster", "include", of_cluster), ("cluster", "exclude", of_cluster),
    ("filters", "protect", of_filters), ("filters", "layer_rates", of_filters),
    ("layers", "protect", of_layers),
]  # fmt: skip


@pytest.mark.parametrize(("section", "key", "use"), SECTIONS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_mistyped_name_is_the_same_error_in_every_section(model, section, key, use):
    """It names the pattern, its place and the layer that was meant."""
    with pytest.raises(RecipeError) as caught:
        use(model, key, "haed")
    assert f"The pattern 'haed' in [{section}] {key} matches no layer" in caught.value.what
    assert caught.value.expected == "a name or a shell pattern over names, as head."
    assert "edgeprune inspect" in caught.value.fix
