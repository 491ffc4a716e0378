"""Latency estimates: what grows with work, shrinks with threads, and depends on nothing else."""

import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import UsageError
from edgeprune.hardware.latency.estimate import DOUBT_FACTOR, available, clock, predict, warnings
from edgeprune.hardware.latency.features import COST_OF_NONZERO, PARALLEL, caches_of, works
from edgeprune.profiling.profile import profile
from edgeprune.target import CpuSeconds, load_target, target_names, with_runtime
from edgeprune.tflite.graph import Operator, Subgraph, Tensor

BOARDS = [name for name in target_names() if load_target(name).latency]
CPUS = [name for name in BOARDS if load_target(name).cpu]


def tensor(index, shape, dtype, constant=False):
    return Tensor(index, f"t{index}", shape, shape, dtype, None, None, False, constant, memoryview(b""))


def network(layers, dtype="float32"):
    """A graph of a chain of (operator, kernel shape or None, output shape)."""
    tensors, operators = [tensor(0, (1, 32, 32, 8), dtype)], []
    previous = 0
    for name, kernel, shape in layers:
        inputs = [previous]
        if kernel:
            tensors.append(tensor(len(tensors), kernel, dtype, constant=True))
            inputs.append(len(tensors) - 1)
        tensors.append(tensor(len(tensors), shape, dtype))
        previous = len(tensors) - 1
        operators.append(Operator(len(operators), name, False, 1, tuple(inputs), (previous,), {}))
    return Subgraph("main", tuple(tensors), tuple(operators), (0,), (previous,))


def convolutions(channels, side=32, depth=3, dtype="float32"):
    first = ("CONV_2D", (channels, 3, 3, 8), (1, side, side, channels))
    rest = ("CONV_2D", (channels, 1, 1, channels), (1, side, side, channels))
    return network([first, *[rest] * (depth - 1)], dtype)


def with_biases(graph):
    """The same with a bias for each operator, without which XNNPACK takes no convolution."""
    count = len(graph.tensors)
    biases = [tensor(count + op.index, (8,), "int32", constant=True) for op in graph.operators]
    operators = [replace(op, inputs=(*op.inputs, count + op.index)) for op in graph.operators]
    return replace(graph, tensors=(*graph.tensors, *biases), operators=tuple(operators))


def median_ms(graph, target, **options):
    board = load_target(target) if isinstance(target, str) else target
    return predict(graph, board, **options).estimate.median_ms


