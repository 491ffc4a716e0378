"""Sensitivity: points equal real masking, one pass each, kept on disk; the allocation follows the curves."""

import json

import numpy as np
import pytest
from matrix import representatives

from edgeprune.errors import RecipeError
from edgeprune.prune.channels import surgery
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.channels.masking import Switchboard
from edgeprune.prune.choice import sensitivity
from edgeprune.prune.choice.allocation import allocate
from edgeprune.prune.choice.budget import Budget, Constraints, kept_fractions
from edgeprune.prune.choice.criteria import CRITERIA, Evidence
from edgeprune.prune.choice.sensitivity import Curves, Journal, Point


@pytest.fixture(scope="module")
def problem(L):
    """A model with a group that is useless by its consumers' weights, a decisive one, and its own answers as labels."""
    import tf_keras

    from edgeprune.data import InputSpec, load_data
    from edgeprune.recipe.config import DataConfig, TaskConfig
    from edgeprune.tasks.resolve import resolve_task

    tf_keras.utils.set_random_seed(0)
    i = L.image(size=8)
    a = L.Conv2D(16, 3, padding="same", activation="relu", name="decisive")(i)
    b = L.Conv2D(16, 3, padding="same", activation="relu", name="useless")(i)
    x = L.Conv2D(16, 3, activation="relu", name="joined")(L.Concatenate(name="both")([a, b]))
    model = tf_keras.Model(i, L.Dense(4, name="head", activation="softmax")(L.Flatten()(x)))
    kernel, bias = model.get_layer("joined").get_weights()
    kernel[:, :, 16:] = 0
    model.get_layer("joined").set_weights([3 * kernel, bias])
    x = np.random.default_rng(0).normal(size=(400, 8, 8, 3)).astype("float32")
    y = model.predict(x, verbose=0).argmax(-1)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    data = load_data({"x": x, "y": y}, DataConfig(validation=0.4), InputSpec.of(model), seed=0)
    return model, data, resolve_task(model, TaskConfig(), data)


@pytest.fixture
def run(problem, tmp_path):
    """``run(key="k", **options)``: the graph, its curves and order; the journal is in the test's folder."""
    model, data, task = problem

    def measure(key="k", score=None, **options):
        graph = analyse(model)
        journal = Journal(tmp_path / "points.jsonl", key)
        found = sensitivity.measure(
            graph, score or (lambda: CRITERIA["l2"].score(graph, Evidence())), data.validation, task, journal, **options
        )
        return graph, *found

    measure.path = tmp_path / "points.jsonl"
    return measure


def _group(graph, name):
    return next(group for group in graph.groups if group.name == name)


def test_a_point_is_what_the_masked_model_gives(problem, run):
    """Metric and loss of a point equal those of the oracle with the same channels zeroed."""
    from edgeprune.evaluate.accuracy import evaluate_keras

    _, data, task = problem
    graph, curves, order = run(rates=(0.5,))
    group = _group(graph, "decisive")
    point = curves.of(group)[1]
    assert point.removed == 8
    keep = sensitivity.kept(graph, group, order["decisive"][:8])
    masked = surgery.mask(graph, keep)
    assert point.metric == pytest.approx(evaluate_keras(masked, data.validation, task))
    (x, y), *_ = data.validation.batches(data.validation.size)
    assert point.loss == pytest.approx(float(task.loss_function()(y, masked(x, training=False))), rel=1e-4)
    assert curves.baseline.metric == pytest.approx(evaluate_keras(graph.model, data.validation, task))


