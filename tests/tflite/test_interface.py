"""The inputs and outputs of a file under the user's names, in the model's order."""

import dataclasses

import numpy as np
import pytest
from tiny_files import Given, tflite_of

from edgeprune.convert.converter import convert
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.tflite.flatbuffer import parse
from edgeprune.tflite.interface import BUFFER_NAME, interface, other_signatures, with_interface
from edgeprune.tflite.splice import with_buffer


@pytest.fixture(scope="module")
def content():
    """Inputs zulu [2] and yankee [3], outputs whiskey [4] and victor [5], which a signature sorts."""
    import tf_keras

    layers = tf_keras.layers
    inputs = [layers.Input([2], name="zulu"), layers.Input([3], name="yankee")]
    x = layers.Concatenate()(inputs)
    model = tf_keras.Model(inputs, [layers.Dense(4, name="whiskey")(x), layers.Dense(5, name="victor")(x)])
    return convert(model, QuantizationPlan("float32", "float", needs_samples=False), None)


OUTPUTS = [["direction", "whiskey"], ["victor"]]


def test_the_order_of_the_model_is_kept(content):
    """With what a build writes, inputs and outputs have the model's order, their shapes, and all their names."""
    found = interface(parse(with_interface(content, ["zulu", "yankee"], OUTPUTS, padded=True)))
    assert [port.signature for port in found.inputs] == ["zulu", "yankee"]
    assert [port.names for port in found.outputs] == [("direction", "whiskey"), ("victor",)]
    assert [port.tensor.shape for port in (*found.inputs, *found.outputs)] == [(1, 2), (1, 3), (1, 4), (1, 5)]
    assert [port.place for port in (*found.inputs, *found.outputs)] == [0, 1, 0, 1]
    assert (found.ordered, found.padded) == (True, True)


def test_without_it_the_signature_counts(content):
    """A file from elsewhere has the names of its signature, and says that the order is not the model's."""
    found = interface(parse(content))
    assert [port.names for port in found.outputs] == [("victor",), ("whiskey",)]
    assert (found.ordered, found.padded) == (False, False)


def test_a_file_without_signature_has_the_names_of_its_tensors():
    """Without a signature, inputs and outputs are in the file's order."""
    file = parse(tflite_of([Given([1, 2]), Given([1, 2]), Given([1, 2])], [("ADD", [0, 1], [2])], [1, 0], [2]))
    found = interface(file)
    assert [port.names for port in found.inputs] == [("t1",), ("t0",)]
    assert [port.place for port in found.inputs] == [0, 1]
    assert found.ordered


def test_nothing_is_written_where_nothing_is_lost(tiny_files):
    """A file of one input and one output stays as it is, byte for byte."""
    content = tiny_files["float32"].read_bytes()
    assert with_interface(content, ["image"], [["classes", "dense"]]) is content


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff", b"[]", b"3", b'{"inputs": 3}', b'{"inputs": [], "outputs": []}',
        b'{"inputs": [["zulu"], ["yankee"]], "outputs": [["nobody"], ["victor"]]}',
        b'{"inputs": [["zulu"], ["yankee"]], "outputs": [["victor"], ["victor"]]}',
        b'{"inputs": [["zulu"], ["yankee"]], "outputs": [[1, "whiskey"], ["victor"]]}',
        b'{"inputs": [[], ["yankee"]], "outputs": [["whiskey"], ["victor"]]}',
    ],
)  # fmt: skip
def test_what_does_not_fit_the_file_is_ignored(content, payload):
    """A buffer that others wrote, or that is damaged, counts for nothing."""
    found = interface(parse(with_buffer(content, BUFFER_NAME, payload)))
    assert [port.names for port in found.outputs] == [("victor",), ("whiskey",)]
    assert not found.ordered


def test_an_interpreter_counts_inputs_and_outputs_as_the_model_does(content):
    """By number, an interpreter gives what the model's inputs and outputs are; by name, what it gave before."""
    from edgeprune.runtime.interpreter import find_runtime
    from edgeprune.runtime.runner import run_samples

    rng = np.random.default_rng(0)
    x = {3: rng.random((3, 3), np.float32), 2: rng.random((3, 2), np.float32)}
    shapes, given = [], []
    for one in (content, with_interface(content, ["zulu", "yankee"], OUTPUTS)):
        interpreter = find_runtime().interpreter(one)
        widths = [detail["shape"][1] for detail in interpreter.get_input_details()]
        shapes.append((*widths, *(detail["shape"][1] for detail in interpreter.get_output_details())))
        given.append({y.shape[1]: y for y in run_samples(interpreter, [x[width] for width in widths])})
    assert shapes[1] == (2, 3, 4, 5)
    assert all(np.array_equal(given[0][width], given[1][width]) for width in (4, 5))


def test_signatures_of_other_graphs_are_named(content):
    """What is not looked at is said: the signatures of other graphs than the first, and only those."""
    model = parse(content)
    assert not list(other_signatures(model))
    (first,) = model.signatures
    other = dataclasses.replace(first, key="double", subgraph=1)
    (said,) = other_signatures(dataclasses.replace(model, signatures=(first, other)))
    assert "of the signature 'serving_default'. 'double': not in these figures" in said
