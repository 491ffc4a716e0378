"""Read the values of intermediate tensors of a .tflite after a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeprune.runtime.api import TensorDetails
from edgeprune.runtime.interpreter import Runtime
from edgeprune.runtime.session import dequantize, quantize
from edgeprune.tflite.flatbuffer import parse

# Float values of one sample, batch size 1: one array per input, in order, or by the input's name in the signature.
Sample = Sequence[np.ndarray] | Mapping[str, np.ndarray]


class TensorReader:
    """An interpreter that keeps all tensors. It uses the built-in kernels, as a delegate hides the tensors inside it.

    Args:
        content: the .tflite.
        runtime: that runs the file.
        inputs: names of the inputs in the signature, in the order in which samples give them; None for the file's own
            order.
    """

    def __init__(self, content: bytes, runtime: Runtime, inputs: Sequence[str] | None = None):
        self.graph = parse(content).subgraphs[0]
        self._interpreter = runtime.interpreter(content, kernels="builtin", preserve_all_tensors=True)
        self._details = {detail["index"]: detail for detail in self._interpreter.get_tensor_details()}
        self._names = inputs

    def activations(self) -> dict[str, int]:
        """Name → index of the tensors that operators compute, in order, without the outputs of the file.

        Left out is what has no memory of its own, such as some outputs of loops and fused recurrent layers.
        """
        return {
            self.graph.tensors[index].name: index
            for operator in self.graph.operators
            for index in operator.outputs
            if index >= 0 and index not in self.graph.outputs and index in self._details and self._has_data(index)
        }

    def _has_data(self, index: int) -> bool:
        try:
            self._interpreter.get_tensor(index)
        except ValueError:  # "Tensor data is null"
            return False
        return True

    def run(self, sample: Sample) -> None:
        """Run one sample."""
        for detail, value in zip(self._inputs(sample), _values(sample), strict=True):
            self._interpreter.set_tensor(detail["index"], quantize(np.asarray(value), detail))
        self._interpreter.reset_all_variables()
        self._interpreter.invoke()

    def value(self, index: int) -> np.ndarray:
        """A tensor of the last run, dequantized to float32."""
        return dequantize(self._interpreter.get_tensor(index), self._details[index])

    def _inputs(self, sample: Sample) -> list[TensorDetails]:
        details = self._interpreter.get_input_details()
        names = list(sample) if isinstance(sample, Mapping) else self._names
        signatures = self._interpreter._get_full_signature_list()
        if len(details) == 1 or not names or not signatures:
            return details
        indices = next(iter(signatures.values()))["inputs"]
        return [self._details[indices[name]] for name in names]


def _values(sample: Sample) -> list[np.ndarray]:
    return list(sample.values()) if isinstance(sample, Mapping) else list(sample)
