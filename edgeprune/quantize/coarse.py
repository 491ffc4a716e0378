"""Outputs whose values lie closer together than the steps of their integers, as a few extreme ones stretch the range.

Scores before a sigmoid, for example, reach from -345 to 4 in published face detectors, where half of them lie within 3:
in 8 bits, scores on either side of a threshold are one number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.runtime.tensors import Sample
from edgeprune.tflite.graph import Subgraph, Tensor, TFLiteModel
from edgeprune.tflite.interface import interface

if TYPE_CHECKING:
    import tf_keras

# Steps above this share of the range of the middle half of the values are coarse. Of values that are spread evenly or
# as a normal distribution, a step of 8 bits is 1 to 3 % of it.
COARSE = 0.1
# Operators that hand values on: their outputs are as coarse as their inputs.
_MOVING = {
    *("CONCATENATION", "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "PACK", "SLICE", "STRIDED_SLICE"),
    *("DEQUANTIZE", "QUANTIZE", "PAD"),
}


@dataclass(frozen=True)
class CoarseOutput:
    """An output with coarse steps.

    Attributes:
        name: the user's.
        step: between two of its integers.
        spread: of the middle half of its values.
        tensors: names of what would have to be in float: the output, and what it is made of without arithmetic.
    """

    name: str
    step: float
    spread: float
    tensors: tuple[str, ...]

    @property
    def warning(self) -> str:
        return (
            f"The output {self.name!r} has steps of {self.step:.3g} in int8, and half of its values lie within "
            f"{self.spread:.3g}: what differs by less is one number. Its last layers in float keep it: "
            '[quantize] modes = ["mixed"].'
        )


def coarse_outputs(file: TFLiteModel, values: Sequence[np.ndarray]) -> list[CoarseOutput]:
    """The outputs of a file with coarse steps.

    Args:
        values: real values that each output has on samples, in the model's order; fractions are not looked at.
    """
    graph, found = file.subgraphs[0], []
    for port, array in zip(interface(file).outputs, values, strict=True):
        stored = _stored(graph, port.tensor)
        if stored.quantization is None or stored.dtype not in ("int8", "uint8"):
            continue
        low, high = np.percentile(array, (25, 75))
        step, spread = float(stored.quantization.scale[0]), float(high - low)
        fractions = array.min() >= 0 and array.max() <= 1
        if spread > 0 and not fractions and step > COARSE * spread:
            found.append(CoarseOutput(port.names[0], step, spread, tuple(_made_of(graph, port.tensor))))
    return found


def answers_of(model: tf_keras.Model, samples: Iterable[Sample]) -> list[np.ndarray]:
    """What a Keras model answers to samples, by output."""
    import tensorflow as tf

    made = [tf.nest.flatten(model(tf.nest.map_structure(tf.constant, sample), training=False)) for sample in samples]
    return [np.concatenate([np.asarray(value) for value in values]) for values in zip(*made, strict=True)]


def _stored(graph: Subgraph, tensor: Tensor) -> Tensor:
    """The integers behind an output of real values."""
    maker = graph.producers.get(tensor.index)
    source = graph.input(maker, 0) if maker is not None and maker.name == "DEQUANTIZE" else None
    return source or tensor


def _made_of(graph: Subgraph, tensor: Tensor) -> list[str]:
    """A tensor and those that its values were moved from, up to what computed them."""
    names, left = [], [tensor.index]
    while left:
        index = left.pop()
        maker = graph.producers.get(index)
        if maker is None or graph.tensors[index].name in names:
            continue
        names.append(graph.tensors[index].name)
        if maker.name in _MOVING:
            left += [source for source in maker.inputs if source >= 0]
    return names
