"""Removing blocks: what can be bypassed is found, and a model without a block equals the one with it bypassed."""

import numpy as np
import pytest

from edgeprune.errors import DataError, RecipeError, VerificationError
from edgeprune.models.count import count
from edgeprune.prune.channels import blocks as pruning
from edgeprune.prune.channels.blocks import BlockEvidence, bypass, find_blocks, prune_blocks, verify


def residual_net(L, policy=None):
    """Three residual blocks: an addition layer, the operator, and one with a projection; and a plain convolution."""
    import tf_keras

    def conv(x, filters, name, **more):
        x = L.Conv2D(filters, 3, padding="same", name=name, dtype=policy, **more)(x)
        return L.BatchNormalization(name=f"{name}_bn", dtype=policy)(x)

    i = L.image(size=8)
    x = L.ReLU(name="stem_relu", dtype=policy)(conv(i, 8, "stem"))
    y = L.ReLU(name="a_relu", dtype=policy)(conv(x, 12, "a1"))
    x = L.ReLU(name="after_a", dtype=policy)(L.Add(name="a", dtype=policy)([conv(y, 8, "a2"), x]))
    x = x + conv(x, 8, "b1")
    y = conv(x, 16, "c1", strides=2)
    x = L.Add(name="c", dtype=policy)([y, L.Conv2D(16, 1, strides=2, name="projection", dtype=policy)(x)])
    x = L.ReLU(name="plain_relu", dtype=policy)(conv(x, 16, "plain"))
    x = L.GlobalAveragePooling2D(name="pool", dtype=policy)(x)
    return tf_keras.Model(i, {"label": L.Dense(3, name="label", dtype="float32")(x), "feature": x})


def by_name(blocks):
    return {block.name: block for block in blocks}


@pytest.fixture
def model(L, randomize):
    import tf_keras

    tf_keras.backend.clear_session()
    return randomize(residual_net(L))


def images(count=4):
    return np.random.default_rng(0).normal(size=(count, 8, 8, 3)).astype("float32")


def test_blocks_and_chains_are_found(model):
    """Additions with an identity shortcut, and layers of equal shape; no projection, no branch without its addition."""
    found = by_name(find_blocks(model))
    kinds = {name: block.kind for name, block in found.items()}
    addition = next(layer.name for layer in model.layers if "__operators__" in layer.name)
    assert kinds == {"a": "residual", addition: "residual", "plain": "chain"}
    assert found["a"].layers == ("a1", "a1_bn", "a_relu", "a2", "a2_bn", "a")
    assert found["plain"].layers == ("plain", "plain_bn", "plain_relu")
    assert found["plain"].macs == 4 * 4 * 9 * 16 * 16


def test_every_block_equals_the_bypassed_original(model):
    """One by one, and all at once; MACs are those that were promised, and the original stays."""
    before = [weight.numpy() for weight in model.weights]
    found = find_blocks(model)
    for block in found:
        pruned = bypass(model, [block])
        assert verify(pruned, model, [block]) <= 1e-4
        assert count(model).macs - count(pruned).macs == block.macs
        assert {layer.name for layer in model.layers} - {layer.name for layer in pruned.layers} == set(block.layers)
    assert verify(bypass(model, found), model, found) <= 1e-4
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_the_oracle_is_not_blind(model):
    """The model as it was differs from its bypassed self, and so does one without another block."""
    found = by_name(find_blocks(model))
    with pytest.raises(VerificationError):
        verify(model, model, [found["a"]])
    with pytest.raises(VerificationError):
        verify(bypass(model, [found["plain"]]), model, [found["a"]])