@pytest.mark.parametrize("name", CPUS)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@settings(max_examples=15, deadline=None)
@given(channels=st.integers(1, 300), more=st.integers(1, 40), side=st.integers(1, 64), depth=st.integers(1, 5))
def test_more_work_takes_longer(name, dtype, channels, more, side, depth):
    """Larger images, more layers, and channels in more vectors of eight never make an estimate shorter. Seven channels
    can take longer than eight, where they are computed two at a time."""
    target = load_target(name)
    full = -(-channels // 8) * 8
    for kernels in available(target):
        base = median_ms(convolutions(channels, side, depth, dtype), name, kernels=kernels)
        filled = median_ms(convolutions(full, side, depth, dtype), name, kernels=kernels)
        assert filled <= median_ms(convolutions(full + 8 * more, side, depth, dtype), name, kernels=kernels)
        assert base <= median_ms(convolutions(channels, side + 1, depth, dtype), name, kernels=kernels)
        assert base < median_ms(convolutions(channels, side, depth + 1, dtype), name, kernels=kernels)


@pytest.mark.parametrize("name", CPUS)
def test_more_threads_help_up_to_the_cores(name):
    """Each thread makes a model of convolutions faster, by less than its share; those beyond the cores do nothing."""
    target, graph = load_target(name), convolutions(64)
    for kernels in available(target):
        times = [median_ms(graph, name, kernels=kernels, threads=count) for count in range(1, target.cpu.cores + 1)]
        assert times == sorted(times, reverse=True)
        assert times[0] / len(times) < times[-1] < times[0]
        assert median_ms(graph, name, kernels=kernels, threads=99) == times[-1]


@pytest.mark.parametrize("name", BOARDS)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_ranges_contain_their_median_and_operators_their_sum(name, dtype):
    """low < median < high, derived boards have a wider range than the fitted rpi4, and operators add up."""
    target = load_target(name)
    for kernels in available(target):
        found = predict(convolutions(32, dtype=dtype), target, kernels)
        estimate = found.estimate
        assert 0 < estimate.low_ms < estimate.median_ms < estimate.high_ms
        assert len(found.operator_ms) == 3
        assert sum(found.operator_ms) <= estimate.median_ms * (1 + 1e-9)
        if estimate.origin == "derived":
            assert estimate.high_ms / estimate.low_ms > 2


def test_a_free_operator_costs_nothing():
    """A reshape takes no time; every other operator does."""
    graph = network([("RESHAPE", None, (1, 8192)), ("SOFTMAX", None, (1, 8192)), ("NEVER_SEEN", None, (1, 8192))])
    reshape, softmax, unknown = predict(graph, load_target("rpi4")).operator_ms
    assert reshape == 0
    assert softmax > 0
    assert unknown > 0


def test_dot_products_make_int8_faster():
    """int8 gains more over float32 on a board with dot-product instructions than on one without."""
    gains = {
        name: median_ms(convolutions(256), name, kernels="builtin")
        / median_ms(convolutions(256, dtype="int8"), name, kernels="builtin")
        for name in ("rpi4", "pixel4")
    }
    assert gains["pixel4"] > gains["rpi4"] > 1


def test_sparse_kernels_cost_by_what_is_not_zero():
    """With a tenth of the weights left, the products cost COST_OF_NONZERO tenths; near dense never more than dense."""
    graph, target = convolutions(64), load_target("rpi4")
    dense = works(graph, "xnnpack", caches_of(target))[1].amounts
    sparse = works(graph, "xnnpack", caches_of(target), {1: 0.1})[1].amounts
    nearly = works(graph, "xnnpack", caches_of(target), {1: 0.9})[1].amounts
    assert sparse["conv_macs"] == pytest.approx(0.1 * COST_OF_NONZERO * dense["conv_macs"])
    assert nearly == dense


def lstm(steps, features, units, dtype="float32"):
    """One fused LSTM: input and recurrent kernels of four gates."""
    tensors = [tensor(0, (1, steps, features), dtype)]
    tensors += [tensor(1 + gate, (units, features), dtype, constant=True) for gate in range(4)]
    tensors += [tensor(5 + gate, (units, units), dtype, constant=True) for gate in range(4)]
    tensors.append(tensor(9, (1, steps, units), dtype))
    operator = Operator(0, "UNIDIRECTIONAL_SEQUENCE_LSTM", False, 1, tuple(range(9)), (9,), {})
    return Subgraph("main", tuple(tensors), (operator,), (0,), (9,))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_fused_lstm_is_counted_per_step(dtype):
    """Products with both kernels of four gates in each step, and the work of each cell; the format is the kernels'."""
    (work,) = works(lstm(10, 6, 16, dtype), "builtin", caches_of(load_target("rpi4")))
    assert work.dtype == dtype
    assert work.amounts["dense_macs"] == 10 * 4 * 16 * (6 + 16)
    assert work.amounts["nonlinear_elements"] > 10 * 16 * 5  # sigmoids and tanhs


def test_what_was_never_measured_has_a_wider_range_and_says_so():
    """A fused LSTM's estimate, and that of hundreds of small operators, is wider; a warning says why."""
    board, spread = load_target("rpi4"), {}
    unrolled = network([("ADD", None, (1, 32))] * 400)
    graphs = {"UNIDIRECTIONAL_SEQUENCE_LSTM": lstm(10, 6, 16), "small operators": unrolled, "": convolutions(8)}
    for word, graph in graphs.items():
        estimate = predict(graph, board, "xnnpack").estimate
        assert estimate.low_ms < estimate.median_ms < estimate.high_ms
        spread[word] = estimate.high_ms / estimate.low_ms
        said = warnings(graph, board, estimate)
        assert word in said[0] if word else said == []
    for word in ("UNIDIRECTIONAL_SEQUENCE_LSTM", "small operators"):
        assert spread[word] == pytest.approx(DOUBT_FACTOR**2 * spread[""])


@pytest.mark.parametrize(
    ("units", "dtype", "slower"), [(16, "int8", True), (512, "int8", False), (16, "float32", False)]
)
def test_int8_recurrent_layers_that_are_slower_than_float_are_said_to_be(units, dtype, slower):
    """A small LSTM loses more by its gates than its products gain; a large one gains, and float is never slower."""
    board, graph = load_target("rpi4"), lstm(10, 6, units, dtype)
    said = warnings(graph, board, predict(graph, board).estimate)
    assert any("int8 is estimated to take" in text for text in said) == slower


def test_the_squared_difference_of_integers_costs_more_than_their_sum():
    """Layer normalization's operator has a slow kernel in int8; in float32 it is one pass like others."""
    board, shape = load_target("rpi4"), (1, 32, 32, 8)
    for dtype, slower in (("int8", True), ("float32", False)):
        difference, total = (
            predict(network([(name, None, shape)] * 20, dtype), board).estimate.median_ms
            for name in ("SQUARED_DIFFERENCE", "ADD")
        )
        assert (difference > 5 * total) == slower


def test_odd_channels_are_said_where_they_are_priced():
    """60 channels of a float 1x1 convolution are computed in pairs by one runtime, and by the other they are not."""
    graph = with_biases(convolutions(60))
    for runtime, number in (("ai-edge-litert 2.1.6", 1), ("tflite-runtime 2.14.0", 0)):
        board = with_runtime(load_target("rpi4"), runtime)
        said = warnings(graph, board, predict(graph, board).estimate)
        assert sum("60 output channels" in text for text in said) == number


def test_threads_gain_less_where_weights_are_read_again():
    """All cores read weights the same way: kernels beyond the first cache leave four threads less to gain."""
    board, gains = load_target("rpi4"), []
    for channels in (32, 512):
        graph = with_biases(convolutions(channels, side=28))
        one, four = (predict(graph, board, "xnnpack", threads).estimate.median_ms for threads in (1, 4))
        gains.append(one / four)
    assert 1 < gains[1] < gains[0] < 4


def test_amounts_are_the_coefficients_names():
    """Every amount of every operator has a coefficient, and every parallel term is one."""
    names = ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "LOGISTIC", "MEAN", "PAD", "MAX_POOL_2D", "LSTM"]
    graph = network([(name, (8, 3, 3, 8) if "CONV" in name else None, (1, 32, 32, 8)) for name in names])
    for kernels, parallel in PARALLEL.items():
        assert parallel <= set(CpuSeconds.model_fields)
        for work in works(graph, kernels, caches_of(load_target("rpi4"))):
            assert set(work.amounts) <= set(CpuSeconds.model_fields)
            assert min(work.amounts.values()) >= 0


