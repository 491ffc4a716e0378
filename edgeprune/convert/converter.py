"""The only place that calls the TFLite converter."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edgeprune.chatter import without_lines
from edgeprune.convert.recurrent import refuse_state_of_batches, without_loops
from edgeprune.convert.refusals import translate
from edgeprune.errors import ConversionError, EdgepruneError
from edgeprune.quantize.plan import WEIGHT_ONLY, QuantizationPlan
from edgeprune.runtime.interpreter import Runtime, find_runtime
from edgeprune.runtime.tensors import Sample

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

Samples = Callable[[], Iterable[Sample]]

# What the converter says about every int8 model, and MLIR about every model that it refuses.
_CHATTER = re.compile(
    "fully_quantize: |WARNING: All log messages before absl|[IWE]0000 |loc\\(|error: |\\s|TF Select ops: |Some ops "
)


def convert(
    model: tf_keras.Model,
    plan: QuantizationPlan,
    samples: Samples | None = None,
    runtime: Callable[[], Runtime] = find_runtime,
) -> bytes:
    """Convert a model to a .tflite for batches of one sample.

    A fixed batch spares the file the operators that compute shapes at run time, and accelerators need it. The
    signature ``serving_default`` keeps the names of the model's inputs and outputs.

    Args:
        model: functional tf_keras model.
        plan: number formats.
        samples: the representative dataset, a callable returning an iterator over lists of arrays in input order;
            required if the plan needs samples.
        runtime: the interpreter here; asked for only where ranges are narrowed, which runs the calibrated file.

    Returns:
        The flatbuffer.

    Raises:
        ConversionError: the converter refused, with operator and layer; or a shape is open that must be fixed; or a
            loop cannot be calibrated.
        VerificationError: a model with its loops written out computes something else.
        MissingError: the format needs a package that is not installed.
    """
    if plan.mode in WEIGHT_ONLY:
        from edgeprune.convert.weight_only import quantize_weights

        content = _run(model, plan, _float32)
        with _refusals(model, plan):
            return quantize_weights(content, plan.mode)
    if plan.mode == "mixed" or plan.ranges != "minmax":
        return quantize_calibrated(calibrate(model, plan, samples, runtime), plan, model)
    return _run(model, plan, _SETTINGS[plan.mode], samples)


def calibrate(
    model: tf_keras.Model,
    plan: QuantizationPlan,
    samples: Samples | None,
    runtime: Callable[[], Runtime] = find_runtime,
) -> bytes:
    """A float32 .tflite whose activations carry their ranges: what :func:`quantize_calibrated` takes.

    The ranges are what the samples reach, narrowed as the plan says (:mod:`edgeprune.quantize.narrowing`).
    """
    from edgeprune.quantize.narrowing import narrowed_ranges
    from edgeprune.tflite.ranges import read_ranges, with_ranges

    assert samples is not None
    content = _run(model, plan, _calibration, samples)
    if plan.ranges == "minmax":
        return content
    reached = read_ranges(content)
    narrowed = narrowed_ranges(content, reached, samples, plan.ranges, runtime(), plan.percentile)
    return with_ranges(content, narrowed)


def quantize_calibrated(
    calibrated: bytes, plan: QuantizationPlan, model: tf_keras.Model, *, verify: bool = False
) -> bytes:
    """Quantize a calibrated .tflite to int8, all but the operators that make ``plan.float_tensors``.

    Args:
        calibrated: from :func:`calibrate`.
        plan: of a format with int8 activations.
        model: what it was converted from, for messages.
        verify: with operators that compare each result with the float one's (TensorFlow's ``NumericVerify``).
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    dtype = getattr(tf, _IO_TYPES[plan.io])
    with _refusals(model, plan):
        return bytes(
            mlir_quantize(
                calibrated,
                input_data_type=dtype,
                output_data_type=dtype,
                enable_numeric_verify=verify,
                denylisted_nodes=list(plan.float_tensors) or None,
            )
        )


def _run(
    model: tf_keras.Model, plan: QuantizationPlan, settings: Callable[..., None], samples: Samples | None = None
) -> bytes:
    import tensorflow as tf

    _check_shapes(model, plan)
    refuse_state_of_batches(model)
    if plan.needs_samples and not plan.ranges_in_model:
        model = without_loops(model)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([_function(model, plan.one_scale)], model)
    settings(converter, plan, samples)
    if plan.select_tf_ops:
        operators = {*converter.target_spec.supported_ops, tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS}
        converter.target_spec.supported_ops = sorted(operators, key=lambda ops: ops.value)
    with _refusals(model, plan):
        return bytes(converter.convert())


@contextlib.contextmanager
def _refusals(model: tf_keras.Model, plan: QuantizationPlan) -> Iterator[None]:
    """What the converter or a quantizer raises, in the user's terms; what it says beside that is held back."""
    try:
        with without_lines(_CHATTER):
            yield
    except EdgepruneError:  # of samples that cannot be read, for example
        raise
    except Exception as error:  # they raise many types; all of them end the build
        raise translate(error, model, plan.mode) from error


def _check_shapes(model: tf_keras.Model, plan: QuantizationPlan) -> None:
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in zip(model.input_names, model.inputs, strict=True)}
    open_ones = {name: shape for name, shape in shapes.items() if None in shape}
    if plan.static_shapes and open_ones:
        listed = ", ".join(f"{name} {shape}" for name, shape in open_ones.items())
        raise ConversionError(
            f"The model {model.name!r} has inputs of open size: {listed}.",
            expected="fixed sizes: the target takes no shape that is known only at run time.",
            fix="build the model with an input of fixed size (tf_keras.Input([height, width, channels])).",
        )


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


def _float32(converter: tf.lite.TFLiteConverter, plan: QuantizationPlan, samples: Samples | None) -> None:
    import tensorflow as tf

    # Not for quantized weights: the int8 file was larger, and XNNPACK refused to load it.
    if plan.sparse:
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]


def _float16(converter: tf.lite.TFLiteConverter, plan: QuantizationPlan, samples: Samples | None) -> None:
    import tensorflow as tf

    _dynamic(converter, plan, samples)
    converter.target_spec.supported_types = [tf.float16]


def _dynamic(converter: tf.lite.TFLiteConverter, plan: QuantizationPlan, samples: Samples | None) -> None:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _int8(converter: tf.lite.TFLiteConverter, plan: QuantizationPlan, samples: Samples | None) -> None:
    import tensorflow as tf

    _dynamic(converter, plan, samples)
    if not plan.ranges_in_model:
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if plan.io != "float":
        converter.inference_input_type = converter.inference_output_type = getattr(tf, _IO_TYPES[plan.io])


def _int16x8(converter: tf.lite.TFLiteConverter, plan: QuantizationPlan, samples: Samples | None) -> None:
    import tensorflow as tf

    _dynamic(converter, plan, samples)
    converter.representative_dataset = samples
    # Operators without a 16-bit kernel stay in float; a warning of the variant names them.
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        tf.lite.OpsSet.TFLITE_BUILTINS,
    ]


def _calibration(converter: tf.lite.TFLiteConverter, plan: QuantizationPlan, samples: Samples | None) -> None:
    _dynamic(converter, plan, samples)
    converter.representative_dataset = samples
    converter._experimental_calibrate_only = True


_SETTINGS = {"float32": _float32, "float16": _float16, "dynamic": _dynamic, "int8": _int8, "int16x8": _int16x8}
_IO_TYPES = {"float": "float32", "int8": "int8", "uint8": "uint8"}
