import csv
import dataclasses
import inspect
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from edgeprune.hardware.edgetpu import limits
from edgeprune.hardware.edgetpu.parameters import layer_bytes, operand_bytes, parameters
from edgeprune.hardware.edgetpu.rules import EDGE_TPU, OPERATORS
from edgeprune.hardware.edgetpu.summary import edgetpu_placement
from edgeprune.hardware.placement import PlacementRule, judge
from edgeprune.tflite.flatbuffer import read
from edgeprune.tflite.graph import Operator, Quantization, Subgraph, Tensor

SHARED = Path(__file__).parents[3].parent / "shared"
CORAL = SHARED / "data" / "coral"


@pytest.fixture(scope="module")
def oracle():
    if not (CORAL / "oracle.csv").is_file():
        pytest.skip("needs ../shared/data/coral")
    with (CORAL / "oracle.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def placements(oracle):
    return [edgetpu_placement(read(CORAL / row["file"]).subgraphs[0]) for row in oracle]


def left_by_the_compiler(row):
    parts = (part.rsplit(":", 1) for part in filter(None, row["ops_left_on_cpu"].split(";")))
    return Counter({name.removeprefix("CUSTOM:"): int(count) for name, count in parts})


def test_operators_are_placed_as_the_compiler_did(oracle, placements):
    """At least 97 % of the operators in published pairs of files are where edgetpu_compiler put them."""
    wrong = operators = 0
    for row, found in zip(oracle, placements, strict=True):
        left = Counter(op.name for op in found.operators if not op.on_accelerator)
        expected = left_by_the_compiler(row)
        wrong += sum(((left - expected) + (expected - left)).values()) + found.uncertain_ops
        operators += len(found.operators)
    assert wrong <= 0.03 * operators


def test_the_verdict_fully_mapped(oracle, placements):
    """At least 26 of 28 files are fully mapped exactly when the compiler mapped all."""
    right = [
        found.fully_mapped == (row["mapped_fully"] == "True") for row, found in zip(oracle, placements, strict=True)
    ]
    assert sum(right) >= 26


def test_cached_bytes(oracle, placements):
    """On 90 % of the files, the bytes cached on the chip are within 5 % of those in the compiled file."""
    near = [
        abs(found.cached_param_bytes - int(row["onchip_param_bytes"])) <= 0.05 * int(row["onchip_param_bytes"])
        for row, found in zip(oracle, placements, strict=True)
    ]
    assert sum(near) >= 0.9 * len(near)


def test_streamed_operands(oracle, placements):
    """Constants of additions and products are streamed, as in the one file that has them."""
    found = {row["family"]: place.streamed_param_bytes for row, place in zip(oracle, placements, strict=True)}
    assert found["asr_demo"] == 3072


# -- rules, on graphs made for them -----------------------------------------------------------------------------------


def tensor(shape, dtype="int8", data=None, signature=None, zero_point=0):
    stored = memoryview(data.tobytes()) if data is not None else memoryview(b"")
    quantization = Quantization((1.0,), (zero_point,), 0) if dtype in ("int8", "uint8") else None
    return Tensor(-1, "", shape, signature or shape, dtype, quantization, None, False, data is not None, stored)


def single(name, inputs, outputs, options=None, version=1, custom=False):
    """A graph of one operator; the inputs that are constants are known by their data."""
    tensors = [*inputs, *outputs]
    tensors = tuple(
        Tensor(i, f"t{i}", t.shape, t.signature, t.dtype, t.quantization, None, False, t.constant, t.stored)
        for i, t in enumerate(tensors)
    )
    indices = tuple(range(len(tensors)))
    operator = Operator(0, name, custom, version, indices[: len(inputs)], indices[len(inputs) :], options or {})
    return Subgraph("", tensors, (operator,), (0,), indices[len(inputs) :])


def ints(*values, dtype="int32"):
    import numpy as np

    data = np.array(values, dtype)
    return tensor(data.shape, dtype, data)


def weights(*shape, dtype="int8"):
    import numpy as np

    return tensor(shape, dtype, np.ones(shape, dtype))


IMAGE = tensor((1, 8, 8, 16))
CASES = {
    "convolution": (
        single("CONV_2D", [IMAGE, weights(8, 3, 3, 16), ints(0)], [tensor((1, 8, 8, 8))]), True, limits.MAPPED
    ),
    "float": (
        single("ADD", [tensor((1, 4), "float32")] * 2, [tensor((1, 4), "float32")]), False, limits.DATA_TYPE
    ),
    "hard-swish": (single("HARD_SWISH", [IMAGE], [IMAGE]), False, limits.UNSUPPORTED),
    "custom": (single("MyOp", [IMAGE], [IMAGE], custom=True), False, limits.DATA_TYPE),
    "compiled": (single("edgetpu-custom-op", [IMAGE], [IMAGE], custom=True), True, limits.MAPPED),
    "quantize from float": (
        single("QUANTIZE", [tensor((1, 4), "float32")], [tensor((1, 4))]), False, limits.LIMITATION
    ),
    "requantize": (single("QUANTIZE", [tensor((1, 4), "uint8")], [tensor((1, 4))]), True, limits.MAPPED),
    "batch of two": (single("LOGISTIC", [tensor((2, 8, 8, 3))], [tensor((2, 8, 8, 3))]), False, limits.RANK),
    "unknown batch": (
        single("LOGISTIC", [tensor((1, 8), signature=(-1, 8))], [tensor((1, 8), signature=(-1, 8))]), True,
        limits.MAPPED,
    ),
    "unknown width": (
        single("LOGISTIC", [tensor((1, 8), signature=(1, -1))], [tensor((1, 8))]), False,
        "Attempting to use a delegate that only supports static-sized tensors",
    ),
    "new version": (
        single("FULLY_CONNECTED", [tensor((1, 8)), weights(4, 8), ints(0)], [tensor((1, 4))], version=12), False,
        limits.VERSION,
    ),
    "two rows": (
        single("FULLY_CONNECTED", [tensor((3, 8)), weights(4, 8), ints(0)], [tensor((3, 4))]), False, limits.LIMITATION
    ),
    "computed weights": (
        single("FULLY_CONNECTED", [tensor((1, 8)), tensor((4, 8)), ints(0)], [tensor((1, 4))]), False, limits.LIMITATION
    ),
    "long softmax": (single("SOFTMAX", [tensor((1, 16_385))], [tensor((1, 16_385))]), False, limits.LIMITATION),
    "softmax": (single("SOFTMAX", [tensor((1, 1000))], [tensor((1, 1000))]), True, limits.MAPPED),
    "softmax of rows": (single("SOFTMAX", [tensor((1, 4, 10))], [tensor((1, 4, 10))]), None, limits.MAPPED),
    "resize from a pixel": (
        single("RESIZE_BILINEAR", [tensor((1, 1, 1, 8)), ints(9, 9)], [tensor((1, 9, 9, 8))]), False, limits.LIMITATION
    ),
    "large resize": (
        single("RESIZE_BILINEAR", [tensor((1, 256, 256, 3)), ints(512, 512)], [tensor((1, 512, 512, 3))]), False,
        limits.LIMITATION,
    ),
    "middling resize": (
        single("RESIZE_BILINEAR", [tensor((1, 64, 64, 3)), ints(200, 200)], [tensor((1, 200, 200, 3))]), None,
        limits.MAPPED,
    ),
    "resize": (
        single("RESIZE_BILINEAR", [tensor((1, 64, 64, 3)), ints(128, 128)], [tensor((1, 128, 128, 3))]), True,
        limits.MAPPED,
    ),
    "large mean": (
        single("MEAN", [tensor((1, 256, 128, 3)), ints(1, 2)], [tensor((1, 3))]), False, limits.LIMITATION
    ),
    "mean": (single("MEAN", [tensor((1, 64, 128, 3)), ints(1, 2)], [tensor((1, 3))]), True, limits.MAPPED),
    "mean over 6 channels": (single("MEAN", [tensor((1, 6)), ints(1)], [tensor((1, 1))]), False, limits.LIMITATION),
    "pad of the batch": (
        single("PAD", [tensor((1, 4, 4, 1)), ints(1, 0, 0, 0, 0, 0, 0, 0)], [tensor((2, 4, 4, 1))]), False, limits.RANK
    ),
    "slice with a step": (
        single("STRIDED_SLICE", [tensor((1, 8, 8, 4)), ints(0), ints(8), ints(2)], [tensor((1, 4, 4, 4))]), None,
        limits.MAPPED,
    ),
    "uneven dilation": (
        single(
            "CONV_2D", [IMAGE, weights(8, 3, 3, 16), ints(0)], [IMAGE], {"dilation_w_factor": 2, "dilation_h_factor": 1}
        ), False, limits.LIMITATION,
    ),
    "temporal dilation": (
        single(
            "CONV_2D", [tensor((1, 1, 64, 16)), weights(8, 1, 3, 16), ints(0)], [tensor((1, 1, 64, 8))],
            {"dilation_w_factor": 4, "dilation_h_factor": 1},
        ), True, limits.MAPPED,
    ),
    "tile": (single("TILE", [IMAGE, ints(1, 2, 1, 1)], [tensor((1, 16, 8, 16))]), True, limits.MAPPED),
    "tile of the batch": (single("TILE", [IMAGE, ints(2, 1, 1, 1)], [tensor((2, 8, 8, 16))]), False, limits.RANK),
    "fused pooling": (
        single("MAX_POOL_2D", [IMAGE], [IMAGE], {"fused_activation_function": "RELU"}), False, limits.LIMITATION
    ),
    "PReLU per pixel": (single("PRELU", [IMAGE, weights(8, 8, 16)], [IMAGE]), False, limits.LIMITATION),
    "PReLU per channel": (single("PRELU", [IMAGE, weights(1, 1, 16)], [IMAGE]), True, limits.MAPPED),
    "squeeze inside": (
        single("SQUEEZE", [tensor((1, 5, 1, 10))], [tensor((1, 5, 10))]), False, limits.LIMITATION
    ),
    "concatenated ones": (
        single("CONCATENATION", [IMAGE, weights(1, 8, 8, 4)], [tensor((1, 8, 8, 20))]), False, limits.LIMITATION
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_limit(name):
    """An operator beyond a limit stays on the CPU with the compiler's words; one within is mapped."""
    made, supported, status = CASES[name]
    verdict = judge(EDGE_TPU, made, made.operators[0])
    assert (verdict.supported, verdict.status) == (supported, status)


def test_every_rule_gives_reason_source_and_fix():
    """Each rule's docstring has a reason, then a source; and the rule says what to change."""
    rules = [value for _, value in inspect.getmembers(limits) if isinstance(value, PlacementRule)]
    assert len(rules) > 20
    for item in rules:
        assert len(item.reason) > 20, item.name
        assert "[" in item.check.__doc__.split("\n\n", 1)[1], item.name
        assert item.fix, item.name


def test_a_new_runtime_does_not_blame_the_list():
    """Every operator in the list is one that the schema knows."""
    import tflite

    assert {name for name in OPERATORS if not hasattr(tflite.BuiltinOperator, name)} == set()


# -- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "options", "expected"),
    [
        ("CONV_2D", (64, 1, 1, 64), "int8", {}, 4608),  # coral-usb-oxidized docs/conv_layout_probe.md
        ("CONV_2D", (32, 3, 3, 32), "int8", {}, 9472),  # phase4_conv2d_k3_param_region_2026-03-07.md
        ("CONV_2D", (64, 3, 3, 64), "int8", {}, 37376),
        ("CONV_2D", (128, 3, 3, 128), "int8", {}, 148480),
        ("FULLY_CONNECTED", (256, 256), "int8", {}, 67584),  # LibrEdgeTPU docs/HARDWARE_ANALYSIS.md, 66.00 KiB
        ("CONV_2D", (33, 3, 3, 33), "int8", {}, 48 * (9 * 36 + 8)),
        ("DEPTHWISE_CONV_2D", (1, 3, 3, 32), "uint8", {}, 32 * 40),
        ("DEPTHWISE_CONV_2D", (1, 3, 3, 32), "uint8", {"dilation_h_factor": 2, "dilation_w_factor": 2}, 32 * 40),
        ("CONV_2D", (96, 1, 1, 64), "int8", {}, 128 * (64 + 8)),
        ("FULLY_CONNECTED", (65, 64), "int8", {}, 128 * (64 + 8)),
        ("CONV_2D", (1, 1, 1, 3), "uint8", {}, 64),
    ],
)
def test_bytes_of_a_layer(name, shape, dtype, options, expected):
    """Layers take the bytes that others found in compiled files."""
    made = single(name, [IMAGE, weights(*shape, dtype=dtype), ints(0)], [tensor((1, 8, 8, shape[-1]))], options)
    assert layer_bytes(made, made.operators[0]) == expected


def test_a_layer_that_does_not_fit_is_streamed():
    """A layer larger than the cache, or than a tile's share of it, is streamed whole (logs: dense 8192, FC 1x94400)."""
    made = single("FULLY_CONNECTED", [tensor((1, 94_400)), weights(1, 94_400), ints(0)], [tensor((1, 1))])
    found = parameters(made, {0}, 8_000_000)
    assert found.cached == {0: 0}
    assert found.streamed[0] > 16 * 94_400


def test_all_layers_after_one_that_does_not_fit_are_streamed():
    """A dense layer of 64 outputs lies in one of 16 tiles, full at 512 KiB; a small one behind is streamed too."""
    row = tensor((1, 8100))
    long, small = (
        single("FULLY_CONNECTED", [row, weights(outputs, 8100), ints(0)], [tensor((1, outputs))]) for outputs in (64, 1)
    )
    fitting = parameters(long, {0})
    assert (fitting.cached[0], fitting.streamed[0]) == (64 * (8100 + 8), 0)
    three = single("FULLY_CONNECTED", [row, weights(64, 8100), ints(0)], [tensor((1, 64))])
    operators = tuple(dataclasses.replace(three.operators[0], index=index) for index in range(2))
    found = parameters(dataclasses.replace(three, operators=operators), range(2))
    assert [size > 0 for size in found.streamed.values()] == [False, True]
    assert parameters(small, {0}).streamed[0] == 0
    behind = dataclasses.replace(
        small.operators[0], index=2, inputs=tuple(i + 4 for i in small.operators[0].inputs), outputs=(7,)
    )
    chain = dataclasses.replace(three, tensors=(*three.tensors, *small.tensors), operators=(*operators, behind))
    assert parameters(chain, range(3)).streamed[2] > 0


@pytest.mark.parametrize(("shape", "expected"), [((32,), 512), ((1, 8, 8, 16), 1024), ((1,), 64)])
def test_bytes_of_an_elementwise_constant(shape, expected):
    """What is spread over positions takes 16 bytes for each element, what is as large as the output takes one."""
    made = single("MUL", [IMAGE, weights(*shape)], [IMAGE])
    assert operand_bytes(made, made.operators[0]) == expected


@pytest.mark.parametrize(("filters", "streamed"), [(432, 0), (452, 1), (512, 1), (532, 2), (632, 2), (652, 3)])
def test_kernels_take_whole_blocks_of_the_cache(filters, streamed):
    """As many of four equal 3x3 convolutions are streamed as the jumps in published latencies of such chains tell."""
    image = tensor((1, 64, 64, filters))
    convolution = single("CONV_2D", [image, weights(filters, 3, 3, filters), ints(0)], [image])
    operators = tuple(dataclasses.replace(convolution.operators[0], index=index) for index in range(4))
    chain = dataclasses.replace(convolution, operators=operators)
    found = parameters(chain, range(4)).streamed
    assert sum(size > 0 for size in found.values()) == streamed


def test_placement_needs_no_tensorflow():
    """The rules and the reader import neither TensorFlow nor a runtime."""
    code = (
        "import sys, edgeprune.hardware.edgetpu.summary, edgeprune.hardware.delegates, edgeprune.checking.check;"
        "sys.exit(', '.join({'tensorflow', 'tf_keras', 'ai_edge_litert'} & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