def test_what_stays_keeps_weights_names_and_outputs(model):
    """Layers that stay have their weights; inputs and outputs keep names, order and structure; it can be saved."""
    pruned = bypass(model, [by_name(find_blocks(model))["a"]])
    assert list(pruned.output) == list(model.output)
    assert pruned.output_names == model.output_names
    assert pruned.input_names == model.input_names
    assert not {id(w) for w in pruned.weights} & {id(w) for w in model.weights}
    for layer in pruned.layers:
        for a, b in zip(layer.get_weights(), model.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_dtype_policies_stay(L, randomize):
    """A half-precision model stays one, and the oracle holds within its rounding."""
    model = randomize(residual_net(L, "mixed_float16"))
    block = by_name(find_blocks(model))["a"]
    pruned = bypass(model, [block])
    verify(pruned, model, [block])
    for layer in pruned.layers:
        assert layer.dtype_policy.name == model.get_layer(layer.name).dtype_policy.name


def test_shared_layers_and_side_exits_stay(L, randomize):
    """A layer that is also called elsewhere does not vanish; a branch with a second way out or in is no block."""
    import tf_keras

    i, other = L.Input([6], name="i"), L.Input([6], name="other")
    shared = L.Dense(6, name="shared")
    x = shared(L.Dense(6, name="first")(i))
    x = L.Add(name="entered")([x, L.Dense(6, name="both")(L.Concatenate()([x, other]))])
    inner = L.Dense(6, "relu", name="inner")(x)
    left = L.Add(name="left")([x, L.Dense(6, name="inner2")(inner)])
    model = randomize(tf_keras.Model([i, other], L.Dense(2, name="out")(L.Concatenate()([left, inner, shared(left)]))))
    found = by_name(find_blocks(model))
    assert "entered" not in found
    assert "left" not in found
    assert found["first"].layers == ("first",)
    assert [block.layers for block in find_blocks(model) if block.name == "shared"] == [(), ()]
    for block in find_blocks(model):
        assert verify(bypass(model, [block]), model, [block]) <= 1e-4


def test_a_transformers_attention_can_be_bypassed(L, randomize):
    """Residual attention and feed-forward parts of a text model with masks are blocks of their own."""
    import tf_keras

    words = tf_keras.Input([5], dtype="int32")
    x = L.Embedding(20, 8, mask_zero=True, name="words")(words)
    y = L.LayerNormalization(name="norm")(x)
    x = L.Add(name="attention_add")([x, L.MultiHeadAttention(2, 4, name="attention")(y, y)])
    y = L.Dense(16, "relu", name="up")(L.LayerNormalization(name="norm2")(x))
    x = L.Add(name="feed_add")([x, L.Dense(8, name="down")(y)])
    model = randomize(tf_keras.Model(words, L.Dense(3, name="head")(L.GlobalAveragePooling1D()(x))))
    found = by_name(find_blocks(model))
    assert {"attention_add", "feed_add"} <= set(found)
    for block in found.values():
        assert verify(bypass(model, [block]), model, [block]) <= 1e-4


@pytest.mark.slow
def test_mobilenet_without_all_its_residual_blocks():
    """Ten inverted residual blocks go at once."""
    import tf_keras

    model = tf_keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), alpha=0.35, classes=5)
    residual = [block for block in find_blocks(model) if block.kind == "residual"]
    assert len(residual) == 10
    assert verify(bypass(model, residual), model, residual) <= 1e-4


def test_similarity_is_one_less_the_cosine(model):
    """Of the block's input and output, sample by sample, computed here by hand; a block that does nothing scores 0."""
    import tf_keras

    found = find_blocks(model)
    x = images()
    scores = pruning.similarity(model, found, BlockEvidence(batches=lambda: [(x[:2], None), (x[2:], None)]))
    for block, score in zip(found, scores, strict=True):
        a, b = (v.reshape(4, -1) for v in tf_keras.Model(model.input, [block.entry, block.exit]).predict(x, verbose=0))
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert score == pytest.approx(1 - cosine.mean(), abs=1e-4)
    norm = model.get_layer("a2_bn")
    norm.set_weights([np.zeros(8), np.zeros(8), *norm.get_weights()[2:]])
    scores = pruning.similarity(model, found, BlockEvidence(batches=lambda: [(x, None)]))
    assert dict(zip((block.name for block in found), scores, strict=True))["a"] == pytest.approx(0, abs=1e-5)


def test_sensitivity_removes_what_is_missed_least(model):
    """The block whose bypassing changes the outputs least goes first; here, one that does nothing."""
    norm = model.get_layer("a2_bn")
    norm.set_weights([np.zeros(8), np.zeros(8), *norm.get_weights()[2:]])
    x = images()

    def worsening(full, short):
        return float(np.abs(full(x)["label"] - short(x)["label"]).mean())

    pruned, removals = prune_blocks(model, remove=1, criterion="sensitivity", evidence=BlockEvidence(None, worsening))
    assert [removal.block.name for removal in removals] == ["a"]
    assert removals[0].score == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(pruned(x)["label"], model(x)["label"], atol=1e-5)


def test_budgets(model):
    """A number of blocks, or MACs; protected layers stay; what cannot be met says how far it goes."""
    evidence = BlockEvidence(batches=lambda: [(images(), None)])
    pruned, removals = prune_blocks(model, remove=2, evidence=evidence, protect=["plain*"])
    assert len(removals) == 2
    assert all(removal.difference <= 1e-4 for removal in removals)
    assert "plain" in {layer.name for layer in pruned.layers}
    small, _ = prune_blocks(model, max_macs=0.6, evidence=evidence)
    assert count(small).macs <= 0.6 * count(model).macs
    with pytest.raises(RecipeError, match=r"cannot remove all but 1.0% .* \d blocks can go, which leaves"):
        prune_blocks(model, max_macs=0.01, evidence=evidence)
    with pytest.raises(DataError, match="similarity"):
        prune_blocks(model, remove=1, evidence=BlockEvidence())
    with pytest.raises(RecipeError, match="needs a budget"):
        prune_blocks(model, evidence=evidence)
    with pytest.raises(RecipeError, match="similarity, sensitivity"):
        prune_blocks(model, remove=1, criterion="size", evidence=evidence)
