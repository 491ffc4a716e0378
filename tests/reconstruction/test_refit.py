"""Refitting a changed model to the original one."""

import numpy as np
import pytest
import tf_keras
from matrix import representatives

from edgeprune.errors import ModelError
from edgeprune.models.rebuild import rebuild
from edgeprune.progress import Progress
from edgeprune.prune.channels import surgery
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.channels.blocks import bypass, find_blocks
from edgeprune.prune.choice.criteria import Evidence
from edgeprune.prune.filters import score
from edgeprune.prune.weights.oneshot import zero_weights
from edgeprune.recipe.config import WeightsConfig
from edgeprune.reconstruction import refit as refitting
from edgeprune.reconstruction.journal import Memory
from edgeprune.reconstruction.moments import choose_ridge
from edgeprune.reconstruction.refit import refit
from edgeprune.reconstruction.rounding import Grid

layers = tf_keras.layers


def with_random_weights(model, seed=0):
    generator = np.random.default_rng(seed)
    model.set_weights([
        np.abs(value) + 0.5 if "variance" in weight.name else value / np.sqrt(max(np.prod(value.shape[:-1]), 1))
        for weight in model.weights
        for value in [generator.normal(size=weight.shape)]
    ])  # fmt: skip
    return model


def copy_of(model):
    copy = rebuild(model)
    copy.set_weights(model.get_weights())
    return copy


def batches_of(model, samples=400, seed=1):
    generator = np.random.default_rng(seed)
    arrays = [generator.normal(size=(samples, *x.shape[1:])).astype("float32") for x in model.inputs]
    return [[array[i : i + 50] for array in arrays] for i in range(0, samples, 50)]


def error(model, other, batches):
    """Mean square difference of the outputs, relative to the mean square of the other's."""
    pairs = [(np.asarray(model(batch)), np.asarray(other(batch))) for batch in batches]
    return sum(np.square(a - b).sum() for a, b in pairs) / sum(np.square(b).sum() for _, b in pairs)


