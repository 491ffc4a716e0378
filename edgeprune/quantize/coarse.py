"""Outputs whose values lie closer together than the steps of their integers, as a few extreme ones stretch the range.

Scores before a sigmoid, for example, reach from -345 to 4 in published face detectors, where half of them lie within 3:
in 8 bits, scores on either side of a threshold are one number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.runtime.tensors import Sample
from edgeprune.tflite.graph import Subgraph, Tensor, TFLiteModel
from edgeprune.tflite.interface import Port, interface

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


def coarse_outputs(file: TFLiteModel, values: Mapping[str, np.ndarray]) -> list[CoarseOutput]:
    """The outputs of a file with coarse steps.

    Args:
        values: name of an output of the model → real values that it has on samples; fractions are not looked at.
    """
    found = []
    for port, stored in integer_outputs(file):
        if (array := values.get(port.signature)) is None:
            continue
        low, high = np.percentile(array, (25, 75))
        assert stored.quantization is not None
        step, spread = float(stored.quantization.scale[0]), float(high - low)
        fractions = array.min() >= 0 and array.max() <= 1
        if spread > 0 and not fractions and step > COARSE * spread:
            found.append(CoarseOutput(port.names[0], step, spread, tuple(_made_of(file.subgraphs[0], port.tensor))))
    return found


def integer_outputs(file: TFLiteModel) -> list[tuple[Port, Tensor]]:
    """The outputs of a file that are integers of 8 bits, or were right before the end, and these integers."""
    stored = [(port, _stored(file.subgraphs[0], port.tensor)) for port in interface(file).outputs]
    return [(port, one) for port, one in stored if one.quantization and one.dtype in ("int8", "uint8")]


def answers_of(model: tf_keras.Model, samples: Iterable[Sample]) -> dict[str, np.ndarray]:
    """What a Keras model answers to samples, by the names of its outputs."""
    import tensorflow as tf

    made = [tf.nest.flatten(model(tf.nest.map_structure(tf.constant, sample), training=False)) for sample in samples]
    return {
        name: np.concatenate([np.asarray(value) for value in values])
        for name, values in zip(model.output_names, zip(*made, strict=True), strict=True)
    }


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
