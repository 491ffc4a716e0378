"""What `check` finds about files for microcontrollers."""

import dataclasses

import pytest

from edgeprune.checking.check import Subject, check
from edgeprune.target import load_target
from edgeprune.tflite.encode import encoded
from edgeprune.tflite.flatbuffer import read

pytest.importorskip("tflite_micro", reason="edgeprune[micro] is not installed")


@pytest.fixture(scope="module")
def board():
    return load_target("arduino-nano33")


def test_a_file_that_runs_has_no_findings(micro_file, board, tmp_path):
    """Plain, and with encoded weights, which no other runtime takes."""
    path = tmp_path / "coded.tflite"
    path.write_bytes(encoded(micro_file.read_bytes()).content)
    assert [check([Subject(one, read(one))], board) for one in (micro_file, path)] == [[], []]


def test_formats_that_it_does_not_run(artifacts, board):
    """Weights in int8 beside floats are refused in the interpreter's words, with what to do."""
    (finding,) = check([Subject(artifacts["dynamic"], read(artifacts["dynamic"]))], board)
    assert (finding.severity, finding.checker) == ("error", "microcontroller")
    assert "FLOAT32 with filter type: INT8 not supported" in finding.what
    assert "int8" in finding.fix


def test_operators_that_it_does_not_have(micro_file, board):
    """Are named with their place."""
    file = read(micro_file)
    graph = file.subgraphs[0]
    unknown = dataclasses.replace(graph.operators[-1], name="STABLEHLO_ADD")
    graph = dataclasses.replace(graph, operators=(*graph.operators[:-1], unknown))
    changed = dataclasses.replace(
        file, subgraphs=(graph,), operator_codes=(*file.operator_codes, ("STABLEHLO_ADD", False, 1))
    )
    (finding,) = check([Subject(micro_file, changed)], board)
    assert finding.what == "STABLEHLO_ADD is not among the operators of TensorFlow Lite Micro."
    assert finding.where == (f"{unknown.index} STABLEHLO_ADD",)


def test_scales_along_a_wrong_axis(micro_file, board):
    """The interpreter would run such a file, and compute nonsense."""
    file = read(micro_file)
    graph = file.subgraphs[0]
    operator = next(one for one in graph.operators if one.name == "DEPTHWISE_CONV_2D")
    tensor = graph.tensors[operator.inputs[1]]
    moved = dataclasses.replace(tensor, quantization=dataclasses.replace(tensor.quantization, axis=0))
    graph = dataclasses.replace(graph, tensors=tuple(moved if one is tensor else one for one in graph.tensors))
    (finding,) = check([Subject(micro_file, dataclasses.replace(file, subgraphs=(graph,)))], board)
    assert finding.severity == "error"
    assert "along axis 0" in finding.what
    assert "along axis 3" in finding.what
    assert finding.where == (f"{operator.index} DEPTHWISE_CONV_2D",)


def test_memory_that_a_board_does_not_have(micro_file, board):
    """Flash and RAM are named with both numbers."""
    small = board.model_copy(update={"micro": board.micro.model_copy(update={"flash_bytes": 9, "ram_bytes": 10})})
    flash, ram = check([Subject(micro_file, read(micro_file))], small)
    assert "bytes of flash, and arduino-nano33 has 9." in flash.what
    assert "bytes of RAM, and arduino-nano33 has 10." in ram.what
