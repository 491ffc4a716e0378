"""Limits of the converted file: what the program says is what the file is profiled to."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.convert.converter import convert
from edgeprune.errors import ModelError, RecipeError
from edgeprune.hardware.latency.estimate import predict
from edgeprune.prune.channels import surgery
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.channels.block_units import gone_blocks, with_blocks, without_blocks
from edgeprune.prune.choice import file_costs
from edgeprune.prune.choice.allocation import allocate
from edgeprune.prune.choice.budget import Budget, Constraints
from edgeprune.prune.choice.file_shapes import FileShapes
from edgeprune.prune.choice.ladders import Widths, ladder
from edgeprune.prune.choice.program import Limit, Program
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.target import ChannelSteps, load_target
from edgeprune.tflite.flatbuffer import parse
from edgeprune.tflite.memory import plan


@pytest.fixture(scope="module")
def graph(L, randomize):
    """A stem, a residual block, a depthwise layer, a concatenation, a gate, and a dense layer behind a flattening."""
    import tf_keras

    i = L.image(size=16)
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(16, 3, strides=2, padding="same", name="stem")(i)))
    y = L.Conv2D(16, 3, padding="same", name="last")(L.Conv2D(32, 1, activation="relu", name="inner")(x))
    x = L.Add(name="sum")([x, y])
    x = L.Concatenate()([L.Conv2D(16, 1, name="left")(x), L.DepthwiseConv2D(3, padding="same")(x)])
    gate = L.Conv2D(32, 1, activation="sigmoid", name="gate")(L.GlobalAveragePooling2D(keepdims=True)(x))
    x = L.Multiply()([x, gate])
    x = L.Flatten()(L.MaxPooling2D(4)(x))
    return analyse(randomize(tf_keras.Model(i, L.Dense(10, name="head")(L.Dense(24, name="dense")(x)))))


def _converter(mode):
    def samples():
        yield [np.random.default_rng(0).random((1, 16, 16, 3), np.float32)]

    plan = QuantizationPlan(mode, "float", mode == "int8")
    return lambda model: convert(model, plan, samples if mode == "int8" else None)


def followed(format):
    """Of the two formats in which a test follows a file, the one that it always does."""
    return pytest.mark.parametrize("shapes", representatives(["float32", "int8"], format), indirect=True)


@pytest.fixture(scope="module")
def shapes(request, graph):
    made = _converter(request.param)
    found = FileShapes.of(graph, made)
    found.made = made
    return found


def _scores(graph, seed=0):
    random = np.random.default_rng(seed)
    return {group.name: np.exp(random.normal(size=group.size)) for group in graph.groups}


def _chosen(shapes, *resources, multiple=4):
    constraints = Constraints(steps=ChannelSteps(multiple), min_channels=2)
    return allocate(shapes.graph, _scores(shapes.graph), Budget(), "global", constraints, resources=resources)


@followed("float32")
def test_sizes_are_those_of_the_file(shapes, graph):
    """With any channels gone, every tensor has the shape that the converter gives it."""
    random = np.random.default_rng(1)
    for _ in range(3):
        keep = np.ones(len(graph.units), bool)
        for group in graph.groups:
            gone = random.permutation(group.free)[: random.integers(group.size // 2 + 1)]
            keep[group.units[gone]] = False
        file = parse(shapes.made(surgery.remove(graph, keep))).subgraphs[0]
        assert [tensor.shape for tensor in shapes.at(keep).tensors] == [tensor.shape for tensor in file.tensors]


@followed("int8")
@pytest.mark.parametrize(
    ("target", "kernels"),
    representatives(
        [("rpi4", "xnnpack"), ("rpi4", "builtin"), ("coral", "edgetpu")], ("rpi4", "xnnpack"), ("coral", "edgetpu")
    ),
)
def test_milliseconds_are_those_of_the_profile(shapes, graph, target, kernels):
    """The choice keeps the limit and nearly uses it, and the file of the pruned model is estimated at what it says."""
    board = load_target(target)
    if kernels == "edgetpu":
        _require_integers(shapes)
    whole = predict(shapes.base, board, kernels).estimate.median_ms
    least = predict(shapes.at(_narrowest(graph)), board, kernels).estimate.median_ms
    limit = (whole + least) / 2
    found = _chosen(shapes, file_costs.latency(shapes, board, kernels).limited(limit))
    value, most = found.costs["latency"]
    assert 0.93 * limit <= value <= most == limit
    file = parse(shapes.made(surgery.remove(graph, found.keep))).subgraphs[0]
    assert predict(file, board, kernels).estimate.median_ms == pytest.approx(value, rel=1e-9)


@pytest.mark.slow  # as in test_compiled_costs.py
@pytest.mark.parametrize("shapes", ["float32", "int8"], indirect=True)
def test_without_a_block_the_file_is_that_of_the_shorter_model(shapes, graph):
    """Where blocks may go, one that is worth little goes, and all limits hold on the file of the model without it."""
    board = load_target("rpi4")
    longer = with_blocks(graph)
    assert [group.block for group in longer.groups if group.block] == [("inner", "last", "sum")]
    file = FileShapes.of(longer, shapes.made)
    scores = _scores(longer) | {"sum": np.array([0.01])}
    limits = [
        file_costs.latency(file, board).limited("85%"),
        file_costs.memory(file).limited("95%"),
        file_costs.size(file).limited("95%"),
    ]
    found = allocate(longer, scores, Budget(), "global", Constraints(steps=ChannelSteps(4)), resources=limits)
    assert [block.name for block in gone_blocks(longer, found.keep)] == ["sum"]
    shorter, keep = without_blocks(longer, found.keep)
    content = shapes.made(surgery.remove(shorter, keep))
    built = parse(content).subgraphs[0]
    for name, value in (
        ("latency", predict(built, board).estimate.median_ms),
        ("memory", plan(built).arena_bytes),
        ("size", len(content)),
    ):
        chosen, most = found.costs[name]
        assert value <= most
        # Of the file, what describes the operators that are gone is missing, too.
        assert 0 <= chosen - value <= 2048 if name == "size" else value == pytest.approx(chosen, rel=1e-9)


@followed("int8")
def test_what_belongs_to_no_operator_counts_in_the_program(shapes, graph):
    """Most of a small file's time on a chip behind USB is that of reaching it, and the program counts it."""
    _require_integers(shapes)
    board = load_target("coral")
    widths = Widths(graph, [ladder(graph, group, group.free, Constraints(min_channels=2)) for group in graph.groups])
    resource = file_costs.latency(shapes, board)
    (table,) = resource.tables(widths)
    program = Program(widths.sizes, {}, [Limit("latency", (table,), resource.whole)], widths.totals)
    for options in (np.zeros(len(widths.sizes), int), np.array(widths.sizes) - 1):
        counted = program.cost(program.limits[0], options)
        assert counted == pytest.approx(resource.exact(widths.keep(options)), rel=0.01)