def test_parameters_beyond_the_cache_are_streamed():
    """An Edge TPU model is much slower once its parameters do not fit, and slower than one with all of them cached."""
    fits = network([("FULLY_CONNECTED", (960, 8000), (1, 960))], "int8")
    streams = network([("FULLY_CONNECTED", (1088, 8000), (1, 1088))], "int8")
    assert median_ms(streams, "coral") > 5 * median_ms(fits, "coral")
    small = convolutions(128, dtype="int8")
    coral = load_target("coral")
    tiny = coral.model_copy(update={"accelerator": coral.accelerator.model_copy(update={"parameter_cache_bytes": 64})})
    assert median_ms(small, tiny) > median_ms(small, coral)


def test_what_is_not_mapped_runs_on_the_host():
    """A float model on an Edge TPU target takes what the host's kernels take."""
    graph, target = convolutions(32), load_target("coral")
    assert median_ms(graph, "coral") == pytest.approx(median_ms(graph, "coral", kernels="builtin"))
    mixed = predict(convolutions(32, dtype="int8"), target, on_chip={0}).operator_ms
    host = predict(convolutions(32, dtype="int8"), target, "builtin").operator_ms
    assert mixed[1:] == host[1:]
    assert mixed[0] != host[0]


def test_what_xnnpack_leaves_runs_with_the_built_in_kernels():
    """An operator that XNNPACK does not take costs the same with and without XNNPACK; what it takes does not."""
    graph = network([("LOGISTIC", None, (1, 32, 32, 8)), ("CUMSUM", None, (1, 32, 32, 8))])
    kernels = ("xnnpack", "builtin")
    delegated, built_in = (predict(graph, load_target("rpi4"), name).operator_ms for name in kernels)
    assert delegated[1] == built_in[1] > 0
    assert delegated[0] != built_in[0]


