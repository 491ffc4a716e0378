"""How far answers are from each other."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from edgeprune.reconstruction import answers
from edgeprune.reconstruction.answers import Answer, divergence, kinds_of, with_room


def distributions(generator, shape):
    values = np.exp(generator.normal(size=shape))
    return (values / values.sum(-1, keepdims=True)).astype("float32")


KINDS = {
    "classes": lambda generator: distributions(generator, (50, 6, 4)),
    "chances": lambda generator: generator.uniform(0.02, 0.98, (50, 3)).astype("float32"),
    "numbers": lambda generator: (generator.normal(size=(50, 2)) * 30 + 5).astype("float32"),
}
ENDS = {"classes": "softmax", "chances": "sigmoid", "numbers": "linear"}


@pytest.mark.parametrize(
    ("activation", "kind"), [("softmax", "classes"), ("sigmoid", "chances"), ("relu", "numbers"), (None, "numbers")]
)
def test_each_kind_is_recognised_by_what_ends_the_output(activation, kind):
    """Numbers are numbers even where all of them lie between zero and one."""
    model = tf_keras.Sequential([tf_keras.layers.Input((2,)), tf_keras.layers.Dense(2, activation)])
    values = np.float32([[0.5, 0.5], [0.2, 0.8 if kind == "classes" else 0.4]])
    assert [answer.kind for answer in kinds_of(model, [values])] == [kind]


def test_numbers_of_classes_are_not_compared():
    """Integers say nothing of how far they are from others."""
    of = Answer.ending("linear", np.arange(4))
    assert of.kind == "none"
    assert not of.divergences(np.arange(4), np.zeros(4, int)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_on_the_evened_scale_a_small_change_is_its_divergence(kind):
    """Half of the square of the change is the divergence in nats, wherever the answer is."""
    generator = np.random.default_rng(1)
    answers = KINDS[kind](generator).astype(np.float64)
    if kind == "classes":
        answers /= answers.sum(-1, keepdims=True)
    of = Answer.ending(ENDS[kind], answers)
    changed = answers + 1e-3 * generator.normal(size=answers.shape) * np.minimum(
        answers, 1 - answers if kind == "chances" else answers
    )
    if kind == "classes":
        changed /= changed.sum(-1, keepdims=True)
    moved = of.evened(tf.constant(changed)).numpy() - of.evened(tf.constant(answers)).numpy()
    expected = np.square(moved).reshape(len(moved), -1).sum(1) / 2
    np.testing.assert_allclose(of.divergences(answers, changed), expected, rtol=2e-2, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_changes_as_the_divergence_does(kind):
    """What gradients are taken of differs from the sum of the divergences by what the changed model does not touch."""
    original, first, second = (KINDS[kind](np.random.default_rng(seed)) for seed in (0, 1, 2))
    of = Answer.ending(ENDS[kind], original)
    losses = [float(of.loss(tf.constant(original), tf.constant(changed))) for changed in (first, second)]
    sums = [of.divergences(original, changed).sum() for changed in (first, second)]
    np.testing.assert_allclose(losses[1] - losses[0], sums[1] - sums[0], rtol=1e-3)


def test_outputs_add_up():
    """The divergence of a model is that of its outputs together, per sample; the same answers have none."""
    a, b = (KINDS["classes"](np.random.default_rng(seed)) for seed in (0, 1))
    c, d = (KINDS["numbers"](np.random.default_rng(seed)) for seed in (0, 1))
    kinds = [Answer.ending("softmax", a), Answer.ending("linear", c)]
    assert divergence(kinds, [a, c], [a, c]) == 0
    apart = divergence(kinds[:1], [a], [b]) + divergence(kinds[1:], [c], [d])
    np.testing.assert_allclose(divergence(kinds, [a, c], [b, d]), apart)


def test_answers_are_compared_a_few_at_a_time(monkeypatch):
    """The divergence is the same, however few of them are in double precision at once."""
    generator = np.random.default_rng(0)
    p, q = (distributions(generator, (7, 5, 4)) for _ in range(2))
    kinds = [Answer.ending("softmax", p)]
    whole = divergence(kinds, [p], [q])
    monkeypatch.setattr(answers, "_AT_ONCE", 45)
    assert divergence(kinds, [p], [q]) == pytest.approx(whole, rel=1e-12)


def test_masks_are_compared_on_as_many_samples_as_there_is_memory_for(monkeypatch):
    """An output of a thousand values for each of ten samples, where there is room for 25,000 bytes: six of them."""
    model = tf_keras.Sequential([tf_keras.layers.Input((2,)), tf_keras.layers.Dense(1000)])
    batches = [[np.zeros((2, 2), np.float32)] for _ in range(5)]
    monkeypatch.setattr(answers, "_BYTES", 25_000)
    assert [len(x) for (x,) in with_room(model, batches)] == [2, 2, 2]
    monkeypatch.setattr(answers, "_BYTES", 10)
    assert [len(x) for (x,) in with_room(model, batches)] == [2]
