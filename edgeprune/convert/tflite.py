"""The only place that calls the TFLite converter."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgeprune.chatter import without_lines
from edgeprune.errors import ConversionError
from edgeprune.quantize.plan import QuantizationPlan

if TYPE_CHECKING:
    import tf_keras

Samples = Callable[[], Any]

# What the converter says about every int8 model.
_CHATTER = re.compile("fully_quantize: |WARNING: All log messages before absl|[IW]0000 ")


def convert(model: tf_keras.Model, plan: QuantizationPlan, samples: Samples | None = None) -> bytes:
    """Convert a model to a .tflite for batches of one sample.

    A fixed batch spares the file the operators that compute shapes at run time, and accelerators need it. The
    signature ``serving_default`` keeps the names of the model's inputs and outputs.

    Args:
        model: functional tf_keras model.
        plan: number formats.
        samples: the representative dataset, a callable returning an iterator over lists of arrays in input order;
            required if the plan needs samples.

    Returns:
        The flatbuffer.

    Raises:
        ConversionError: the converter refused, with its reason.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_concrete_functions([_function(model, plan.one_scale)], model)
    _SETTINGS[plan.mode](converter, plan, samples)
    try:
        with without_lines(_CHATTER):
            return bytes(converter.convert())
    except Exception as error:  # the converter raises many types; all of them end the build with its own words
        raise ConversionError(
            f"TensorFlow's converter refused {model.name!r} as {plan.mode}: {_reason(error)}.",
            fix="use --debug for its whole output; a layer without a TFLite operator must be replaced.",
        ) from error


def _function(model: tf_keras.Model, one_scale: Sequence[str] = ()) -> Any:
    import tensorflow as tf

    from edgeprune.quantize.quantizers import one_scale_kernels

    specs = [
        tf.TensorSpec([1, *tensor.shape[1:]], tensor.dtype, name=name)
        for tensor, name in zip(model.inputs, model.input_names, strict=True)
    ]

    @tf.function(input_signature=specs)
    def serve(*inputs: Any) -> dict[str, Any]:
        with one_scale_kernels(model, one_scale):
            outputs = model(inputs[0] if len(inputs) == 1 else list(inputs), training=False)
        return dict(zip(model.output_names, tf.nest.flatten(outputs), strict=True))

    return serve.get_concrete_function()


def _float32(converter: Any, plan: QuantizationPlan, samples: Samples | None) -> None:
    import tensorflow as tf

    # Not for quantized weights: the int8 file was larger, and XNNPACK refused to load it.
    if plan.sparse:
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]


def _float16(converter: Any, plan: QuantizationPlan, samples: Samples | None) -> None:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _dynamic(converter: Any, plan: QuantizationPlan, samples: Samples | None) -> None:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _int8(converter: Any, plan: QuantizationPlan, samples: Samples | None) -> None:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if not plan.ranges_in_model:
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if plan.io == "int8":
        converter.inference_input_type = converter.inference_output_type = tf.int8


_SETTINGS = {"float32": _float32, "float16": _float16, "dynamic": _dynamic, "int8": _int8}


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
