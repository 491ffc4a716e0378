import random

import pytest

from edgeprune.tflite import flatbuffer, memory
from edgeprune.tflite.graph import Operator, Subgraph, Tensor
from edgeprune.tflite.scratch import scratch as scratch_of


def measured(path, graph):
    """Addresses of tensors in an interpreter without delegates, and the addresses and sizes of its scratch memory."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=resolver, num_threads=1)
    interpreter.allocate_tensors()
    addresses, scratch = {}, []
    for detail in interpreter.get_tensor_details():
        try:
            array = interpreter.tensor(detail["index"])()
        except ValueError:  # not allocated
            continue
        address = array.__array_interface__["data"][0]
        if detail["index"] < len(graph.tensors):
            addresses[detail["index"]] = address
        else:
            scratch.append((address, array.nbytes))
    return addresses, scratch


def compare(path):
    """The planned arena, the measured one, and the tensors that do not lie where planned."""
    graph = flatbuffer.read(path).subgraphs[0]
    plan = memory.plan(graph)
    addresses, scratch = measured(path, graph)
    planned = {block.tensor: block for block in plan.allocations if block.tensor >= 0}
    first = min(graph.inputs)
    base = addresses[first] - planned[first].offset
    ends = [addresses[index] + block.nbytes - base for index, block in planned.items()]
    # Persistent scratch memory lies in another arena, close by or far away; the interpreter does not say which.
    persistent = {nbytes for operator in graph.operators for nbytes in scratch_of(graph, operator).persistent}
    ends += [
        end
        for address, nbytes in scratch
        if nbytes not in persistent and 0 <= (end := address + nbytes - base) <= 2 * plan.arena_bytes
    ]
    moved = [index for index, block in planned.items() if addresses[index] - base != block.offset]
    return plan.arena_bytes, max(ends), moved


@pytest.mark.parametrize("name", ["float32", "float16", "dynamic", "int8", "int8-io", "sparse", "lstm"])
def test_plan_is_the_interpreters(artifacts, name):
    """Every tensor of the tiny files lies exactly where the plan puts it, and the arena has the planned size."""
    planned, found, moved = compare(artifacts[name])
    assert (planned, moved) == (found, [])


def test_plan_of_real_files(shared_models):
    """On real files the planned arena is within 2 % of the interpreter's."""
    runnable = [path for path in shared_models if "decoder" not in path.name]  # these have custom operators
    for path in runnable:
        planned, found, _ = compare(path)
        assert planned == pytest.approx(found, rel=0.02), path.name


def test_plan_is_sound(artifacts):
    """Blocks that are alive together do not overlap, are aligned, and the arena is no smaller than the peak."""
    for path in artifacts.values():
        plan = memory.plan(flatbuffer.read(path).subgraphs[0])
        for index, block in enumerate(plan.allocations):
            assert block.offset % memory.ALIGNMENT_BYTES == 0
            for other in plan.allocations[:index]:
                apart = other.offset + other.nbytes <= block.offset or block.offset + block.nbytes <= other.offset
                assert apart or other.last < block.first or block.last < other.first
        assert 0 < plan.peak_bytes <= plan.arena_bytes


def every_block(blocks):
    """The plan as the runtime makes it: each block looks at all that are placed (SimpleMemoryArena::Allocate)."""
    placed = []
    first_come = sorted((b for b in blocks if b[4] and b[1] == 0), key=lambda b: b[3])
    others = sorted((b for b in reversed(blocks) if not (b[4] and b[1] == 0)), key=lambda b: (-b[0], b[1]))
    for nbytes, first, last, tensor, _ in first_come + others:
        together = [block for block in placed if not (block.last < first or block.first > last)]
        offset = memory._offset(together, nbytes)
        placed = sorted([*placed, memory.Allocation(tensor, nbytes, offset, first, last)], key=lambda b: b.offset)
    return placed


def test_blocks_that_do_not_meet_in_time_need_not_be_looked_at():
    """On random lifetimes and sizes, looking only at what is alive together gives the plan of looking at all."""
    generator = random.Random(1)
    for _ in range(60):
        operators, blocks = generator.randint(1, 30), []
        for tensor in range(generator.randint(1, 60)):
            first, whole = generator.randrange(operators), generator.random() < 0.1
            last = operators - 1 if whole else min(operators - 1, first + generator.choice([0, 1, 1, 2, 20]))
            blocks.append(
                (generator.choice([1, 64, 100, 4096, generator.randint(1, 10_000)]), first, last, tensor, whole)
            )
        assert memory._allocate(blocks) == every_block(blocks)


def test_weights_are_persistent_only_when_unpacked(artifacts):
    """float16 and sparse files unpack their weights into a second arena; plain float32 runs from the file."""
    sizes = {name: memory.plan(flatbuffer.read(path).subgraphs[0]).persistent_bytes for name, path in artifacts.items()}
    assert sizes["float32"] == 0
    assert sizes["float16"] >= 4 * (8 * 27 + 8 * 8 + 128 * 32)
    assert sizes["sparse"] > 0
    assert sizes["lstm"] == 64 + 4 * 12  # two states of 12 floats, the second aligned


def test_shapes_known_at_run_time_are_marked():
    """A RESHAPE whose shape is computed makes its output, and the plan, dynamic."""

    def tensor(index, shape, dtype):
        return Tensor(index, "", shape, shape, dtype, None, None, False, False, memoryview(b""))

    tensors = (tensor(0, (1, 8), "float32"), tensor(1, (2,), "int32"), tensor(2, (8, 1), "float32"))
    reshape = Operator(0, "RESHAPE", False, 1, (0, 1), (2,), {})
    plan = memory.plan(Subgraph("", tensors, (reshape,), (0, 1), (2,)))
    assert plan.dynamic
    assert {block.tensor for block in plan.allocations} == {0, 1}
