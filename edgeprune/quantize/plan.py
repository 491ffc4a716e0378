"""Recipe × target → how a model is quantized."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from edgeprune.recipe.config import IO, Mode, Recipe
from edgeprune.target import Target

Ranges = Literal["minmax", "percentile", "mse"]
# Formats that ai-edge-quantizer makes of the float32 file; the converter has none like them.
WEIGHT_ONLY: tuple[Mode, ...] = ("int8-weights", "int4-weights")


@dataclasses.dataclass(frozen=True)
class FormatRule:
    """What a number format needs and allows.

    Attributes:
        samples: activation ranges come from representative samples.
        integer_io: inputs and outputs may be 8-bit integers.
        clipping: activations have eight bits, so that ranges narrower than what the samples show may be better.
        levels: the largest integer that its weights are; None: they are none, or not all of them.
    """

    samples: bool = False
    integer_io: bool = False
    clipping: bool = False
    levels: int | None = None


# One line per number format. 16 bits have room for every outlier, and only int8's ranges can be set from outside.
RULES: Mapping[Mode, FormatRule] = MappingProxyType(
    {
        "float32": FormatRule(),
        "float16": FormatRule(),
        "dynamic": FormatRule(),
        "int8": FormatRule(samples=True, integer_io=True, clipping=True, levels=127),
        "int16x8": FormatRule(samples=True, levels=127),
        "int8-weights": FormatRule(levels=127),
        "int4-weights": FormatRule(levels=7),
        "mixed": FormatRule(samples=True, integer_io=True, clipping=True),
    }
)


@dataclasses.dataclass(frozen=True)
class QuantizationPlan:
    """What the converter is told.

    Attributes:
        mode: the number format, as the recipe names it.
        io: number format of the file's inputs and outputs.
        needs_samples: whether activation ranges come from representative samples.
        sparse: store weights with many zeros sparse; for float32 only.
        sparse_if_smaller: the same for a model that was pruned, where it makes the file smaller.
        ranges_in_model: whether they are in the model: it was trained with rounded activations.
        one_scale: names of layers whose kernels get one scale for all channels, so that shared weights stay shared.
        ranges: how an activation's range comes from its values; ``percentile``: percent of the values inside.
        static_shapes: the target takes no shape that is known only at run time.
        select_tf_ops: operators of full TensorFlow are allowed.
        float_tensors: names of the tensors whose operators stay in float (mode ``mixed``).
    """

    mode: Mode
    io: IO
    needs_samples: bool
    sparse: bool = False
    sparse_if_smaller: bool = False
    ranges_in_model: bool = False
    one_scale: tuple[str, ...] = ()
    ranges: Ranges = "minmax"
    percentile: float = 99.99
    static_shapes: bool = False
    select_tf_ops: bool = False
    float_tensors: tuple[str, ...] = ()


def quantization_plan(mode: Mode, recipe: Recipe, target: Target) -> QuantizationPlan:
    """The plan for one mode: the format's rule first, then the recipe, then what the target prefers.

    Ranges that the files' answers decide (``auto``) are ``minmax`` until then.
    """
    rule = RULES[mode]
    return QuantizationPlan(
        mode,
        (recipe.quantize.io or target.quantization.io) if rule.integer_io else "float",
        needs_samples=rule.samples,
        sparse_if_smaller=recipe.convert.sparse_encoding and mode == "float32",
        ranges="minmax" if not rule.clipping or recipe.calibration.range == "auto" else recipe.calibration.range,
        percentile=recipe.calibration.percentile,
        static_shapes=target.quantization.static_batch,
        select_tf_ops=recipe.convert.select_tf_ops,
    )