@pytest.mark.parametrize("seed", representatives(range(4), 0))
def test_the_switchboard_equals_the_oracle_and_forgets(L, randomize, random_keep, seed):
    """After every setting the one traced model equals a freshly masked one, sums without weights included."""
    import tensorflow as tf
    import tf_keras

    tf_keras.backend.clear_session()
    i = L.image()
    x = L.stem(i)
    x = L.Add()([x, L.Conv2D(8, 1)(L.BatchNormalization()(x))])
    s = L.Conv2D(8, 1, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
    x = L.Multiply()([x, s])
    y = L.Reshape((16, 8))(x)
    attention = L.Dot(axes=2)([y, y])  # sums over channels without weights
    model = randomize(tf_keras.Model(i, [L.head(x), L.Flatten()(attention)]), seed)
    graph = analyse(model)
    board, inputs = Switchboard(graph), surgery.random_inputs(model, seed)
    forward = tf.function(lambda values: board.model(values, training=False))
    for number in (1, 2):
        keep = random_keep(graph, seed * 10 + number)
        assert not keep.all()
        board.set(keep)
        expected = surgery.mask(graph, keep)(inputs, training=False)
        for a, b in zip(expected, forward(inputs), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(a).max())
    board.set(np.ones_like(keep))
    for a, b in zip(model(inputs, training=False), forward(inputs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(a).max())
    assert forward.experimental_get_tracing_count() == 1


def test_the_model_that_is_measured_does_not_change(problem, run):
    """All weights are what they were."""
    before = problem[0].get_weights()
    run(rates=(0.3, 0.9))
    for a, b in zip(before, problem[0].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_pass_per_point(run, monkeypatch):
    """Rates that round to the same number of filters are one point; points that are known cost nothing."""
    passes, original = [], sensitivity._evaluation
    monkeypatch.setattr(
        sensitivity,
        "_evaluation",
        lambda *given: (lambda evaluate: lambda *point: passes.append(point) or evaluate(*point))(original(*given)),
    )
    run(rates=(0.49, 0.5, 0.51))
    assert sorted(passes) == [("", 0), ("decisive", 8), ("joined", 8), ("useless", 8)]
    run(rates=(0.5, 0.75), skip=["joined"])
    assert sorted(passes[4:]) == [("decisive", 12), ("useless", 12)]


def test_it_goes_on_where_it_was(run):
    """A run that breaks off, even within a line, keeps points and order, and ends like an unbroken one."""

    class Broken(Exception):
        pass

    class Listener(sensitivity.Progress):
        advanced = 0

        def advance(self, units=1):
            self.advanced += 1
            if self.advanced == 3:
                raise Broken

    with pytest.raises(Broken):
        run(progress=Listener())
    content = run.path.read_bytes()
    assert content.count(b"\n") == 1 + 1 + 3  # key and order, baseline, points
    run.path.write_bytes(content + b'{"group": "useless", "remo')
    _, curves, _ = run(score=lambda: pytest.fail("the order is known"))
    assert run.path.read_bytes().startswith(content)
    run.path.unlink()
    _, unbroken, _ = run()
    assert [(p.group, p.removed, p.metric) for p in curves.points] == [
        (p.group, p.removed, p.metric) for p in unbroken.points
    ]


def test_stale_or_damaged_points_are_not_used(run):
    """Points under another key, or in a file that holds something else, are measured anew."""
    run(rates=(0.5,))
    lines = run.path.read_text().splitlines()
    forged = [json.dumps({**json.loads(line), "loss": -77.0}) for line in lines[1:]]
    run.path.write_text("\n".join([lines[0], *forged]) + "\n")
    assert run(rates=(0.5,))[1].baseline.loss == -77.0  # so a forgery would show
    assert run(key="other", rates=(0.5,))[1].baseline.loss >= 0
    for content in ("[]\n", "oops\n", lines[0] + '\n{"a": 1}\n', ""):
        run.path.write_text(content)
        assert run(rates=(0.5,))[1].baseline.loss >= 0


@pytest.mark.parametrize(
    "budget", representatives([{"max_macs": 0.5}, {"max_params": 0.6}, {"rate": 0.3}], {"max_macs": 0.5}, {"rate": 0.3})
)
def test_useless_groups_go_and_decisive_ones_stay(run, budget):
    """The group whose consumers ignore it loses far more than the one that decides, and the budget is met."""
    graph, curves, _ = run()
    scores = CRITERIA["l2"].score(graph, Evidence())
    keep = allocate(graph, scores, Budget(**budget), "sensitivity", Constraints(), curves=curves).keep
    removed = {group.name: 1 - keep[group.units].mean() for group in graph.groups}
    assert removed["useless"] >= 0.8
    assert removed["decisive"] <= removed["useless"] - 0.3
    if "rate" not in budget:
        (share,), (limit,) = kept_fractions(graph, keep, Budget(**budget)).values(), budget.values()
        assert limit - 0.02 <= share <= limit


@pytest.fixture
def random_graph(L, randomize):
    """``random_graph(seed)``: one to three branches of random widths and depths, joined now and then."""
    import tf_keras

    def make(seed):
        random = np.random.default_rng(seed)
        tf_keras.backend.clear_session()
        i = L.image(size=8)
        pool = [L.Conv2D(16, 3, padding="same")(i)]
        for _ in range(random.integers(3, 7)):
            x, other = (pool[random.integers(len(pool))] for _ in range(2))
            y = L.Conv2D(int(random.choice([16, 24, 32])), int(random.choice([1, 3])), padding="same")(x)
            kind = random.integers(4)
            if kind == 0:
                y = L.Add()([y, L.Conv2D(y.shape[-1], 1)(other)])
            elif kind == 1:
                y = L.Concatenate()([other, y])
            elif kind == 2:
                y = L.DepthwiseConv2D(3, padding="same")(L.BatchNormalization()(y))
            pool.append(y)
        return randomize(tf_keras.Model(i, L.head(pool[-1])), seed)

    return make


def _made_up(graph, seed):
    """Curves that any measurement could have given: noisy, not monotone, not convex, with a loss that is no number."""
    random = np.random.default_rng(seed)
    points = [
        Point(group.name, count, 0.5, float(random.choice([1 + random.exponential(), np.nan], p=[0.95, 0.05])), 0.1)
        for group in graph.groups
        if not group.frozen
        for count in sensitivity.counts_at(group, sensitivity.orders(graph, _zeros(graph))[group.name], (0.2, 0.5, 0.8))
    ]
    return Curves(Point("", 0, 0.9, 1.0, 0.1), tuple(points))


def _zeros(graph):
    return {group.name: np.zeros(group.size) for group in graph.groups}


@pytest.mark.parametrize("seed", representatives(range(12), 0, 4))
def test_budgets_are_met_on_random_graphs(random_graph, seed):
    """Whatever the graph and the curves, the budget is kept and nearly used, or the error names what is reachable."""
    graph = analyse(random_graph(seed))
    curves, refused = _made_up(graph, seed), []
    for fraction in (0.4, 0.7):
        for kind in ("max_macs", "max_params"):
            budget = Budget(**{kind: fraction})
            try:
                found = allocate(graph, _zeros(graph), budget, "sensitivity", Constraints(), curves=curves)
            except RecipeError as error:
                refused.append(str(error))
                continue
            (share,) = kept_fractions(graph, found.keep, budget).values()
            assert share <= fraction
            if found.loss < 100:  # beside a loss that is no number, the others are within the gap of the solver
                assert share >= fraction - 0.05
    assert all("nearest that can be had" in message for message in refused)
    assert len(refused) < 4
