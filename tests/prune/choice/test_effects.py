"""What groups cost in the company of the others, measured, and the choices that follow from it."""

import numpy as np
import pytest
import tf_keras

from edgeprune.progress import Progress
from edgeprune.prune.channels import surgery
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.choice import allocation, effects
from edgeprune.prune.choice.budget import Budget, Constraints
from edgeprune.prune.choice.criteria import CRITERIA, Evidence, inputs_of
from edgeprune.prune.choice.effects import in_company
from edgeprune.prune.filters import choose
from edgeprune.reconstruction.answers import answers_of, divergence, kinds_of
from edgeprune.reconstruction.refit import refit

layers = tf_keras.layers


@pytest.fixture
def graph(randomize):
    inputs = layers.Input((8, 8, 2))
    x = layers.Conv2D(8, 3, activation="relu", name="one")(inputs)
    x = layers.Conv2D(8, 3, activation="relu", name="two")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 1, name="three")(x))
    return analyse(randomize(tf_keras.Model(inputs, layers.Dense(3, "softmax", name="out")(x))))


@pytest.fixture
def evidence():
    generator = np.random.default_rng(0)
    batches = [(generator.normal(size=(32, 8, 8, 2)).astype("float32"),) for _ in range(12)]
    return Evidence(lambda: batches)


def _measured(graph, keep, batches):
    """What the answers differ by with the units gone and the rest refitted, measured independently."""
    pruned = surgery.remove(graph, keep)
    refit(graph.model, pruned, batches[:9], graph.kept_outputs(keep))
    answers = answers_of(graph.model, batches[9:])
    return divergence(kinds_of(graph.model, answers), answers, answers_of(pruned, batches[9:]))


def _allocate(graph, max_macs=0.5):
    return lambda scores: allocation.allocate(graph, scores, Budget(max_macs=max_macs), "global", Constraints())


def test_a_choice_is_worse_than_the_predicted_best_only_for_more_parameters(graph, evidence):
    """The choice that comes out answers no worse than the one by predicted losses, but for what parameters are worth,
    and it is within the budget."""
    scores, batches = CRITERIA["reconstruct"].score(graph, evidence), inputs_of(graph, evidence)
    allocate = _allocate(graph)
    first, found = allocate(scores), in_company(graph, scores, allocate, batches)
    shares = [graph.count_params(choice.keep) / graph.totals["params"] for choice in (first, found)]
    before, after = (_measured(graph, choice.keep, batches) for choice in (first, found))
    assert after * (1 - 0.6 * shares[1]) <= before * (1 - 0.6 * shares[0]) + 1e-6
    assert graph.count_macs(found.keep) <= 0.5 * graph.count_macs(np.ones(len(graph.units), bool))


def test_of_choices_that_answer_alike_the_one_with_more_parameters_is_taken(evidence, randomize):
    """Two layers whose outputs nothing needs: what goes is what holds few parameters for its multiply-accumulates."""
    inputs = layers.Input((8, 8, 2))
    wide = layers.Conv2D(8, 3, padding="same", activation="relu", name="wide")(inputs)
    deep = layers.Conv2D(8, 3, strides=2, activation="relu", name="deep")(wide)
    graph = analyse(
        randomize(tf_keras.Model(inputs, layers.Dense(3, "softmax", name="out")(layers.GlobalAveragePooling2D()(deep))))
    )
    graph.model.get_layer("out").set_weights([np.full((8, 3), 1e-3) * [1, 0, -1], np.array([1.0, 0.0, -1.0])])
    scores = {group.name: np.full(group.size, 1e-5 if group.name == "deep" else 1e-3) for group in graph.groups}
    allocate, batches = _allocate(graph, 0.7), inputs_of(graph, evidence)
    first, found = allocate(scores), in_company(graph, scores, allocate, batches)
    assert graph.count_params(found.keep) > graph.count_params(first.keep)
    assert _measured(graph, found.keep, batches) < 1e-5


def test_a_wrong_prediction_is_noticed(graph, evidence):
    """Losses that are said to be next to nothing for one group are not believed: another choice is made."""
    scores, batches = CRITERIA["reconstruct"].score(graph, evidence), inputs_of(graph, evidence)
    wrong = {name: values * (1e-2 if name == "two" else 1) for name, values in scores.items()}
    allocate = _allocate(graph)
    fooled, found = allocate(wrong), in_company(graph, wrong, allocate, batches)
    assert _measured(graph, found.keep, batches) < 0.9 * _measured(graph, fooled.keep, batches)


def test_large_models_count_as_predicted(graph, evidence, monkeypatch):
    """Where the refits would take too long, nothing is measured, and the first choice stands."""
    monkeypatch.setattr(effects, "_WORK", 1.0)
    monkeypatch.setattr(effects, "refit", None)
    scores, allocate = CRITERIA["reconstruct"].score(graph, evidence), _allocate(graph)
    found = in_company(graph, scores, allocate, inputs_of(graph, evidence))
    np.testing.assert_array_equal(found.keep, allocate(scores).keep)


def test_only_predictions_of_losses_are_compared_with_measurements(graph, evidence, monkeypatch):
    """Norms of weights say nothing that could be measured, and rates that are given leave nothing to choose."""
    monkeypatch.setattr(effects, "refit", None)
    budget = Budget(rate=0.5)
    for criterion, how in [("l2", "global"), ("reconstruct", "uniform")]:
        assert not choose(graph, budget, criterion, how, Constraints(), evidence).keep.all()


def test_progress_is_told(graph, evidence):
    """Each group says that it is tried."""
    notes = []

    class Listener(Progress):
        def note(self, text):
            notes.append(text)

    choose(graph, Budget(max_macs=0.5), "reconstruct", "global", Constraints(), evidence, progress=Listener())
    assert any("1 of 3" in note for note in notes)
