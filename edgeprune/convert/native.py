"""What runs in the converter's process: TensorFlow's converter, its calibrator and its quantizer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from edgeprune._tensorflow import import_tf
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.tflite.repair import repaired

if TYPE_CHECKING:
    import tensorflow as tf

SIGNATURE = "serving_default"
_IO_TYPES = {"float": "float32", "int8": "int8", "uint8": "uint8"}

Samples = Callable[[], Iterable[Any]]


class Refused(Exception):
    """The converter or the quantizer raised an error, in a form that every process can read.

    Attributes:
        operators: of the converter's error data: code, operator, and the names of the places it comes from.
    """

    def __init__(self, text: str, operators: tuple[tuple[str, str, tuple[str, ...]], ...] = ()):
        super().__init__(text, operators)
        self.operators = operators

    def __str__(self) -> str:
        return str(self.args[0])


def warm() -> None:
    """Load TensorFlow, on the CPU only: the parent trains on what else there is."""
    import_tf().config.set_visible_devices([], "GPU")


def may_fork() -> bool:
    """Whether TensorFlow is loaded and has not begun to run: its threads start with its first operation (Linux)."""
    if sys.platform != "linux" or "tensorflow" not in sys.modules:
        return False
    from tensorflow.python.eager import context

    return context._context is None or not context._context._initialized


def convert(folder: str, plan: QuantizationPlan, samples: Samples | None, calibrate_only: bool) -> bytes:
    """Convert a SavedModel.

    Args:
        folder: of the SavedModel, which has the signature ``serving_default``.
        plan: number formats.
        samples: the representative dataset; for each sample the inputs by their names in the signature.
        calibrate_only: give the float32 file with the ranges that the samples reach.

    Raises:
        Refused: the converter refused the model.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
    if calibrate_only:
        _dynamic(converter, plan)
        converter._experimental_calibrate_only = True
    else:
        _SETTINGS[plan.mode](converter, plan)
    if plan.needs_samples and not plan.ranges_in_model:
        converter.representative_dataset = samples
    if plan.select_tf_ops:
        operators = {*converter.target_spec.supported_ops, tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS}
        converter.target_spec.supported_ops = sorted(operators, key=lambda ops: ops.value)
    return _bytes(converter.convert)


def quantize(calibrated: bytes, plan: QuantizationPlan, verify: bool) -> bytes:
    """Quantize a calibrated .tflite to int8; see :func:`edgeprune.convert.converter.quantize_calibrated`.

    Raises:
        Refused: the quantizer refused the file.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    dtype = getattr(tf, _IO_TYPES[plan.io])
    return _bytes(
        lambda: mlir_quantize(
            calibrated,
            input_data_type=dtype,
            output_data_type=dtype,
            enable_numeric_verify=verify,
            denylisted_nodes=list(plan.float_tensors) or None,
        )
    )


def _bytes(make: Callable[[], Any]) -> bytes:
    try:
        return repaired(bytes(make()))
    except Exception as error:  # they raise many types; all of them mean that there is no file
        raise Refused(str(error) or type(error).__name__, tuple(_operators(error))) from error


def _operators(error: Exception) -> Iterable[tuple[str, str, tuple[str, ...]]]:
    for data in getattr(error, "errors", []):
        if data.HasField("error_code"):
            code = type(data).ErrorCode.Name(data.error_code)
            yield code, data.operator.name, tuple(call.name for call in data.location.call)


def _float32(converter: tf.lite.TFLiteConverter, plan: QuantizationPlan) -> None:
    import tensorflow as tf

    # Not for quantized weights: the int8 file was larger, and XNNPACK refused to load it.
    if plan.sparse:
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]


def _float16(converter: tf.lite.TFLiteConverter, plan: QuantizationPlan) -> None:
    import tensorflow as tf

    _dynamic(converter, plan)
    converter.target_spec.supported_types = [tf.float16]


def _dynamic(converter: tf.lite.TFLiteConverter, plan: QuantizationPlan) -> None:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _int8(converter: tf.lite.TFLiteConverter, plan: QuantizationPlan) -> None:
    import tensorflow as tf

    _dynamic(converter, plan)
    if not plan.ranges_in_model:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if plan.io != "float":
        converter.inference_input_type = converter.inference_output_type = getattr(tf, _IO_TYPES[plan.io])


def _int16x8(converter: tf.lite.TFLiteConverter, plan: QuantizationPlan) -> None:
    import tensorflow as tf

    _dynamic(converter, plan)
    # Operators without a 16-bit kernel stay in float; a warning of the variant names them.
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        tf.lite.OpsSet.TFLITE_BUILTINS,
    ]


_SETTINGS: dict[str, Callable[[Any, QuantizationPlan], None]] = {
    "float32": _float32,
    "float16": _float16,
    "dynamic": _dynamic,
    "int8": _int8,
    "int16x8": _int16x8,
}
