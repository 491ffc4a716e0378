"""Limits of milliseconds where a compiler says how long a file takes: what is said before is what the file comes to."""

import numpy as np
import pytest
import quick
from matrix import representatives

import edgeprune
from edgeprune.convert.converter import convert
from edgeprune.errors import RecipeError
from edgeprune.hardware.compilers import time_for
from edgeprune.prune.channels import surgery
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.channels.block_units import with_blocks, without_blocks
from edgeprune.prune.choice import compiled_costs, file_costs
from edgeprune.prune.choice.allocation import allocate
from edgeprune.prune.choice.budget import Budget, Constraints
from edgeprune.prune.choice.file_shapes import FileShapes
from edgeprune.prune.choice.ladders import Widths, ladder
from edgeprune.prune.choice.program import Limit, Program
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.target import ChannelSteps, load_target

TARGETS = ("ethos-u55-128", "ethos-u65-256")
STEPS = Constraints(steps=ChannelSteps(16), min_channels=2)


@pytest.fixture(scope="module", autouse=True)
def needs_vela():
    pytest.importorskip("ethosu.vela", reason="needs ethos-u-vela")


@pytest.fixture(scope="module")
def graph(L, randomize):
    """A stem, a residual block that may go, a depthwise layer, a concatenation, a dense layer behind a flattening."""
    import tf_keras

    i = L.image(size=16)
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(32, 3, strides=2, padding="same", name="stem")(i)))
    y = L.Conv2D(32, 3, padding="same", name="last")(L.Conv2D(64, 1, activation="relu", name="inner")(x))
    x = L.Add(name="sum")([x, y])
    x = L.Concatenate()([L.Conv2D(32, 1, name="left")(x), L.DepthwiseConv2D(3, padding="same")(x)])
    x = L.Flatten()(L.MaxPooling2D(4)(x))
    return with_blocks(analyse(randomize(tf_keras.Model(i, L.Dense(10, name="head")(L.Dense(64, name="dense")(x))))))


def _converted(model, mode="int8"):
    def samples():
        yield [np.random.default_rng(0).random((1, 16, 16, 3), np.float32)]

    plan = QuantizationPlan(mode, "int8" if mode == "int8" else "float", mode == "int8", static_shapes=True)
    return convert(model, plan, samples if mode == "int8" else None)


@pytest.fixture(scope="module")
def shapes(graph):
    return FileShapes.of(graph, _converted)


@pytest.fixture(scope="module", params=representatives(TARGETS, TARGETS[0]))
def board(request):
    return load_target(request.param)


@pytest.fixture(scope="module")
def resource(shapes, board):
    return file_costs.latency(shapes, board)


