"""TFLite metadata: readers that know only the format find it, and the model stays what it was."""

import importlib.util
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeprune.convert.converter import convert
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.runtime.interpreter import find_runtime
from edgeprune.tflite.flatbuffer import parse
from edgeprune.tflite.metadata import BUFFER_NAME, ModelInfo, TensorInfo, describe, with_metadata
from edgeprune.tflite.splice import with_buffer

DIGITS = tuple("0123456789")
# The accessors that flatc generates from the published schema come with these packages.
SCHEMAS = ("mediapipe/tasks/metadata", "tensorflow_lite_support/metadata")


@pytest.fixture(scope="module")
def content(tiny_model):
    return convert(tiny_model, QuantizationPlan("float32", "float", False))


@pytest.fixture(scope="module")
def described(tiny_model, content):
    preprocessing = {"scale": 1 / 255, "mean": [0.5], "std": [0.25], "color": None}
    info = describe(tiny_model, parse(content), preprocessing, description="digits", version="1", classes=DIGITS)
    return with_metadata(content, info)


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_tensors_are_described_in_the_order_of_the_file(names):
    """The converter sorts inputs and outputs by itself; each description has the shape of the tensor in its place."""
    import tf_keras

    layers = tf_keras.layers
    first, second = layers.Input([4], name=names[0]), layers.Input([6], name=names[1])
    outputs = [layers.Dense(3, name=f"{names[0]}_out")(first), layers.Dense(5, name=f"{names[1]}_out")(second)]
    model = tf_keras.Model([first, second], outputs)
    file = parse(convert(model, QuantizationPlan("float32", "float", False)))
    preprocessing = {"scale": 1.0, "mean": [0.0], "std": [1.0], "color": None}
    info = describe(model, file, preprocessing, description="two", version="1", classes=None)
    graph = file.subgraphs[0]
    for infos, indices in ((info.inputs, graph.inputs), (info.outputs, graph.outputs)):
        shapes = [list(graph.tensors[index].shape[1:]) for index in indices]
        assert [one.description for one in infos] == [f"values of shape {shape}" for shape in shapes]


def test_an_input_that_is_an_output_is_described():
    """A model that hands an input on as an output is described, whatever the converter's signature names."""
    import tf_keras

    layers = tf_keras.layers
    inputs = layers.Input([4], name="given")
    passed = layers.Activation("linear", name="passed")(inputs)
    model = tf_keras.Model(inputs, [layers.Dense(3, name="made")(inputs), passed])
    samples = [[np.random.default_rng(0).random([1, 4], np.float32)]] * 4
    preprocessing = {"scale": 1.0, "mean": [0.0], "std": [1.0], "color": None}
    for io in ("float", "int8", "uint8"):
        file = parse(convert(model, QuantizationPlan("int8", io, needs_samples=True), lambda: iter(samples)))
        info = describe(model, file, preprocessing, description="two", version="1", classes=None)
        assert [one.name for one in info.inputs] == ["given"]
        assert sorted(one.name for one in info.outputs) == ["made", "passed"]


def test_the_model_itself_is_unchanged(content, described):
    """Same tensors, operators and signature, same outputs."""
    before, after = parse(content), parse(described)
    assert before.signatures == after.signatures
    assert before.operator_codes == after.operator_codes
    assert set(after.metadata) - set(before.metadata) == {BUFFER_NAME}
    for old, new in zip(before.subgraphs[0].tensors, after.subgraphs[0].tensors, strict=True):
        assert (old.name, old.shape, bytes(old.stored)) == (new.name, new.shape, bytes(new.stored))
    np.testing.assert_array_equal(output(content), output(described))


def test_weights_keep_their_alignment(content, described):
    """The old file is moved as a whole, by a multiple of 16 bytes."""
    assert described.index(content) % 16 == 0


def test_the_runtime_maps_the_file_with_the_archive_behind_it(described, tmp_path):
    """A path, which the runtime maps into memory, works like bytes."""
    path = tmp_path / "model.tflite"
    path.write_bytes(described)
    np.testing.assert_array_equal(output(path), output(described))