@pytest.mark.parametrize(
    ("runtime", "dtype", "kernels"),
    [
        ("ai-edge-litert 2.1.6", "int8", "xnnpack"),
        ("ai-edge-litert 2.1.6", "float32", "xnnpack"),
        ("tflite-runtime 2.14.0", "int8", "builtin"),
        ("tflite-runtime 2.14.0", "float32", "xnnpack"),
    ],
)
def test_the_runtime_and_the_number_format_choose_the_kernels(runtime, dtype, kernels):
    """tflite-runtime keeps int8 to its built-in kernels; asked for XNNPACK, the estimate is for XNNPACK."""
    target, graph = with_runtime(load_target("rpi4"), runtime), with_biases(convolutions(16, dtype=dtype))
    chosen = predict(graph, target)
    assert chosen.estimate.kernels == kernels
    assert chosen.estimate.median_ms == predict(graph, target, kernels).estimate.median_ms
    milliseconds = clock(graph, target)
    assert sum(milliseconds(graph, operator) for operator in graph.operators) == pytest.approx(sum(chosen.operator_ms))
    assert predict(graph, target, "xnnpack").estimate.median_ms < predict(graph, target, "builtin").estimate.median_ms


def test_odd_channels_of_float_products_cost_more():
    """60 channels of a 1x1 convolution take 1.43 times the work of 64 under ai-edge-litert, 63 and 64 the same."""

    def macs(channels, runtime):
        layers = [("CONV_2D", (channels, 1, 1, 64), (1, 16, 16, channels))]
        caches = caches_of(with_runtime(load_target("rpi4"), runtime))
        (only,) = works(network(layers), "xnnpack", caches)
        return only.amounts["conv_macs"]

    recent, old = "ai-edge-litert 2.1.6", "tflite-runtime 2.14.0"
    assert macs(60, recent) / macs(64, recent) == pytest.approx(542 / 378, rel=0.01)
    assert macs(34, recent) / macs(40, recent) == pytest.approx(309 / 238, rel=0.01)
    assert macs(63, recent) == pytest.approx(macs(64, recent))
    assert macs(60, old) == pytest.approx(macs(64, old))


def only_amount(layer, dtype, kernels, term):
    (only,) = works(network([layer], dtype), kernels, caches_of(load_target("rpi4")))
    return only.amounts[term]


@pytest.mark.parametrize(
    ("dtype", "kernels", "window", "cycles"),
    [
        ("float32", "xnnpack", 3, {4: 45, 8: 71, 12: 94, 16: 115, 24: 160, 64: 381, 128: 735}),
        ("float32", "xnnpack", 5, {8: 167, 16: 273, 64: 912, 128: 1764}),
        ("int8", "xnnpack", 3, {4: 58, 8: 56, 12: 91, 16: 76, 24: 113, 64: 227, 128: 429}),
        ("int8", "xnnpack", 5, {8: 156, 16: 198, 24: 304, 64: 580, 128: 1090}),
        ("float32", "builtin", 3, {8: 77, 12: 469, 16: 236, 24: 458, 64: 608, 128: 1104}),
        ("int8", "builtin", 3, {8: 42, 16: 69, 20: 557, 24: 96, 64: 230, 128: 471}),
        ("int8", "builtin", 5, {20: 1140, 24: 1037, 64: 2033, 128: 3820}),
    ],
)
def test_narrow_depthwise_convolutions_cost_what_was_counted(dtype, kernels, window, cycles):
    """Relative to 64 channels, work is within 25 % of cycles on the emulated Cortex-A72: rows that are not filled, and
    the start of each, cost too."""

    def work(channels):
        layer = ("DEPTHWISE_CONV_2D", (1, window, window, channels), (1, 16, 16, channels))
        return only_amount(layer, dtype, kernels, "depthwise_macs")

    for channels, counted in cycles.items():
        assert work(channels) / work(64) == pytest.approx(counted / cycles[64], rel=0.25)


def test_few_channels_of_a_float_convolution_are_computed_in_pairs():
    """Four channels of 3x3 windows save a quarter of eight channels' work, seven cost more than eight."""

    def work(channels):
        return only_amount(("CONV_2D", (channels, 3, 3, 16), (1, 16, 16, channels)), "float32", "xnnpack", "conv_macs")

    assert work(4) / work(8) == pytest.approx(274 / 390, rel=0.1)
    assert work(7) / work(8) == pytest.approx(542 / 390, rel=0.1)
    assert work(3) == pytest.approx(work(4))


def test_kernels_and_threads_that_make_no_sense_are_refused():
    """Kernels without coefficients, and no threads, are usage errors that name what there is."""
    with pytest.raises(UsageError, match="one of: xnnpack, builtin"):
        predict(convolutions(8), load_target("rpi4"), "edgetpu")
    with pytest.raises(UsageError, match="threads"):
        predict(convolutions(8), load_target("rpi4"), threads=0)


