"""What TensorFlow Lite Micro makes of a file for a microcontroller, beside operators that it does not have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeprune.checking.finding import Finding
from edgeprune.errors import ModelError
from edgeprune.runtime.micro import Footprint, footprint
from edgeprune.target import Target
from edgeprune.tflite.compact import compact
from edgeprune.tflite.micro import unregistered, wrong_axes
from edgeprune.workers import WorkerDied

if TYPE_CHECKING:
    from edgeprune.checking.check import Subject


def on_microcontroller(subject: Subject, target: Target) -> list[Finding]:
    """Weights that its kernels would read wrongly, a file that it refuses, and memory that the board does not have."""
    findings = list(_axes(subject))
    if findings or unregistered(subject.file):
        return findings  # what it says about such a file says less
    try:
        took = footprint(compact(subject.path.read_bytes()), str(subject.path))
    except ModelError as error:
        return [Finding("error", error.what, "build it as int8, with inputs of fixed sizes: --recipe int8.")]
    except WorkerDied as death:
        return [Finding("error", f"TensorFlow Lite Micro does not survive the file: its process {death.how}.")]
    return list(_memory(took, target))


def _axes(subject: Subject) -> Iterator[Finding]:
    for tensor, axis in wrong_axes(subject.graph):
        assert tensor.quantization is not None
        readers = [op for op in subject.graph.operators if tensor.index in op.inputs]
        yield Finding(
            "error",
            f"{tensor.name or tensor.index!r} has scales along axis {tensor.quantization.axis}, and the kernels of "
            f"TensorFlow Lite Micro take them to be along axis {axis}: results would be wrong.",
            "quantize it along its output channels, or with one scale: convert the model again.",
            tuple(map(subject.where, readers)),
        )


def _memory(took: Footprint, target: Target) -> Iterator[Finding]:
    assert target.micro is not None
    rows = (
        ("flash", took.flash_bytes, target.micro.flash_bytes, "prune its weights: --recipe micro."),
        ("RAM", took.ram_bytes, target.micro.ram_bytes, "use smaller inputs, or fewer channels in front."),
    )
    for what, value, most, fix in rows:
        if most is not None and value > most:
            yield Finding("error", f"It takes {value:,} bytes of {what}, and {target.name} has {most:,}.", fix)
