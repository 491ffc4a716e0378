"""Attention layers and products: heads, head sizes and channels can go, and removing them is exact."""

import itertools

import pytest
from matrix import representatives

CASES = {}


def case(**groups):
    """Enter a model with its expected groups (see the fixture ``check_case``)."""

    def enter(build):
        CASES[build.__name__] = (build, groups)
        return build

    return enter


def attention(heads=4, keys=3, values=3, name="mha"):
    """The groups inside an attention layer."""
    return {f"{name}/heads": (heads, name), f"{name}/key_dim": (keys, name), f"{name}/value_dim": (values, name)}


@case(a=(8, "a mha"), mha=(8, "head mha"), **attention())
def self_attention(L):
    i = L.Input((5, 2))
    x = L.Dense(8, name="a")(i)
    return i, L.Dense(3, name="head")(L.MultiHeadAttention(4, 3, name="mha")(x, x))


@case(q=(6, "k q"), v=(4, "head v"))
def attention_of_three(L):
    i, j = L.Input((5, 2)), L.Input((7, 3))
    q, v, k = L.Dense(6, name="q")(i), L.Dense(4, name="v")(j), L.Dense(6, name="k")(j)
    return [i, j], L.Dense(3, name="head")(L.Attention(use_scale=True, name="attend")([q, v, k]))


@case(a=(6, "a head"))
def attention_to_itself(L):
    i = L.Input((5, 2))
    x = L.Dense(6, name="a")(i)
    y, scores = L.Attention(name="attend")([x, x], return_attention_scores=True)
    return i, L.Dense(3, name="head")(L.Add()([y, x])) + L.Dense(3, use_bias=False, name="map")(scores)


@pytest.mark.parametrize(
    ("use_scale", "keys"), representatives(itertools.product([True, False], repeat=2), (True, False), (False, True))
)
def test_additive_attention(check_case, use_scale, keys):
    """Bahdanau's attention ties queries and keys; its scale follows them, and is as long as the values' channels."""

    def build(L):
        i, j = L.Input((5, 2)), L.Input((7, 3))
        q, k = L.Dense(6, name="q")(i), L.Dense(6, name="k")(j)
        inputs = [q, L.Dense(6, name="v")(j), k] if keys else [q, k]
        return [i, j], L.Dense(3, name="head")(L.AdditiveAttention(use_scale, name="attend")(inputs))

    groups = {
        (True, True): {"q": (6, "attend head k q v")},
        (True, False): {"q": (6, "attend head k q")},
        (False, True): {"q": (6, "k q"), "v": (6, "head v")},
        (False, False): {"q": (6, "head k q")},
    }
    check_case(build, groups[use_scale, keys])


@case(q="this form of Attention", v="this form of Attention")
def attention_by_concatenation(L):
    i = L.Input((5, 2))
    q, v = L.Dense(6, name="q")(i), L.Dense(6, name="v")(i)
    return i, L.Dense(3, name="head")(L.Attention(score_mode="concat", name="attend")([q, v]))


@case(q="'attend' compares them")
def attention_to_an_input(L):
    i, j = L.Input((5, 2)), L.Input((7, 6))
    return [i, j], L.Dense(3, name="head")(L.Attention(name="attend")([L.Dense(6, name="q")(i), j]))


@case(a=(8, "a head mha"), **attention())
def self_attention_with_residual(L):
    i = L.Input((5, 2))
    x = L.Dense(8, name="a")(i)
    return i, L.Dense(3, name="head")(L.Add()([x, L.MultiHeadAttention(4, 3, use_bias=False, name="mha")(x, x)]))


@case(q=(6, "mha q"), v=(7, "mha v"), k=(5, "k mha"), mha=(4, "head mha"), **attention(2, 3, 5))
def cross_attention_with_keys(L):
    i, j = L.Input((5, 2)), L.Input((4, 2))
    q, v, k = L.Dense(6, name="q")(i), L.Dense(7, name="v")(j), L.Dense(5, name="k")(j)
    mha = L.MultiHeadAttention(2, 3, value_dim=5, output_shape=4, name="mha")
    return [i, j], L.Dense(3, name="head")(mha(q, v, key=k))


@case(q=(6, "mha q"), v=(7, "mha v"), k=(5, "k mha"), mha=(6, "head mha"), **attention(2, 3, 3))
def attention_with_named_arguments(L):
    i, j = L.Input((5, 2)), L.Input((4, 2))
    q, v, k = L.Dense(6, name="q")(i), L.Dense(7, name="v")(j), L.Dense(5, name="k")(j)
    return [i, j], L.Dense(3, name="head")(L.MultiHeadAttention(2, 3, name="mha")(query=q, value=v, key=k))