def test_a_target_without_coefficients_has_no_estimate():
    """Nothing is made up for a board that nobody measured or derived."""
    target = load_target("rpi4").model_copy(update={"latency": None})
    assert predict(convolutions(8), target) is None
    assert available(target) == ()


def test_the_files_name_does_not_matter(shared_models, tmp_path):
    """A copy under another name has the same estimate, by operator too."""
    copy = tmp_path / "mobilenet_v1_fast.tflite"
    shutil.copy(shared_models[0], copy)
    one, other = profile(shared_models[0], "rpi4"), profile(copy, "rpi4")
    assert (one.latency, one.operators) == (other.latency, other.operators)


def test_all_real_files_have_estimates(shared_models):
    """Every real file gets a positive estimate on every board that has coefficients, and nothing on the others."""
    from edgeprune.tflite.flatbuffer import read

    for path in shared_models:
        graph = read(path).subgraphs[0]
        for name in BOARDS:
            assert predict(graph, load_target(name)).estimate.median_ms > 0


def test_no_tensorflow_at_prediction_time():
    """Estimating imports neither TensorFlow, nor a runtime, nor scipy."""
    code = (
        "import sys; import edgeprune.hardware.latency.estimate;"
        "sys.exit(', '.join({'tensorflow', 'ai_edge_litert', 'scipy', 'matplotlib'} & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def attention(steps, depth, dtype):
    """One product of two tensors, and a softmax of its rows."""
    tensors = (
        tensor(0, (1, 4, steps, depth), dtype),
        tensor(1, (1, 4, depth, steps), dtype),
        tensor(2, (1, 4, steps, steps), dtype),
        tensor(3, (1, 4, steps, steps), dtype),
    )
    operators = (
        Operator(0, "BATCH_MATMUL", False, 1, (0, 1), (2,), {}),
        Operator(1, "SOFTMAX", False, 1, (2,), (3,), {}),
    )
    return Subgraph("main", tensors, operators, (0, 1), (3,))


@pytest.mark.parametrize(("steps", "depth", "cycles"), [(40, 8, 297_450), (64, 16, 860_152), (128, 32, 4_348_610)])
def test_integer_products_of_tensors_cost_what_was_counted(steps, depth, cycles):
    """An int8 BATCH_MATMUL is within 15 % of its cycles on the emulated Cortex-A72, on four threads as on one."""
    board = load_target("rpi4")
    for threads in (1, 4):
        first = predict(attention(steps, depth, "int8"), board, threads=threads).operator_ms[0]
        assert first == pytest.approx(cycles / 1.5e6, rel=0.15)
    floats = predict(attention(steps, depth, "float32"), board, threads=1).operator_ms[0]
    assert floats < first / 2


def test_rows_of_a_softmax_cost():
    """As many elements in short rows take longer than in long ones."""
    board = load_target("rpi4")
    short, long_ = (network([("SOFTMAX", None, (1, rows, 4096 // rows))], "int8") for rows in (512, 32))
    assert median_ms(short, board, threads=1) > 2 * median_ms(long_, board, threads=1)


def test_a_dense_layer_on_many_rows_is_a_1x1_convolution():
    """The steps of a sequence share weights as the pixels of an image do."""
    dense = network([("FULLY_CONNECTED", (64, 8), (1, 100, 64))])
    conv = network([("CONV_2D", (64, 1, 1, 8), (1, 10, 10, 64))])
    both = [median_ms(graph, "rpi4", kernels="builtin") for graph in (dense, conv)]
    assert both[0] == pytest.approx(both[1], rel=0.01)


def test_16_bit_activations_are_slow_on_every_number_of_threads():
    """Plain loops on one thread take several times as long as int8's kernels, and the range says that it is a guess."""
    short, byte = (convolutions(32, dtype=dtype) for dtype in ("int16", "int8"))
    for threads in (1, 4):
        assert median_ms(short, "rpi4", threads=threads) > 4 * median_ms(byte, "rpi4", threads=threads)
    found = predict(short, load_target("rpi4")).estimate
    assert found.kernels == "builtin"
    assert found.high_ms / found.low_ms > DOUBT_FACTOR**2
    assert any("16-bit" in said for said in warnings(short, load_target("rpi4"), found))