def test_the_label_file_is_in_an_archive_at_the_end(described, tmp_path):
    """Any zip tool takes it out."""
    path = tmp_path / "model.tflite"
    path.write_bytes(described)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode().split() == list(DIGITS)
        assert archive.testzip() is None


def test_the_published_schema_reads_what_was_written(described):
    """Accessors generated from the published schema find name, normalization, range, image size and label file."""
    schema = published_schema()
    buffer = parse(described).metadata[BUFFER_NAME]
    assert schema.ModelMetadata.ModelMetadataBufferHasIdentifier(buffer, 0)
    model = schema.ModelMetadataT.InitFromObj(schema.ModelMetadata.GetRootAs(buffer, 0))
    assert (model.name, model.description, model.version) == (b"tiny", b"digits", b"1")
    (graph,) = model.subgraphMetadata
    (source,) = graph.inputTensorMetadata
    assert source.name == b"input_1"
    unit = source.processUnits[0]
    assert unit.optionsType == schema.ProcessUnitOptions.NormalizationOptions
    # x = (pixel / 255 - 0.5) / 0.25 = (pixel - 127.5) / 63.75
    np.testing.assert_allclose([*unit.options.mean, *unit.options.std], [127.5, 63.75])
    np.testing.assert_allclose([*source.stats.min, *source.stats.max], [-2, 2])
    image = source.content.contentProperties
    assert image.colorSpace == schema.ColorSpaceType.GRAYSCALE
    assert (image.defaultSize.width, image.defaultSize.height) == (16, 16)
    (result,) = graph.outputTensorMetadata
    assert [(f.name, f.type) for f in result.associatedFiles] == [
        (b"labels.txt", schema.AssociatedFileType.TENSOR_AXIS_LABELS)
    ]


def test_same_content_same_bytes(content, described):
    """No date of today is in the archive."""
    info = ModelInfo("m", "d", "1", (TensorInfo("x", "x"),), (TensorInfo("y", "y", labels=DIGITS),))
    assert with_metadata(content, info) == with_metadata(content, info)
    assert len(described) - len(content) < 2000


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1000])
def test_any_buffer_can_be_added_several_times(content, size):
    """Each stays readable under its name, whatever its length."""
    once = with_buffer(content, "first", bytes(range(256)) * 4)
    twice = with_buffer(once, "second", b"x" * size)
    metadata = parse(twice).metadata
    assert (metadata["first"], metadata["second"]) == (bytes(range(256)) * 4, b"x" * size)
    assert len(parse(twice).subgraphs[0].tensors) == len(parse(content).subgraphs[0].tensors)


def published_schema():
    for folder in map(Path, sys.path):
        for schema in SCHEMAS:
            path = folder / schema / "metadata_schema_py_generated.py"
            if path.is_file():
                spec = importlib.util.spec_from_file_location("published_schema", path)
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                return module
    return pytest.skip("needs mediapipe or tflite-support, for the schema's generated accessors")


def output(model):
    interpreter = find_runtime().interpreter(model)
    x = np.random.default_rng(0).random((1, 16, 16, 1), np.float32)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def test_an_order_of_channels_that_the_schema_lacks_is_unknown_to_it_and_described():
    """For blue, green, red the colour space is UNKNOWN, so that no reader takes it for RGB; a text names the order."""
    import tf_keras

    inputs = tf_keras.layers.Input([4, 4, 3])
    model = tf_keras.Model(inputs, tf_keras.layers.Flatten()(inputs))
    content = convert(model, QuantizationPlan("float32", "float", False))
    preprocessing = {"scale": 1.0, "mean": [0.0], "std": [1.0], "color": "bgr"}
    info = describe(model, parse(content), preprocessing, description="bgr", version="1", classes=None)
    assert "blue, green, red" in info.inputs[0].description
    buffer = parse(with_metadata(content, info)).metadata[BUFFER_NAME]
    schema = published_schema()
    found = schema.ModelMetadataT.InitFromObj(schema.ModelMetadata.GetRootAs(buffer, 0))
    (source,) = found.subgraphMetadata[0].inputTensorMetadata
    assert source.content.contentProperties.colorSpace == schema.ColorSpaceType.UNKNOWN