@case(a=(8, "a mha"), mha=(8, "head mha"), **attention())
def attention_with_a_mask(L):
    i, mask = L.Input((5, 2)), L.Input((5, 5), dtype="bool")
    x = L.Dense(8, name="a")(i)
    return [i, mask], L.Dense(3, name="head")(L.MultiHeadAttention(4, 3, name="mha")(x, x, attention_mask=mask))


@case(a=(8, "a mha"), mha=(8, "head mha"), **{**attention(), "mha/heads": (4, "head mha")})
def attention_scores(L):
    i = L.Input((5, 2))
    x = L.Dense(8, name="a")(i)
    y, scores = L.MultiHeadAttention(4, 3, name="mha")(x, x, return_attention_scores=True)
    scores = L.Permute((2, 3, 1))(scores)
    return i, L.Dense(3, name="head")(L.Concatenate()([L.Reshape((5, 1, 8))(y), L.AveragePooling2D((1, 5))(scores)]))


@case(mha=(2, "head mha"), **{**attention(), "mha/heads": "output of the model"})
def attention_scores_as_an_output(L):
    i = L.Input((5, 2))
    y, scores = L.MultiHeadAttention(4, 3, name="mha")(i, i, return_attention_scores=True)
    return i, [L.Dense(3, name="head")(y), scores]


@case(stem=(8, "mha stem"), mha=(8, "head mha"), **attention())
def attention_over_one_axis_of_an_image(L):
    i = L.image()
    x = L.stem(i)
    return i, L.head(L.MultiHeadAttention(4, 3, attention_axes=(2,), name="mha")(x, x))


@case(a=(8, "a mha"), mha=(8, "head mha"), **attention())
def shared_attention(L):
    i, mha = L.Input((5, 2)), L.MultiHeadAttention(4, 3, name="mha")
    x = L.Dense(8, name="a")(i)
    return i, L.Dense(3, name="head")(L.Add()([mha(x, x), mha(L.ReLU()(x), x)]))


@case(a="positions attended to by 'mha' cannot be removed", mha=(5, "head mha"), **attention())
def channels_as_positions(L):
    i = L.Input((5, 2))
    x = L.Permute((2, 1))(L.Dense(4, name="a")(i))
    return i, L.Dense(3, name="head")(L.MultiHeadAttention(4, 3, name="mha")(x, x))


@case(a=(6, "a b"))
def dot_of_vectors(L):
    i, j = L.Input((3,)), L.Input((4,))
    return [i, j], L.Dense(3, name="head")(L.Dot(1)([L.Dense(6, name="a")(i), L.Dense(6, name="b")(j)]))


@case(a=(6, "a b"))
def dot_of_sequences(L):
    i = L.Input((5, 3))
    a, b = L.Dense(6, name="a")(i), L.Dense(6, name="b", activation="relu")(i)
    return i, L.Dense(3, name="head")(L.Dot((2, 2))([a, b]))


@case(a="positions are pooled", b=(6, "b head"))
def dot_over_positions(L):
    i = L.Input((5, 3))
    a, b = L.Dense(4, name="a")(i), L.Dense(6, name="b", activation="relu")(i)
    return i, L.Dense(3, name="head")(L.GlobalAveragePooling1D()(L.Dot((1, 1))([a, b])))


@case(a="'dot' multiplies them with channels that cannot be removed", b="'dot'")
def normalized_dot(L):
    i, j = L.Input((3,)), L.Input((4,))
    x = L.Dot(1, normalize=True, name="dot")([L.Dense(6, name="a")(i), L.Dense(6, name="b")(j)])
    return [i, j], L.Dense(3, name="head")(x)


# Of every kind of layer the case that has the most to it, and each reason that freezes.
ALWAYS = (
    "attention_of_three",
    "attention_to_an_input",
    "cross_attention_with_keys",
    "attention_scores_as_an_output",
    "channels_as_positions",
    "dot_over_positions",
    "normalized_dot",
)


@pytest.mark.parametrize("name", representatives(CASES, *ALWAYS))
def test_rule(check_case, name):
    """The layer ties exactly the channels that it should, and the pruned model equals both oracles."""
    check_case(*CASES[name])
