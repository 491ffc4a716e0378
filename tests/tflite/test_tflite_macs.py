import numpy as np
import pytest

from edgeprune.tflite import flatbuffer, macs
from edgeprune.tflite.graph import Operator, Subgraph, Tensor

# Of the model in conftest.py: 16x16x3 image, stride 2.
EXPECTED = 8 * 8 * 8 * 3 * 3 * 3 + 8 * 8 * 8 * 3 * 3 + 8 * 8 * 8 * 8 + 128 * 32 + 32 * 10


@pytest.mark.parametrize("name", ["float32", "float16", "dynamic", "int8", "int8-io", "sparse"])
def test_macs_do_not_depend_on_the_number_format(artifacts, name):
    """Convolution, depthwise, 1x1 and dense layers count as by hand, in every format."""
    assert macs.macs(flatbuffer.read(artifacts[name])) == EXPECTED


def test_lstm(artifacts):
    """Four gates, each an input and a recurrent kernel, once per step."""
    assert macs.macs(flatbuffer.read(artifacts["lstm"])) == 5 * 4 * 12 * (6 + 12)


def operator(name, *shapes, output, **options):
    """A graph of one operator on tensors of these shapes."""
    tensors = [
        Tensor(i, str(i), shape, shape, "float32", None, None, False, False, memoryview(b""))
        for i, shape in enumerate([*shapes, output])
    ]
    inputs = tuple(range(len(shapes)))
    made = Operator(0, name, False, 1, inputs, (len(shapes),), options)
    return Subgraph("", tuple(tensors), (made,), inputs, (len(shapes),)), made


@pytest.mark.parametrize(
    ("arguments", "options", "output", "expected"),
    [
        (("CONV_2D", (1, 8, 8, 4), (6, 3, 3, 2), (6,)), {}, (1, 8, 8, 6), 8 * 8 * 6 * 3 * 3 * 2),  # two groups
        (("TRANSPOSE_CONV", (4,), (5, 3, 3, 2), (1, 4, 4, 2)), {}, (1, 8, 8, 5), 4 * 4 * 2 * 5 * 3 * 3),
        (("Convolution2DTransposeBias", (1, 4, 4, 3), (5, 2, 2, 3), (5,)), {}, (1, 8, 8, 5), 4 * 4 * 3 * 5 * 2 * 2),
        (("CONV_3D", (1, 4, 4, 4, 2), (3, 3, 3, 2, 5)), {}, (1, 4, 4, 4, 5), 64 * 5 * 27 * 2),
        (("BATCH_MATMUL", (2, 3, 4), (2, 4, 5)), {}, (2, 3, 5), 2 * 3 * 4 * 5),
        (("BATCH_MATMUL", (2, 4, 3), (2, 4, 5)), {"adj_x": True}, (2, 3, 5), 2 * 3 * 4 * 5),
        (("FULLY_CONNECTED", (7, 4), (5, 4)), {}, (7, 5), 7 * 4 * 5),
        (("ADD", (1, 8), (1, 8)), {}, (1, 8), 0),
    ],
)
def test_rules(arguments, options, output, expected):
    """Each rule counts the multiplications of its definition."""
    name, *shapes = arguments
    graph, made = operator(name, *shapes, output=output, **options)
    assert macs.operator_macs(graph, made) == expected


@pytest.mark.parametrize("name", sorted(macs.MAC_RULES))
def test_rules_survive_missing_shapes(name):
    """A damaged or unusual operator counts as none, and does not raise."""
    graph, made = operator(name, (), (), (), output=())
    assert macs.operator_macs(graph, made) >= 0
    lonely = Operator(0, name, False, 1, (), (), {})
    assert macs.operator_macs(graph, lonely) == 0


def test_mlperf_resnet8(shared_models):
    """The MLPerf Tiny ResNet8 has 12.5 million MACs, as published."""
    path = next(path for path in shared_models if path.name == "mlperf_tiny_resnet8_int8_reference.tflite")
    assert np.isclose(macs.macs(flatbuffer.read(path)), 12.5e6, rtol=1e-3)