@pytest.fixture
def residual():
    """A network with a strided convolution, batch normalization, a depthwise layer, a sum and a classifier."""
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="first")(inputs)
    x = shortcut = layers.ReLU()(layers.BatchNormalization(name="first_norm")(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depth")(x)
    x = layers.Conv2D(8, 1, use_bias=False, name="point")(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.Add()([layers.BatchNormalization(name="last_norm")(x), shortcut])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return with_random_weights(tf_keras.Model(inputs, layers.Dense(4, name="classes")(x)))


def test_what_was_not_changed_stays(residual):
    """With nothing removed, every weight comes back as it was."""
    copy = copy_of(residual)
    found = refit(residual, copy, batches_of(residual))
    assert [one.layer for one in found] == ["first", "depth", "point", "classes"]
    for ours, theirs in zip(copy.get_weights(), residual.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


CONSUMERS = {
    "dense": lambda x: layers.Dense(4, name="consumer")(layers.Flatten()(x)),
    "pointwise": lambda x: layers.Conv2D(4, 1, name="consumer")(x),
    "convolution": lambda x: layers.Conv2D(4, 3, name="consumer")(x),
    "without a bias": lambda x: layers.BatchNormalization()(layers.Conv2D(4, 1, use_bias=False, name="consumer")(x)),
    "frozen": lambda x: layers.BatchNormalization(trainable=False)(
        layers.Conv2D(4, 1, use_bias=False, name="consumer")(x)
    ),
    "several calls": lambda x: layers.Add()([(shared := layers.Conv2D(4, 1, name="consumer"))(x), shared(x[:, ::-1])]),
}


@pytest.mark.parametrize("kind", CONSUMERS)
def test_constant_channels_are_removed_without_a_trace(kind):
    """Channels that have one value for all data go, and with their part in the constant behind the consumer no output
    changes."""
    inputs = layers.Input((4, 4, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="made")(inputs)
    x = layers.Dense(5)(layers.Flatten()(layers.ReLU()(CONSUMERS[kind](x))))
    model = with_random_weights(tf_keras.Model(inputs, x))
    kernel, bias = model.get_layer("made").get_weights()
    kernel[..., [1, 4]], bias[[1, 4]] = 0, [2.0, 3.0]
    model.get_layer("made").set_weights([kernel, bias])
    graph, batches = analyse(model), batches_of(model)
    keep = np.ones(len(graph.units), bool)
    keep[next(group for group in graph.groups if group.name == "made").units[[1, 4]]] = False
    pruned = surgery.remove(graph, keep)
    assert error(pruned, model, batches) > 1e-3
    found = refit(model, pruned, batches, graph.kept_outputs(keep))
    assert not any(one.reason for one in found)
    assert error(pruned, model, batches) < 1e-6


def test_zeroed_weights_are_made_up_for(residual):
    """Zeros stay zero, the other weights make up for them: the outputs are nearer to those of the original."""
    zeroed = copy_of(residual)
    for name in ("first", "point"):
        layer = zeroed.get_layer(name)
        kernel = layer.kernel.numpy()
        layer.kernel.assign(np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0, kernel))
    batches = batches_of(residual)
    before = error(zeroed, residual, batches)
    zeros = {name: zeroed.get_layer(name).kernel.numpy() == 0 for name in ("first", "point")}
    found = {one.layer: one for one in refit(residual, zeroed, batches)}
    assert error(zeroed, residual, batches_of(residual, seed=2)) < 0.5 * before
    assert found["first"].after < found["first"].before
    for name, zero in zeros.items():
        assert not zeroed.get_layer(name).kernel.numpy()[zero].any()
        assert zeroed.get_layer(name).kernel.numpy()[~zero].all()


def test_what_a_missing_block_did_is_made_up_for_behind_it(residual):
    """Without a residual block, the layers behind it are refitted: what stands in for it is not the same."""
    blocks = [block for block in find_blocks(residual) if block.kind == "residual"]
    shorter = bypass(residual, blocks)
    batches = batches_of(residual)
    before = error(shorter, residual, batches_of(residual, seed=2))
    found = {one.layer: one for one in refit(residual, shorter, batches)}
    assert found.keys() == {"first", "classes"}
    assert found["classes"].after < found["classes"].before
    assert error(shorter, residual, batches_of(residual, seed=2)) < 0.8 * before


def test_a_linear_model_is_refitted_to_its_optimum():
    """Where a dense layer reads two thirds of what it read, it becomes the least-squares fit of its old outputs."""
    inputs = layers.Input((9,))
    hidden = layers.Dense(6, name="hidden")(inputs)
    whole = with_random_weights(tf_keras.Model(inputs, layers.Dense(3, name="out")(hidden)))
    inputs = layers.Input((9,))
    small = tf_keras.Model(inputs, layers.Dense(3, name="out")(layers.Dense(4, name="hidden")(inputs)))
    kept = np.array([0, 2, 3, 5])
    kernel, bias, *last = whole.get_weights()
    small.set_weights([kernel[:, kept], bias[kept], last[0][kept], last[1]])
    batches = batches_of(whole)
    refit(whole, small, batches, {"hidden": kept}, ridge=1e-12)
    x = np.concatenate([batch[0] for batch in batches])
    rows = np.concatenate([x @ kernel[:, kept] + bias[kept], np.ones([len(x), 1])], 1)
    wanted = np.asarray(whole(x))
    optimum = np.square(wanted - rows @ np.linalg.lstsq(rows, wanted, rcond=None)[0]).mean()
    assert np.square(wanted - np.asarray(small(x))).mean() == pytest.approx(optimum, rel=1e-5)


def test_the_last_branch_makes_up_for_the_others():
    """What one branch of a sum lost, the other gives, as far as it can."""
    inputs = layers.Input((6,))
    lossy = layers.Dense(5, name="lossy")(inputs)
    free = layers.Dense(5, name="free")(layers.Dense(6, name="before")(inputs))
    model = with_random_weights(tf_keras.Model(inputs, layers.Add()([lossy, free])))
    changed = copy_of(model)
    kernel = changed.get_layer("lossy").kernel
    kernel.assign(np.zeros(kernel.shape))
    batches = batches_of(model)
    refit(model, changed, batches, ridge=1e-12)
    assert error(changed, model, batches) < 1e-6


def test_what_cannot_be_refitted_is_named():
    """Layers that are no plain product stay as they are and say so."""
    inputs = layers.Input((5, 4))
    x = layers.Bidirectional(layers.LSTM(4), name="both")(layers.Dense(4, name="first")(inputs))
    model = with_random_weights(tf_keras.Model(inputs, layers.Dense(2, name="out")(x)))
    changed = copy_of(model)
    kernel = changed.get_layer("first").kernel
    kernel.assign(np.where(np.abs(kernel) < 0.2, 0, kernel))
    found = {one.layer: one for one in refit(model, changed, batches_of(model))}
    assert found["both"].reason == "Bidirectional is not a plain product of its weights"
    assert found["out"].after is not None


def test_every_call_is_made_once_for_each_sample(residual):
    """A refit costs about one pass of each model, however many layers there are."""
    counted = []

    class Counting(layers.Layer):
        def call(self, x):
            counted.append(len(x) if x.shape[0] else 0)
            return x

    inputs = layers.Input((6,))
    x = Counting(name="counting")(inputs)
    for number in range(5):
        x = layers.Dense(6, name=f"dense_{number}")(x)
    model = with_random_weights(tf_keras.Model(inputs, x))
    changed = copy_of(model)
    changed.layers[2].kernel.assign(changed.layers[2].kernel * 0.5)
    batches = batches_of(model)
    counted.clear()
    refit(model, changed, batches)
    assert sum(counted) == 2 * sum(len(batch[0]) for batch in batches)


def test_as_many_samples_as_fit_into_memory(residual, monkeypatch):
    """Where the tensors of all samples would fill more than is allowed, fewer are looked at, and that is said."""
    from edgeprune.progress import Progress
    from edgeprune.reconstruction import refit as module
    from edgeprune.reconstruction.forward import bytes_per_sample

    # Input [8, 8, 3]; the sum needs two tensors of [8, 8, 8] at once, in float32, and so does each call before it.
    assert bytes_per_sample(residual) == 2 * 8 * 8 * 8 * 4

    class Notes(Progress):
        said = ""

        def note(self, text):
            self.said += text

    notes = Notes()
    monkeypatch.setattr(module, "MEMORY_BYTES", 2 * bytes_per_sample(residual) * 149)
    zeroed = copy_of(residual)
    kernel = zeroed.get_layer("point").kernel
    kernel.assign(np.where(np.abs(kernel) < 0.1, 0, kernel))
    found = module.refit(residual, zeroed, batches_of(residual), progress=notes)
    assert "refits to 100 of 400 samples" in notes.said
    assert next(one for one in found if one.layer == "classes").rows == 100


def shared():
    """Two inputs through the same convolution, with a bias."""
    conv, inputs = layers.Conv2D(6, 3, activation="relu", name="shared"), [layers.Input((6, 6, 3)) for _ in range(2)]
    x = layers.Concatenate()([conv(layers.Conv2D(3, 1, name=f"own{i}")(x)) for i, x in enumerate(inputs)])
    return tf_keras.Model(inputs, layers.Dense(4, name="classes")(layers.GlobalAveragePooling2D()(x)))


def recurrent(kind, **options):
    inputs = layers.Input((7, 5))
    x = layers.Dense(6, name="first")(inputs)
    x = getattr(layers, kind)(8, return_sequences=True, name="shared", **options)(x)
    return tf_keras.Model(inputs, layers.Dense(4, name="classes")(x))


def attention():
    inputs, memory = layers.Input((7, 6)), layers.Input((5, 4))
    x = layers.MultiHeadAttention(2, 3, name="shared")(
        layers.Dense(6, name="first")(inputs), memory, use_causal_mask=True
    )
    return tf_keras.Model([inputs, memory], layers.Dense(4, name="classes")(x))


def einsum():
    inputs = layers.Input((7, 5))
    x = layers.Dense(6, name="first")(inputs)
    x = layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de", name="shared")(x)
    return tf_keras.Model(inputs, layers.Dense(4, name="classes")(layers.Flatten()(x)))


INSIDE = {
    "einsum": einsum,
    "shared": shared,
    "lstm": lambda: recurrent("LSTM"),
    "gru": lambda: recurrent("GRU"),
    "old gru": lambda: recurrent("GRU", reset_after=False),
    "rnn": lambda: recurrent("SimpleRNN", use_bias=False),
    "attention": attention,
}
ALWAYS = ("einsum", "shared", "gru", "attention")  # the other recurrent layers have fewer or other gates


@pytest.mark.parametrize("name", representatives(INSIDE, *ALWAYS))
def test_products_inside_of_layers_and_layers_called_twice_make_up_for_zeros(name):
    """With half of the weights before and in it zero, the layer's refitted products bring its outputs nearer."""
    model = with_random_weights(INSIDE[name]())
    changed = copy_of(model)
    generator = np.random.default_rng(3)
    for layer in changed.layers[:-1]:
        for weight in layer.weights:
            if len(weight.shape) > 1 and "recurrent" not in weight.name and "bias" not in weight.name:
                weight.assign(weight.numpy() * (generator.random(weight.shape) > 0.3))
    zeros = [value == 0 for value in changed.get_weights()]
    before = error(changed, model, batches_of(model, seed=9))
    found = {}
    for one in refit(model, changed, batches_of(model, 800)):
        found.setdefault(one.layer, []).append(one)
    assert error(changed, model, batches_of(model, seed=9)) < 0.6 * before
    assert len(found["shared"]) == (4 if name == "attention" else 1)
    assert all(one.reason is None and one.after < one.before for one in found["shared"])
    for value, were in zip(changed.get_weights(), zeros, strict=True):
        assert value.ndim < 2 or not value[were].any()


@pytest.mark.parametrize("name", representatives(INSIDE, *ALWAYS))
def test_what_is_inside_of_layers_stays_where_nothing_changed(name):
    model = with_random_weights(INSIDE[name]())
    changed = copy_of(model)
    refit(model, changed, batches_of(model))
    for ours, theirs in zip(changed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_layer_whose_calls_read_each_other_is_named_and_left():
    inputs = layers.Input((5,))
    dense = layers.Dense(6, activation="tanh", name="again")
    x = dense(dense(layers.Dense(6, name="first")(inputs)))
    model = with_random_weights(tf_keras.Model(inputs, layers.Dense(3, name="classes")(x)))
    changed = copy_of(model)
    kernel = changed.get_layer("first").kernel
    kernel.assign(kernel.numpy() * (np.random.default_rng(0).random(kernel.shape) > 0.5))
    found = {one.layer: one for one in refit(model, changed, batches_of(model))}
    assert found["again"].reason == "one of its calls reads another"
    assert found["classes"].after < found["classes"].before
    np.testing.assert_array_equal(changed.get_layer("again").kernel.numpy(), model.get_layer("again").kernel.numpy())


class Interrupted(Exception):
    pass


class InterruptedAt(Progress):
    """Ends the work once so many layers are refitted."""

    def __init__(self, layers):
        self.left = layers

    def advance(self, units=1):
        self.left -= units
        if self.left <= 0:
            raise Interrupted


def test_an_interrupted_refit_goes_on_where_it_was(residual, tmp_path, monkeypatch):
    """Layers that were solved are taken from the folder, and the outcome is that of a refit in one go."""
    batches = batches_of(residual)

    def pruned():
        copy = copy_of(residual)
        kernel = copy.get_layer("first").kernel
        kernel.assign(kernel.numpy() * (np.random.default_rng(0).random(kernel.shape) > 0.5))
        return copy

    whole, stopped, again = pruned(), pruned(), pruned()
    wanted = refit(residual, whole, batches)
    with pytest.raises(Interrupted):
        refit(residual, stopped, batches, folder=tmp_path / "refit", progress=InterruptedAt(2))
    solved = []
    monkeypatch.setattr(
        refitting, "choose_ridge", lambda *args, **options: solved.append(1) or choose_ridge(*args, **options)
    )
    found = refit(residual, again, batches, folder=tmp_path / "refit")
    assert len(solved) == 2
    assert [one.layer for one in found] == [one.layer for one in wanted]
    for ours, theirs in zip(again.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not (tmp_path / "refit").exists()


def test_solved_layers_of_another_refit_are_not_taken(residual, tmp_path):
    """The folder belongs to the changed weights and the settings."""
    copy = copy_of(residual)
    kernel = copy.get_layer("first").kernel
    kernel.assign(kernel.numpy() * (np.random.default_rng(0).random(kernel.shape) > 0.5))
    zeros = kernel.numpy() == 0
    with pytest.raises(Interrupted):
        refit(residual, copy_of(residual), batches_of(residual), grids={"first": Grid(7)}, folder=tmp_path / "refit",
              progress=InterruptedAt(1))  # fmt: skip
    refit(residual, copy, batches_of(residual), folder=tmp_path / "refit")
    assert not kernel.numpy()[zeros].any()


def test_refits_of_models_pruned_alike_up_to_a_layer_share_what_they_solve(monkeypatch):
    """With a memory of the ones before, the weights are the same to the last bit, and fewer layers are solved."""
    inputs = layers.Input((8, 8, 3))
    x = shortcut = layers.Conv2D(8, 3, activation="relu", padding="same", name="stem")(inputs)
    x = layers.Conv2D(6, 3, padding="same", use_bias=False, name="inner")(x)
    x = layers.Conv2D(8, 1, name="outer")(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.Conv2D(6, 3, activation="relu", name="late")(layers.ReLU()(layers.Add()([x, shortcut])))
    x = layers.Dense(4, name="classes")(layers.GlobalAveragePooling2D()(x))
    model = with_random_weights(tf_keras.Model(inputs, x))
    batches, graph, memory, solved = batches_of(model), analyse(model), Memory(), []
    monkeypatch.setattr(
        refitting, "choose_ridge", lambda *args, **options: solved.append(1) or choose_ridge(*args, **options)
    )
    groups = [group for group in graph.groups if not group.frozen]
    keep = np.ones(len(graph.units), bool)
    for group in groups:
        keep[group.units[: group.size // 2]] = False
    counts = {}
    for given_back in (None, *groups):
        kept = keep.copy()
        if given_back:
            kept[given_back.units] = True
        alone, sharing = surgery.remove(graph, kept), surgery.remove(graph, kept)
        refit(model, alone, batches, graph.kept_outputs(kept))
        before = len(solved)
        refit(model, sharing, batches, graph.kept_outputs(kept), memory=memory)
        counts[given_back.name if given_back else None] = len(solved) - before
        for ours, theirs in zip(sharing.get_weights(), alone.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert [group.layers[0] for group in groups] == ["stem", "inner", "late"]
    # Of all but the first, which reads what the original model reads: with "stem" whole, "inner" does so, too; with
    # "late" whole, all before it is known.
    assert list(counts.values()) == [4, 3, 4, 2]


def test_what_a_rectifier_cuts_off_need_not_be_right():
    """Behind a ReLU, the outputs are nearer than those of a fit to what it reads; the sum's ReLU counts, too."""
    inputs = layers.Input((8, 8, 3))
    x = shortcut = layers.Conv2D(12, 3, padding="same", activation="relu", name="first")(inputs)
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(12, 3, padding="same", use_bias=False, name="second")(x))
    x = layers.Add()([layers.Conv2D(12, 1, name="third")(layers.ReLU(6.0)(x)), shortcut])
    model = with_random_weights(tf_keras.Model(inputs, layers.Activation("relu")(x)))

    def pruned():
        copy, generator = copy_of(model), np.random.default_rng(3)
        for layer in copy.layers:
            for weight in layer.weights:
                if "kernel" in weight.name:
                    weight.assign(weight.numpy() * (generator.random(weight.shape) > 0.5))
        return copy

    batches, judging = batches_of(model, 2600), batches_of(model, seed=9)  # enough for the weakest ridge
    errors = {}
    for sweeps in (0, 3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(refitting, "SWEEPS", sweeps)
            copy = pruned()
            refit(model, copy, batches)
            errors[sweeps] = error(copy, model, judging)
    assert errors[3] < 0.97 * errors[0]


@pytest.fixture
def overflowing():
    """A model whose third layer reads infinite values, and which answers 0 or 1 all the same."""
    inputs = layers.Input((6,))
    x = layers.Dense(8, name="first", activation="relu")(inputs)
    x = layers.Dense(8, name="huge")(x)
    x = layers.Dense(4, name="third")(layers.ReLU()(x))
    model = with_random_weights(tf_keras.Model(inputs, layers.Activation("sigmoid")(x)))
    model.get_layer("huge").set_weights([np.full((8, 8), 3e38, "f4"), np.zeros(8, "f4")])
    model.get_layer("third").set_weights([np.ones((8, 4), "f4"), np.zeros(4, "f4")])
    return model


def test_layers_whose_values_overflow_are_named_and_left(overflowing):
    """What is not finite cannot be fitted; the layers before and behind keep weights that are numbers."""
    changed = copy_of(overflowing)
    kernel = changed.get_layer("first").kernel
    kernel.assign(kernel.numpy() * (np.abs(kernel.numpy()) > 0.2))
    before = [layer.get_weights() for layer in map(changed.get_layer, ("huge", "third"))]
    found = {one.layer: one for one in refit(overflowing, changed, batches_of(overflowing))}
    assert found["first"].reason is None
    for name, weights in zip(("huge", "third"), before, strict=True):
        assert "NaN or infinite" in found[name].reason
        for was, now in zip(weights, changed.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(was, now)
    assert all(np.isfinite(weight).all() for weight in changed.get_weights())


def test_choosing_by_values_that_overflow_is_refused_with_a_way_that_works(overflowing):
    """Channels and zeros that are chosen by what layers read; by weights alone, it works."""
    batches, graph = batches_of(overflowing), analyse(overflowing)
    evidence = Evidence(lambda: [(x[0],) for x in batches], None, 0)
    with pytest.raises(ModelError, match="'third' reads is NaN or infinite") as caught:
        score(graph, "reconstruct", evidence)
    assert 'criterion = "l2"' in caught.value.fix
    assert score(graph, "l2", evidence)
    settings = WeightsConfig(sparsity=0.5, criterion="reconstruct")
    with pytest.raises(ModelError, match="'third' reads is NaN or infinite"):
        zero_weights(copy_of(overflowing), settings, batches, ridge=1e-3)


def test_attention_with_smaller_heads_is_refitted_behind_them():
    """Which columns of its projections are left, only the surgery knows: they stay, and the one behind makes up."""
    model = with_random_weights(attention())
    graph = analyse(model)
    keep = np.ones(len(graph.units), bool)
    for group in graph.groups:
        if "shared" in group.name:
            keep[group.units[0]] = False
    pruned = surgery.remove(graph, keep)
    assert pruned.get_layer("shared")._key_dim < model.get_layer("shared")._key_dim
    before = error(pruned, model, batches_of(model, seed=9))
    rows = refit(model, pruned, batches_of(model, 800), graph.kept_outputs(keep))
    assert error(pruned, model, batches_of(model, seed=9)) < before
    assert [one.reason is None for one in rows if one.layer == "shared"] == [False, False, False, True]
