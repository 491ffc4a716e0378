"""What the converter says when it refuses a model → what the user can do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgeprune.errors import ConversionError

if TYPE_CHECKING:
    import tf_keras

SELECT = (
    "replace the layer; or allow operators of full TensorFlow with `[convert] select_tf_ops = true`, if the runtime on "
    "the device has them (Android's tensorflow-lite-select-tf-ops; ai-edge-litert and tflite-runtime do not)."
)
CUSTOM = "replace the layer, or take it out of the model: no runtime has this operator."
FORMAT = "build this model in another format: `[quantize] modes` takes int8, int16x8, dynamic, float16."
UNKNOWN = "use --debug for the converter's whole output; a layer without a TFLite operator must be replaced."

# The code in the converter's error data → what to do.
_BY_CODE = {"ERROR_NEEDS_FLEX_OPS": SELECT, "ERROR_NEEDS_CUSTOM_OPS": CUSTOM}
# A message of the quantizer, which has no error data; the group is the operator.
_BY_MESSAGE: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"Quantization to 16x8-bit not yet supported for op: '?(\w+)"), FORMAT),
    (re.compile(r"Quantization not yet supported for op: '?(\w+)"), FORMAT),
)


def translate(error: Exception, model: tf_keras.Model, mode: str) -> ConversionError:
    """The converter's exception in the user's terms: operator, layer, and what to do.

    Args:
        error: as the converter raised it.
        model: what was being converted.
        mode: the number format.
    """
    for data in getattr(error, "errors", []):
        code = type(data).ErrorCode.Name(data.error_code) if data.HasField("error_code") else ""
        if code in _BY_CODE:
            layers = layers_of([call.name for call in data.location.call], model)
            return _refused(model, mode, data.operator.name.removeprefix("tf."), layers, _BY_CODE[code])
    text = str(error)
    for pattern, fix in _BY_MESSAGE:
        if found := pattern.search(text):
            return _refused(model, mode, found.group(1), (), fix)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reason = (lines[0] if lines else type(error).__name__).rstrip(".")
    return ConversionError(f"TensorFlow's converter refused {model.name!r} as {mode}: {reason}.", fix=UNKNOWN)


def layers_of(names: Sequence[str], model: tf_keras.Model) -> tuple[str, ...]:
    """The layers that graph names such as ``model/block/conv/BiasAdd;model/block/conv/Conv2D`` come from, in order."""
    known = sorted((layer.name for layer in model.layers), key=len, reverse=True)
    found = (_layer_in(part, known) for name in names for part in name.split(";"))
    return tuple(dict.fromkeys(name for name in found if name))


def layer_of(tensor: str, model: tf_keras.Model) -> str | None:
    """The layer that computes a tensor of a .tflite.

    What is fused into one operator is named together; of these, the layer with a kernel does the computing.
    """
    names = layers_of([tensor], model)
    weighted = (n for n in names if any(hasattr(model.get_layer(n), key) for key in ("kernel", "depthwise_kernel")))
    return next(weighted, names[0] if names else None)


def _layer_in(scope: str, known: Sequence[str]) -> str | None:
    """The longest layer name that is whole path parts of ``scope``; layer names may hold slashes themselves."""
    inner = f"/{scope.partition('@')[0]}/"
    return next((name for name in known if f"/{name}/" in inner), None)


def _refused(model: Any, mode: str, operator: str, layers: Sequence[str], fix: str) -> ConversionError:
    where = f", from the layer {layers[0]!r}," if layers else ""
    return ConversionError(
        f"{model.name!r} cannot be converted as {mode}: the operator {operator}{where} has no TFLite counterpart."
        if fix is not FORMAT
        else f"{model.name!r} cannot be converted as {mode}: the operator {operator} has no kernel in this format.",
        expected="operators that TensorFlow Lite has.",
        fix=fix,
    )
