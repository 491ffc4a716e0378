"""What the converter says when it refuses a model → what the user can do about it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprune.convert.blame import layer_at_fault
from edgeprune.errors import ConversionError
from edgeprune.models.naming import layers_of
from edgeprune.models.types import Layer
from edgeprune.recipe.config import Mode
from edgeprune.runtime.trial import FileRefused
from edgeprune.workers import WorkerDied

if TYPE_CHECKING:
    import tf_keras


@dataclass(frozen=True)
class Refusal:
    """A kind of refusal: what the operator lacks, and what to do."""

    lacks: str
    fix: str


SELECT = Refusal(
    "has no TFLite counterpart",
    "replace the layer; or allow operators of full TensorFlow with `[convert] select_tf_ops = true`, if the runtime on "
    "the device has them (Android's tensorflow-lite-select-tf-ops; ai-edge-litert and tflite-runtime do not).",
)
CUSTOM = Refusal(
    "has no TFLite counterpart", "replace the layer, or take it out of the model: no runtime has this operator."
)
FORMAT = Refusal(
    "has no kernel in this format",
    "build this model in another format: `[quantize] modes` takes int8, int16x8, dynamic, float16.",
)
UNKNOWN = "use --debug for the converter's whole output; a layer without a TFLite operator must be replaced."

# The code in the converter's error data.
_BY_CODE = {"ERROR_NEEDS_FLEX_OPS": SELECT, "ERROR_NEEDS_CUSTOM_OPS": CUSTOM}
# A message of the quantizer, which has no error data; the group is the operator.
_BY_MESSAGE: tuple[tuple[re.Pattern[str], Refusal], ...] = (
    (re.compile(r"Quantization to 16x8-bit not yet supported for op: '?(\w+)"), FORMAT),
    (re.compile(r"Quantization not yet supported for op: '?(\w+)"), FORMAT),
)
# The quantizer to 16 bits wants a range of whole numbers, too, where they are compared or computed with: of ids that
# are masked, for one. A calibration gives none.
_NO_RANGE = re.compile(r"Max and min for dynamic tensors should be recorded during calibration: .*tensor (\S+?):\d+")
# The converter's compiler names the places in the graph before it says what is wrong there.
_PLACED = re.compile(r"loc\((?P<places>.*)\): (?P<reason>.*)")


def translate(error: Exception, model: tf_keras.Model, mode: str) -> ConversionError:
    """The converter's exception in the user's terms: operator, layer, and what to do.

    Args:
        error: of the converter (:class:`edgeprune.convert.native.Refused`) or another quantizer.
        model: what was being converted.
        mode: the number format.
    """
    for code, operator, calls in getattr(error, "operators", ()):
        if code in _BY_CODE:
            return _refused(model, mode, operator.removeprefix("tf."), layers_of(calls, model), _BY_CODE[code])
    text = str(error)
    for pattern, refusal in _BY_MESSAGE:
        if match := pattern.search(text):
            return _refused(model, mode, match.group(1), (), refusal)
    match = _NO_RANGE.search(text)
    name = match.group(1).removeprefix("serving_default_") if match else ""
    if name in _of_whole_numbers(model):
        return ConversionError(
            f"{model.name!r} cannot be converted as {mode}: the quantizer computes with the whole numbers in {name!r}, "
            "for which there is no range.",
            expected="whole numbers that are only looked up, as by an Embedding without a mask.",
            fix=FORMAT.fix,
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reason = (lines[0] if lines else type(error).__name__).rstrip(".")
    fix = UNKNOWN
    if placed := _PLACED.search(reason):
        reason = placed["reason"]
        if layers := layers_of(re.findall(r'"([^"]+)"', placed["places"]), model):
            listed = ", ".join(map(repr, layers[:4]))
            reason += f" (in the layers: {listed})"
            fix = f"replace one of these layers, or give it other sizes: {listed}."
    return ConversionError(f"TensorFlow's converter refused {model.name!r} as {mode}: {reason}.", fix=fix)


def _of_whole_numbers(model: tf_keras.Model) -> list[str]:
    """The names of the inputs that take integers."""
    named = zip(model.input_names, model.inputs, strict=True)
    return [name for name, tensor in named if tensor.dtype.is_integer]


# Formats that are offered where another is fatal, the smallest file first.
OFFERED: tuple[Mode, ...] = ("dynamic", "float16", "float32")


def fatal(
    death: WorkerDied | FileRefused, model: tf_keras.Model, mode: Mode, dies: Callable[[tf_keras.Model, Mode], bool]
) -> ConversionError:
    """The error for a model that ended the converter's process, or the interpreter's, or whose file is refused.

    It names the layer, if it can be found, and a format that works, if there is one.

    Args:
        death: of the process, or the refusal.
        model: what was being converted.
        mode: the number format.
        dies: whether the same happens to a part of the model in a number format.
    """
    layer = layer_at_fault(model, lambda part: dies(part, mode))
    works = next((other for other in OFFERED if other != mode and not dies(model, other)), None)
    where = f" at the layer {layer.name!r} ({type(layer).__name__})" if layer else ""
    change = _change(layer) if layer else "find the layer by converting parts of the model"
    said = f" Its last words: {death.said}." if death.said else ""
    return ConversionError(
        f"{model.name!r} cannot be built as {mode}: {death.worker} {death.how}{where}.{said}",
        fix=f'{change}; or build it as {works}, which works: `[quantize] modes = ["{works}"]`.'
        if works
        else f"{change}.",
    )


def _change(layer: Layer) -> str:
    """What to do about a layer at fault."""
    if type(layer).__name__ == "LayerNormalization":
        axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
        if math.prod(layer.input_shape[axis] or 0 for axis in axes) == 1:
            return f"leave out the layer {layer.name!r}: over one feature, its output is the same for every input"
    return f"replace the layer {layer.name!r}"


def _refused(
    model: tf_keras.Model, mode: str, operator: str, layers: Sequence[str], refusal: Refusal
) -> ConversionError:
    where = f", from the layer {layers[0]!r}," if layers else ""
    return ConversionError(
        f"{model.name!r} cannot be converted as {mode}: the operator {operator}{where} {refusal.lacks}.",
        expected="operators that TensorFlow Lite has.",
        fix=refusal.fix,
    )
