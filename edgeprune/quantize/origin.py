"""Where along the graph a quantized file departs from the float one: the signal-to-noise ratio of every activation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.files import JsonObject
from edgeprune.runtime.interpreter import INTERPRETER, Runtime
from edgeprune.runtime.tensors import Sample, TensorReader
from edgeprune.tflite.graph import Subgraph
from edgeprune.workers import Stream

if TYPE_CHECKING:
    import tf_keras

BIT_DB = 20 * np.log10(2)  # one bit of precision, 6.02 dB
INPUT_DB = 8 * BIT_DB  # assumed for an 8-bit input, whose own error cannot be measured by comparing the files
SHARP_DB = 2 * BIT_DB  # a loss from which on an operator counts as the origin
EXACT_DB = 120.0  # reported where there is no error at all


@dataclasses.dataclass(frozen=True)
class TensorError:
    """One activation of a quantized file against the same activation of the float file.

    Attributes:
        tensor: its name, the same in both files.
        operator: what computes it.
        sqnr_db: signal power over error power, in decibels, over all samples.
        fall_db: how much lower that is than the ``sqnr_db`` of the operator's worst input.
        added_noise: error power over signal power, minus that of the operator's worst input, at least 0: the error
            that the operator itself adds.
    """

    tensor: str
    operator: str
    sqnr_db: float
    fall_db: float
    added_noise: float


def error_by_tensor(
    quantized: bytes,
    reference: bytes,
    samples: Iterable[Sample],
    runtime: Runtime,
    inputs: Sequence[str] | None = None,
) -> list[TensorError]:
    """Run both files on the same samples and compare the activations that have the same name in both.

    Args:
        quantized: a .tflite in any number format.
        reference: the float32 .tflite (or the calibrated one) of the same Keras model.
        samples: the inputs to run.
        runtime: that runs both files.
        inputs: names of the inputs in the order in which samples give them.

    Returns:
        One entry per activation, in the order in which operators run.
    """
    return INTERPRETER.call(_error_by_tensor, quantized, reference, Stream(lambda: samples), runtime, inputs)


def _error_by_tensor(
    quantized: bytes, reference: bytes, samples: Iterable[Sample], runtime: Runtime, inputs: Sequence[str] | None
) -> list[TensorError]:
    readers = TensorReader(quantized, runtime, inputs), TensorReader(reference, runtime, inputs)
    tested, floats = readers[0].activations(), readers[1].activations()
    sizes = [{tensor.name: tensor.size for tensor in reader.graph.tensors} for reader in readers]
    # A loop in one file and its steps in the other may have a name in common.
    shared = {
        name: (index, floats[name])
        for name, index in tested.items()
        if name in floats and sizes[0][name] == sizes[1][name]
    }
    sums = {name: np.zeros(2) for name in shared}
    for sample in samples:
        for reader in readers:
            reader.run(sample)
        for name, (mine, theirs) in shared.items():
            wanted = readers[1].value(theirs).astype(np.float64)
            error = readers[0].value(mine).reshape(wanted.shape) - wanted
            sums[name] += (np.sum(wanted**2), np.sum(error**2))
    sqnr = {name: _decibels(signal, noise) for name, (signal, noise) in sums.items()}
    return _rows(readers[0].graph, sqnr)


def first_fall(errors: Sequence[TensorError]) -> TensorError | None:
    """The first operator that loses at least two bits; if none does, the one that loses most."""
    sharp = next((row for row in errors if row.fall_db >= SHARP_DB), None)
    return sharp or max(errors, key=lambda row: row.fall_db, default=None)


def describe(errors: Sequence[TensorError], model: tf_keras.Model) -> JsonObject | None:
    """Where the error arises, as ``origin`` in report.json has it; None without activations to compare.

    Args:
        errors: from :func:`error_by_tensor`.
        model: the Keras model of both files, for the name of the layer.
    """
    from edgeprune.models.naming import layer_of

    row = first_fall(errors)
    if row is None:
        return None
    return {
        "layer": layer_of(row.tensor, model),
        "operator": row.operator,
        "tensor": row.tensor,
        "sqnr_db": row.sqnr_db,
        "sqnr_before_db": row.sqnr_db + row.fall_db,
    }


def _rows(graph: Subgraph, sqnr: Mapping[str, float]) -> list[TensorError]:
    known: dict[int, float] = {}
    rows = []
    for operator in graph.operators:
        going_in = [known[i] for i in operator.inputs if i in known]
        before = min(going_in, default=INPUT_DB)
        for index in operator.outputs:
            name = graph.tensors[index].name
            # An operator that only changes the number format has no counterpart: it hands its input's ratio on.
            known[index] = sqnr.get(name, before)
            if name in sqnr:
                added = max(_noise(sqnr[name]) - _noise(before), 0.0)
                rows.append(TensorError(name, operator.name, sqnr[name], before - sqnr[name], added))
    return rows


def _decibels(signal: float, noise: float) -> float:
    if noise == 0 or signal == 0:
        return EXACT_DB if noise == 0 else -EXACT_DB
    return float(np.clip(10 * np.log10(signal / noise), -EXACT_DB, EXACT_DB))


def _noise(sqnr_db: float) -> float:
    return float(10 ** (-sqnr_db / 10))
