"""TFLite metadata: a description inside the file of its inputs and outputs, for apps that use it.

The format is ``metadata_schema.fbs`` of TensorFlow Lite Support (identifier M001): a flatbuffer in the buffer named
``TFLITE_METADATA`` of the model, and the associated files as an uncompressed zip archive behind the model. Android
Studio, the Task Library and ``MetadataExtractor`` read it. The tables are written here, because the Python package of
TensorFlow Lite Support pins protobuf below 4.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import flatbuffers

from edgeprune.tflite.interface import BUFFER_NAME as INTERFACE_NAME
from edgeprune.tflite.splice import with_buffer

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

    from edgeprune.tflite.graph import TFLiteModel

BUFFER_NAME = "TFLITE_METADATA"
# Entries about a file itself, which its writers make anew.
_OF_THE_FILE = ("min_runtime_version", "CONVERSION_METADATA", INTERFACE_NAME)
IDENTIFIER = b"M001"
MIN_PARSER_VERSION = "1.0.0"  # only tables of the schema's first version are written
LABELS_FILE = "labels.txt"

# Values of the schema's enums and unions.
_AXIS_LABELS = 2  # AssociatedFileType.TENSOR_AXIS_LABELS
_COLORS = {"bgr": 0, "rgb": 1, "grayscale": 2}  # ColorSpaceType, which knows no other order than RGB: 0 is unknown
_FEATURE, _IMAGE = 1, 2  # ContentProperties
_NORMALIZATION = 1  # ProcessUnitOptions


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One input or output.

    Attributes:
        name: in the Keras model.
        description: for people.
        mean, std: of an input that takes ``(x - mean) / std``; one value, or one per channel. None without such a step.
        low, high: smallest and largest value, of an input after that step; None when not known.
        image: (color, height, width) of an image, else None.
        labels: names of the classes along the last axis of an output.
    """

    name: str
    description: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    image: tuple[str, int, int] | None = None
    labels: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """The content of the metadata; ``inputs`` and ``outputs`` are in the order of the file."""

    name: str
    description: str
    version: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


def with_metadata(content: bytes, info: ModelInfo) -> bytes:
    """A .tflite with metadata and associated files added. The model's own tables and weights do not change.

    The same arguments give the same bytes.

    Args:
        content: a .tflite without metadata.
        info: content of the metadata.

    Returns:
        The content of the new file. Nothing may be appended, because readers look for the archive at its end.
    """
    described = with_buffer(content, BUFFER_NAME, _model(info))
    labels = next((tensor.labels for tensor in info.outputs if tensor.labels), None)
    if labels is None:
        return described
    whole = io.BytesIO(described)
    # Appending keeps offsets relative to the start of the file, as the zip format wants them.
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_STORED) as archive:
        entry = zipfile.ZipInfo(LABELS_FILE, date_time=(1980, 1, 1, 0, 0, 0))
        archive.writestr(entry, "\n".join(labels) + "\n")
    return whole.getvalue()


def carry(content: bytes, metadata: Mapping[str, bytes], members: Mapping[str, bytes]) -> bytes | None:
    """A .tflite with the metadata of the file that its model came from; None where that does not describe its ports.

    What the converter and edgeprune write about a file itself is not of the model, and stays behind.

    Args:
        content: a .tflite without metadata.
        metadata: of the other file.
        members: the files within it.
    """
    if BUFFER_NAME not in metadata:
        return None
    for name, payload in metadata.items():
        if name not in _OF_THE_FILE:
            content = with_buffer(content, name, payload)
    if not members:
        return content
    whole = io.BytesIO(content)
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_STORED) as archive:
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), member)
    return whole.getvalue()


