"""Recipe × target → how a model is quantized."""

from __future__ import annotations

import dataclasses
from typing import Literal

from edgeprune.recipe import Mode, QuantizeConfig
from edgeprune.target import Target


@dataclasses.dataclass(frozen=True)
class QuantizationPlan:
    """What the converter is told.

    Attributes:
        mode: the number format, as the recipe names it.
        io: number format of the file's inputs and outputs.
        needs_samples: whether activation ranges come from representative samples.
        sparse: store weights with many zeros sparse; for float32 only.
        ranges_in_model: whether they are in the model: it was trained with rounded activations.
        one_scale: names of layers whose kernels get one scale for all channels, so that shared weights stay shared.
    """

    mode: Mode
    io: Literal["float", "int8"]
    needs_samples: bool
    sparse: bool = False
    ranges_in_model: bool = False
    one_scale: tuple[str, ...] = ()


def quantization_plan(mode: Mode, config: QuantizeConfig, target: Target) -> QuantizationPlan:
    """The plan for one mode; only full int8 files may have int8 inputs and outputs."""
    if mode != "int8":
        return QuantizationPlan(mode, "float", needs_samples=False)
    return QuantizationPlan(mode, config.io or target.quantization.io, needs_samples=True)