def _narrower(graph, gone_block, seed=0):
    """A choice in which each group loses half of its channels."""
    random = np.random.default_rng(seed)
    keep = np.ones(len(graph.units), bool)
    for group in graph.groups:
        if group.block:
            keep[group.units] = not gone_block
        else:
            keep[group.units[random.permutation(group.free)[: group.size // 2]]] = False
    return keep


def _built(graph, keep):
    """The file that a build makes of a choice."""
    shorter, kept = without_blocks(graph, keep)
    return _converted(surgery.remove(shorter, kept))


def test_the_whole_is_what_the_compiler_says_of_the_file(shapes, resource, board):
    """A share of the milliseconds is one of those that a profile of the unpruned file shows."""
    assert resource.whole == time_for(board, shapes.content).milliseconds > 0


@pytest.mark.parametrize("gone_block", [False, True])
def test_exact_milliseconds_are_those_of_the_built_file(graph, resource, board, gone_block):
    """No less than the compiler says of the pruned model's file, and little more: weights count as incompressible."""
    keep = _narrower(graph, gone_block)
    built = time_for(board, _built(graph, keep)).milliseconds
    assert built <= resource.exact(keep) <= built * 1.03


@pytest.mark.slow  # test_the_built_file_keeps_the_limit needs it
def test_the_program_comes_near(graph, resource):
    """What operators come to at widths that were not compiled adds up to the time of the file, to some percent."""
    widths = Widths(graph, [ladder(graph, group, group.free, STEPS) for group in graph.groups])
    program = Program(widths.sizes, {}, [Limit("latency", resource.tables(widths), resource.whole)], widths.totals)
    is_block = np.array([bool(group.block) for group in graph.groups])
    last = np.where(is_block, 0, np.array(widths.sizes) - 1)
    for options in (np.zeros_like(last), last // 2, last):
        counted = program.cost(program.limits[0], options)
        assert counted == pytest.approx(resource.exact(widths.keep(options.tolist())), rel=0.15)


def test_the_built_file_keeps_the_limit(graph, resource, board):
    """The choice that is found uses nearly all that is allowed, and the compiler says no more of its file."""
    random = np.random.default_rng(0)
    # Blocks are worth so much that channels go.
    scores = {group.name: np.exp(random.normal(size=group.size)) + 1e3 * bool(group.block) for group in graph.groups}
    found = allocate(graph, scores, Budget(), "global", STEPS, resources=[resource.limited("75%")])
    chosen, most = found.costs["latency"]
    assert most == pytest.approx(0.75 * resource.whole)
    assert 0.85 * most <= chosen <= most
    assert time_for(board, _built(graph, found.keep)).milliseconds <= most


def test_no_file_is_compiled_twice(graph, shapes, monkeypatch):
    """A choice that is looked at again, and others of the same widths, are known."""
    seen = []

    def counted(target, content):
        seen.append(content)
        return time_for(target, content)

    monkeypatch.setattr(compiled_costs, "time_for", counted)
    times = compiled_costs.CompilerTimes(shapes, load_target(TARGETS[0]))
    assert times.exact(_narrower(graph, False, seed=1)) == times.exact(_narrower(graph, False, seed=2))
    assert len(seen) == len(set(seen)) == 2


def test_operators_on_the_processor_have_no_known_time(graph, board):
    """The compiler takes nothing of a float file: zero milliseconds would keep every limit."""
    shapes = FileShapes.of(graph, lambda model: _converted(model, "float32"))
    with pytest.raises(RecipeError, match="operators stay on the processor: ADD, CONCATENATION, CONV_2D"):
        file_costs.latency(shapes, board)


@pytest.mark.slow  # that of a file whose time is estimated: test_file_costs.py
def test_a_limit_out_of_reach_says_what_the_compiler_says(graph, resource):
    """The nearest that is named is the time of a file, and asking for it works."""
    scores = {group.name: np.ones(group.size) for group in graph.groups}
    with pytest.raises(RecipeError, match=r"the least for latency is [\d.]+ ms") as caught:
        allocate(graph, scores, Budget(), "global", STEPS, resources=[resource.limited("1%")])
    advised = float(caught.value.fix.split("max_latency = ")[1].split(",")[0])
    found = allocate(graph, scores, Budget(), "global", STEPS, resources=[resource.limited(advised)])
    assert found.costs["latency"][0] <= advised


@pytest.mark.slow  # test_the_built_file_keeps_the_limit without a build, tests/searching/test_search.py with one
def test_a_build_keeps_the_limit(tmp_path):
    """The summary that the compiler writes for the file of a build is within the limit of its recipe."""
    import tf_keras

    layers = tf_keras.layers
    inputs = layers.Input((16, 16, 1))
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    model = tf_keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    recipe = {
        "name": "half",
        "filters": {"max_latency": "60%", "criterion": "l2", "verify": False},
        "finetune": {"epochs": 0},
        **quick.TABLE,
        "quantize": {"modes": ["int8"], "rounding": "nearest"},
    }
    report = edgeprune.build(
        model, data="demo", recipe=edgeprune.Recipe.model_validate(recipe), target=TARGETS[0], out=tmp_path / "run"
    )
    times = {variant.name: variant.latency.estimated for variant in report.variants}
    assert times["filters-int8"].median_ms <= 0.6 * times["int8"].median_ms
    (limit,) = report.pruning[0].allocation.limits
    assert times["filters-int8"].median_ms <= limit.value <= limit.most