class _Writer:
    """Writes flatbuffer tables and vectors; every method returns an offset for a field of another table."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)

    def text(self, value: str | None) -> int | None:
        return None if value is None else self.builder.CreateString(value)

    def floats(self, values: Sequence[float] | None) -> int | None:
        if values is None:
            return None
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependFloat32(value)
        return self.builder.EndVector()

    def tables(self, offsets: Sequence[int]) -> int | None:
        if not offsets:
            return None
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return self.builder.EndVector()

    def table(self, fields: Mapping[int, int | None], scalars: Mapping[int, tuple[str, int]] | None = None) -> int:
        """A table.

        Args:
            fields: slot → offset of a string, vector or table; None leaves the field out.
            scalars: slot → (type, number), with the type as ``flatbuffers.Builder`` names it: 'Uint8'.
        """
        present = {slot: offset for slot, offset in fields.items() if offset is not None}
        self.builder.StartObject(max((*present, *(scalars or {})), default=-1) + 1)
        for slot, offset in present.items():
            self.builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        for slot, (kind, number) in (scalars or {}).items():
            getattr(self.builder, f"Prepend{kind}Slot")(slot, number, 0)
        return self.builder.EndObject()


def _model(info: ModelInfo) -> bytes:
    writer = _Writer()
    inputs = writer.tables([_tensor(writer, tensor) for tensor in info.inputs])
    outputs = writer.tables([_tensor(writer, tensor) for tensor in info.outputs])
    # SubGraphMetadata: 2 input_tensor_metadata, 3 output_tensor_metadata
    subgraphs = writer.tables([writer.table({2: inputs, 3: outputs})])
    texts = {slot: writer.text(value) for slot, value in enumerate((info.name, info.description, info.version))}
    # ModelMetadata: 0 name, 1 description, 2 version, 3 subgraph_metadata, 7 min_parser_version
    root = writer.table({**texts, 3: subgraphs, 7: writer.text(MIN_PARSER_VERSION)})
    writer.builder.Finish(root, IDENTIFIER)
    return bytes(writer.builder.Output())


def _tensor(writer: _Writer, info: TensorInfo) -> int:
    units = []
    if info.mean is not None:
        options = writer.table({0: writer.floats(info.mean), 1: writer.floats(info.std)})  # NormalizationOptions
        units.append(writer.table({1: options}, {0: ("Uint8", _NORMALIZATION)}))  # ProcessUnit: a union's type, value
    stats = None
    if info.low is not None:
        stats = writer.table({0: writer.floats(info.high), 1: writer.floats(info.low)})  # Stats: max, min
    files = []
    if info.labels:
        names = {0: writer.text(LABELS_FILE), 1: writer.text("names of the classes, one per line")}
        files.append(writer.table(names, {2: ("Int8", _AXIS_LABELS)}))  # AssociatedFile
    # TensorMetadata: 0 name, 1 description, 3 content, 4 process_units, 5 stats, 6 associated_files
    return writer.table(
        {
            0: writer.text(info.name),
            1: writer.text(info.description),
            3: _content(writer, info),
            4: writer.tables(units),
            5: stats,
            6: writer.tables(files),
        }
    )


def _content(writer: _Writer, info: TensorInfo) -> int:
    if info.image is None:
        return writer.table({1: writer.table({})}, {0: ("Uint8", _FEATURE)})  # Content: a union's type and value
    color, height, width = info.image
    size = writer.table({}, {0: ("Uint32", width), 1: ("Uint32", height)})
    properties = writer.table({1: size}, {0: ("Int8", _COLORS[color])})  # ImageProperties
    return writer.table({1: properties}, {0: ("Uint8", _IMAGE)})


def describe(
    model: tf_keras.Model,
    file: TFLiteModel,
    preprocessing: Mapping[str, Any],
    *,
    description: str,
    version: str,
    classes: Sequence[str] | None,
) -> ModelInfo:
    """The metadata of a Keras model's file.

    Args:
        model: functional tf_keras model.
        file: the .tflite made of it, for the order of inputs and outputs, which the converter may change.
        preprocessing: ``scale``, ``mean``, ``std`` of ``x = (pixel * scale - mean) / std``, and ``color`` for images.
        description, version: of the file.
        classes: names of the classes of the first output, if it has classes.
    """
    inputs = tuple(
        _input(name, tensor, preprocessing) for name, tensor in zip(model.input_names, model.inputs, strict=True)
    )
    outputs = tuple(
        TensorInfo(
            name,
            "one value per class" if number == 0 and classes else f"values of shape {list(tensor.shape[1:])}",
            labels=tuple(classes) if number == 0 and classes and tensor.shape[-1] == len(classes) else None,
        )
        for number, (name, tensor) in enumerate(zip(model.output_names, model.outputs, strict=True))
    )
    (signature,), graph = file.signatures, file.subgraphs[0]
    inputs = _as_in_file(inputs, signature.inputs, graph.inputs)
    outputs = _as_in_file(outputs, signature.outputs, graph.outputs)
    return ModelInfo(model.name, description, version, inputs, outputs)


def _as_in_file(
    infos: tuple[TensorInfo, ...], named: Mapping[str, int], order: Sequence[int]
) -> tuple[TensorInfo, ...]:
    """In the file's order, which is how readers of metadata match them: they do not use the names in signatures."""
    return tuple(sorted(infos, key=lambda info: order.index(named[info.name])))


def _input(name: str, tensor: tf.Tensor, preprocessing: Mapping[str, Any]) -> TensorInfo:
    shape = tuple(tensor.shape[1:])
    colors = {1: "grayscale", 3: "rgb"}
    sound = preprocessing.get("sound")
    is_image = len(shape) == 3 and None not in shape and shape[-1] in colors and not sound
    image = (preprocessing["color"] or colors[shape[-1]], shape[0], shape[1]) if is_image else None
    if not tensor.dtype.is_floating:
        return TensorInfo(name, f"integers of shape {list(shape)}", image=image)
    # In the metadata's form, (x - mean) / std, the scale is part of both.
    scale = preprocessing["scale"]
    pairs = _pairs([m / scale for m in preprocessing["mean"]], [s / scale for s in preprocessing["std"]])
    mean, std = tuple(m for m, _ in pairs), tuple(s for _, s in pairs)
    low = tuple((0 - m) / s for m, s in pairs) if image else None
    high = tuple((255 - m) / s for m, s in pairs) if image else None
    order = ", channels in the order blue, green, red" if image and image[0] == "bgr" else ""
    what = f"an image, pixels of 0..255{order}" if image else f"values of shape {list(shape)}"
    if sound:
        what = f"{sound['front']} of {sound['samples']} samples of sound at {sound['rate']} Hz, {what}"
    return TensorInfo(name, what, mean, std, low, high, image)


def _pairs(mean: Sequence[float], std: Sequence[float]) -> list[tuple[float, float]]:
    """Mean and std per channel, where either may be one value for all."""
    length = max(len(mean), len(std))
    return list(zip(_spread(mean, length), _spread(std, length), strict=True))


def _spread(values: Sequence[float], length: int) -> list[float]:
    return list(values) if len(values) == length else list(values) * length