@followed("float32")
def test_scratch_memory_counts_in_the_program(shapes, graph):
    """What the kernel of a convolution unrolls is most of the arena, and follows the channels that it reads."""
    widths = Widths(graph, [ladder(graph, group, group.free, Constraints(min_channels=2)) for group in graph.groups])
    resource = file_costs.memory(shapes)
    program = Program(widths.sizes, {}, [Limit("memory", resource.tables(widths), resource.whole)], widths.totals)
    for options in (np.zeros(len(widths.sizes), int), np.array(widths.sizes) // 2, np.array(widths.sizes) - 1):
        peak = plan(shapes.at(widths.keep(options))).peak_bytes
        assert program.cost(program.limits[0], options) == pytest.approx(peak, rel=0.02)


def _require_integers(shapes):
    if any(tensor.dtype == "float32" and tensor.constant for tensor in shapes.base.tensors):
        pytest.skip("the chip takes integers only")


def _narrowest(graph):
    keep = np.ones(len(graph.units), bool)
    for group in graph.groups:
        keep[group.units[group.free[: group.size - 2]]] = False
    return keep


@followed("float32")
def test_memory_and_size_are_those_of_the_file(shapes, graph):
    """Both limits hold on the file of the pruned model."""
    whole = len(shapes.made(graph.model))
    arena = plan(shapes.base).arena_bytes
    resources = file_costs.memory(shapes).limited(0.8 * arena), file_costs.size(shapes).limited(0.7 * whole)
    found = _chosen(shapes, *resources)
    content = shapes.made(surgery.remove(graph, found.keep))
    assert plan(parse(content).subgraphs[0]).arena_bytes == found.costs["memory"][0] <= 0.8 * arena
    assert len(content) <= 0.7 * whole
    assert abs(len(content) - found.costs["size"][0]) <= 512


@followed("int8")
def test_a_limit_out_of_reach_names_what_is_in_the_way(shapes):
    """The message says the least that can be had of the limit that is in the way; its line then works."""
    board = load_target("rpi4")
    whole = predict(shapes.base, board).estimate.median_ms
    with pytest.raises(RecipeError, match=r"the least for latency is [\d.]+ ms") as caught:
        _chosen(shapes, file_costs.latency(shapes, board).limited(0.01 * whole))
    advised = float(caught.value.fix.split("max_latency = ")[1].split(",")[0])
    found = _chosen(shapes, file_costs.latency(shapes, board).limited(advised), multiple=1)
    assert found.costs["latency"][0] <= advised


def test_files_that_differ_in_more_than_sizes_are_refused(graph):
    """A converter that makes other operators of fewer channels is not followed."""
    made = _converter("float32")
    files = iter([made(graph.model), _converter("int8")(graph.model)])
    with pytest.raises(ModelError, match="makes other operators"):
        FileShapes.of(graph, lambda model: next(files))
