"""Operations of ``keras.ops`` in a Keras 3 graph → layers and TensorFlow operations of a tf_keras graph: one table.

Where a layer computes the same, it is a layer, because tfmot can quantize those. Else it is a layer ``TFOpLambda``, as
tf_keras makes it itself when a TensorFlow function is called on its tensors.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence

from edgeprune.errors import ModelError
from edgeprune.models.graph import is_symbolic
from edgeprune.models.keras3_emit import Emitter
from edgeprune.models.types import Arguments, Config, Operation, Structure, Tensor
from edgeprune.models.walk import LayerCall

# (emitter, operation of Keras 3, its arguments with tensors of tf_keras, dtype of its first output) -> its outputs.
OperationRule = Callable[[Emitter, Operation, Arguments, str], Structure]
RULES: dict[str, OperationRule] = {}


def operation_rule(*names: str) -> Callable[[OperationRule], OperationRule]:
    """Enter a rule for the operations of ``keras.ops`` whose classes have these names."""

    def enter(function: OperationRule) -> OperationRule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def translate_operation(emitter: Emitter, call: LayerCall) -> Structure:
    """The tensors that stand for the outputs of a ``keras.ops`` operation.

    Raises:
        ModelError: the operation has no counterpart, or is called in a way that has none.
    """
    import tensorflow as tf

    operation = call.operation
    name = type(operation).__name__
    if name not in RULES or not type(operation).__module__.startswith("keras."):
        raise unsupported(operation, f"keras.ops operation {name}")
    arguments = inspect.signature(operation.call).bind(*call.args, **call.kwargs).arguments
    _refuse_variables(operation, arguments)
    arguments = tf.nest.map_structure(emitter.without_mask, arguments)
    return RULES[name](emitter, operation, arguments, call.outputs[0].dtype)


def unsupported(operation: Operation, what: str) -> ModelError:
    """The error for an operation that cannot be translated."""
    return ModelError(
        f"{operation.name!r}: there is no translation of the {what} to tf_keras.",
        expected="layers, and operations of keras.ops among: " + ", ".join(sorted(RULES)),
        fix="write this step with layers, or with operations that are in the list.",
    )


def _refuse_variables(operation: Operation, arguments: Arguments) -> None:
    import keras
    import tensorflow as tf

    if any(isinstance(value, keras.Variable) for value in tf.nest.flatten(arguments)):
        raise unsupported(operation, f"operation {type(operation).__name__} on a weight outside a layer")


def _only(arguments: Arguments) -> Structure:
    return next(iter(arguments.values()))


# keras.ops class → TensorFlow function of one tensor
_ELEMENTWISE = {
    **{"Absolute": "math.abs", "Negative": "math.negative", "Exp": "math.exp", "Expm1": "math.expm1"},
    **{"Log": "math.log", "Log1p": "math.log1p", "Sqrt": "math.sqrt", "Rsqrt": "math.rsqrt"},
    **{"Square": "math.square", "Reciprocal": "math.reciprocal", "Sign": "math.sign", "Floor": "math.floor"},
    **{"Ceil": "math.ceil", "Round": "math.round", "Sin": "math.sin", "Cos": "math.cos", "Tan": "math.tan"},
    **{"Erf": "math.erf", "LogSigmoid": "math.log_sigmoid", "StopGradient": "stop_gradient"},
    **{"LogicalNot": "math.logical_not", "ZerosLike": "zeros_like", "OnesLike": "ones_like"},
    **{"Arccos": "math.acos", "Arcsin": "math.asin", "Arctan": "math.atan", "Arccosh": "math.acosh"},
    **{"Arcsinh": "math.asinh", "Arctanh": "math.atanh", "Sinh": "math.sinh", "Cosh": "math.cosh"},
    **{"Erfinv": "math.erfinv", "Isnan": "math.is_nan", "Isinf": "math.is_inf", "Isfinite": "math.is_finite"},
    **{"Abs": "math.abs", "Copy": "identity"},
}
# keras.ops class → (TensorFlow function of two tensors, the layer for two tensors)
_BINARY = {
    **{"Add": ("math.add", "Add"), "Subtract": ("math.subtract", "Subtract")},
    **{"Multiply": ("math.multiply", "Multiply"), "Maximum": ("math.maximum", "Maximum")},
    **{"Minimum": ("math.minimum", "Minimum"), "Divide": ("math.divide", ""), "TrueDivide": ("math.divide", "")},
    **{"Power": ("math.pow", ""), "Mod": ("math.floormod", ""), "FloorDivide": ("math.floordiv", "")},
    **{"DivideNoNan": ("math.divide_no_nan", ""), "Arctan2": ("math.atan2", "")},
}
_COMPARISONS = {
    **{"Equal": "math.equal", "NotEqual": "math.not_equal", "Greater": "math.greater", "Less": "math.less"},
    **{"GreaterEqual": "math.greater_equal", "LessEqual": "math.less_equal"},
    **{"LogicalAnd": "math.logical_and", "LogicalOr": "math.logical_or", "LogicalXor": "math.logical_xor"},
}
_REDUCTIONS = {
    **{"Mean": "math.reduce_mean", "Sum": "math.reduce_sum", "Max": "math.reduce_max", "Min": "math.reduce_min"},
    **{"Amax": "math.reduce_max", "Amin": "math.reduce_min", "Prod": "math.reduce_prod", "Var": "math.reduce_variance"},
    **{"Std": "math.reduce_std", "Any": "math.reduce_any", "All": "math.reduce_all"},
    "Logsumexp": "math.reduce_logsumexp",
}
_WITH_INITIAL = {"Max": "math.maximum", "Min": "math.minimum"}
# keras.ops class → (layer, its configuration)
_LAYERS: dict[str, tuple[str, Config]] = {
    "Relu": ("ReLU", {}),
    "Relu6": ("ReLU", {"max_value": 6.0}),
    "Silu": ("Activation", {"activation": "swish"}),
    "Mish": ("Activation", {"activation": "mish"}),
    **{n: ("Activation", {"activation": n.lower()}) for n in ("Sigmoid", "Tanh", "Softplus", "Softsign", "Selu")},
}


@operation_rule(*_ELEMENTWISE)
def _elementwise(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    tensor = _only(arguments)
    if decimals := getattr(operation, "decimals", 0):  # of Round
        scaled = emitter.op("math.multiply", tensor, 10.0**decimals, suffix="scaled")
        return emitter.op("math.divide", emitter.op("math.round", scaled, suffix="whole"), 10.0**decimals)
    if dtype != "bool":
        tensor = emitter.cast(tensor, dtype)
    return emitter.op(_ELEMENTWISE[type(operation).__name__], tensor)


@operation_rule(*_BINARY)
def _binary(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    function, layer = _BINARY[type(operation).__name__]
    pair = [emitter.cast(arguments[key], dtype) for key in ("x1", "x2")]
    same_rank = all(map(is_symbolic, pair)) and len(pair[0].shape) == len(pair[1].shape)
    return emitter.layer(layer, pair) if layer and same_rank else emitter.op(function, *pair)


@operation_rule(*_COMPARISONS)
def _comparison(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    import keras

    pair, name = [arguments["x1"], arguments["x2"]], type(operation).__name__
    types = [value.dtype.name if is_symbolic(value) else getattr(value, "dtype", type(value)) for value in pair]
    common = "bool" if name.startswith("Logical") else keras.backend.result_type(*types)
    pair = [emitter.cast(value, common) for value in pair]
    return emitter.op(_COMPARISONS[name], *pair)


@operation_rule(*_REDUCTIONS)
def _reduction(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    name, initial = type(operation).__name__, getattr(operation, "initial", None)
    tensor = emitter.cast(_only(arguments), dtype)
    axis = list(operation.axis) if isinstance(operation.axis, tuple) else operation.axis
    settings = {"keepdims": operation.keepdims}
    if initial is None:
        return emitter.op(_REDUCTIONS[name], tensor, axis, **settings)
    if name not in _WITH_INITIAL:
        raise unsupported(operation, f"{name} with an initial value")
    reduced = emitter.op(_REDUCTIONS[name], tensor, axis, suffix="reduced", **settings)
    return emitter.op(_WITH_INITIAL[name], reduced, initial)


@operation_rule("Average")
def _average(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    if arguments.get("weights") is not None:
        raise unsupported(operation, "Average with weights")
    return emitter.op("math.reduce_mean", emitter.cast(arguments["x"], dtype), operation.axis)


@operation_rule(*_LAYERS)
def _as_layer(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    class_name, config = _LAYERS[type(operation).__name__]
    return emitter.layer(class_name, _only(arguments), **config)


@operation_rule("ReLU")
def _relu(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    """``keras.activations.relu``, which has all arguments of the layer."""
    config = {key: getattr(operation, key) for key in ("max_value", "negative_slope", "threshold")}
    return emitter.layer("ReLU", _only(arguments), **config)


@operation_rule("LeakyRelu", "Elu", "Gelu", "Softmax", "LogSoftmax")
def _with_argument(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    name, tensor = type(operation).__name__, _only(arguments)
    if name == "LeakyRelu":
        return emitter.layer("LeakyReLU", tensor, alpha=operation.negative_slope)
    if name == "Elu":
        return emitter.layer("ELU", tensor, alpha=operation.alpha)
    if name == "Softmax" and operation.axis is not None:
        return emitter.layer("Softmax", tensor, axis=operation.axis)
    if name == "LogSoftmax" and operation.axis is not None:
        return emitter.op("nn.log_softmax", tensor, axis=operation.axis)
    if name == "Gelu":
        approximate = operation.approximate
        return (
            emitter.op("nn.gelu", tensor, approximate=True)
            if approximate
            else emitter.layer("Activation", tensor, activation="gelu")
        )
    raise unsupported(operation, f"{name} with these arguments")


def _hard_sigmoid(emitter: Emitter, tensor: Tensor) -> Structure:
    return _gate(emitter, tensor, "")


def _gate(emitter: Emitter, tensor: Tensor, suffix: str) -> Structure:
    shifted = emitter.op("math.add", tensor, 3.0, suffix="plus_3")
    clipped = emitter.layer("ReLU", shifted, suffix="relu6", max_value=6.0)
    return emitter.op("math.multiply", clipped, 1.0 / 6.0, suffix=suffix)


def _hard_silu(emitter: Emitter, tensor: Tensor) -> Structure:
    """x · relu6(x + 3) / 6, in the form that the TFLite converter fuses into HARD_SWISH."""
    return emitter.layer("Multiply", [tensor, _gate(emitter, tensor, "gate")])


# Activations that tf_keras lacks, or has in another form, by the name that Keras 3 gives them.
ACTIVATIONS: dict[str, Callable[[Emitter, Tensor], Structure]] = {
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
    "hard_swish": _hard_silu,
    "relu6": lambda emitter, x: emitter.layer("ReLU", x, max_value=6.0),
    "leaky_relu": lambda emitter, x: emitter.layer("LeakyReLU", x, alpha=0.2),
    "log_softmax": lambda emitter, x: emitter.op("nn.log_softmax", x, axis=-1),
    "log_sigmoid": lambda emitter, x: emitter.op("math.log_sigmoid", x),
    "hard_tanh": lambda emitter, x: emitter.op("clip_by_value", x, -1.0, 1.0),
    # More are entered by keras3_decompose.
}


@operation_rule("HardSigmoid", "HardSilu", "HardTanh")
def _activation(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    names = {"HardSigmoid": "hard_sigmoid", "HardSilu": "hard_silu", "HardTanh": "hard_tanh"}
    return ACTIVATIONS[names[type(operation).__name__]](emitter, _only(arguments))


@operation_rule("Clip")
def _clip(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    if operation.x_min is None or operation.x_max is None:
        function, bound = (
            ("math.minimum", operation.x_max) if operation.x_min is None else ("math.maximum", operation.x_min)
        )
        return emitter.op(function, arguments["x"], bound)
    return emitter.op("clip_by_value", emitter.cast(arguments["x"], dtype), operation.x_min, operation.x_max)


@operation_rule("Cast")
def _cast(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    return emitter.op("cast", arguments["x"], dtype)


@operation_rule("Matmul")
def _matmul(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    a, b = (emitter.cast(arguments[key], dtype) for key in ("x1", "x2"))
    if any(len(x.shape) < 2 for x in (a, b)):
        raise unsupported(operation, "Matmul with a vector")
    return emitter.op("linalg.matmul", a, b)


@operation_rule("Tensordot")
def _tensordot(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    return emitter.op("tensordot", arguments["x1"], arguments["x2"], operation.axes)


@operation_rule("Where")
def _where(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    if arguments.get("x1") is None or arguments.get("x2") is None:
        raise unsupported(operation, "Where with one argument")
    pair = [emitter.cast(arguments[key], dtype) for key in ("x1", "x2")]
    return emitter.op("where", emitter.cast(arguments["condition"], "bool"), *pair)


@operation_rule("Argmax", "Argmin")
def _argument(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    name, axis = type(operation).__name__, operation.axis
    if axis is None:
        raise unsupported(operation, f"{name} over everything")
    found = {"axis": axis, "output_type": dtype}
    if not operation.keepdims:
        return emitter.op(f"math.{name.lower()}", arguments["x"], **found)
    return emitter.op("expand_dims", emitter.op(f"math.{name.lower()}", arguments["x"], suffix="places", **found), axis)


@operation_rule("Cumsum", "Cumprod")
def _cumulative(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    name = type(operation).__name__
    if operation.axis is None:
        raise unsupported(operation, f"{name} without an axis")
    return emitter.op(f"math.{name.lower()}", emitter.cast(arguments["x"], dtype), axis=operation.axis)


@operation_rule("TopK")
def _top_k(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    return emitter.op("math.top_k", arguments["x"], k=operation.k, sorted=operation.sorted)


@operation_rule("ConvertToTensor")
def _convert(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    return emitter.op("cast", arguments["x"], dtype)


@operation_rule("RGBToGrayscale")
def _grayscale(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    channels_last(operation)
    if arguments["images"].shape[-1] == 1:
        return emitter.op("identity", arguments["images"])
    return emitter.op("image.rgb_to_grayscale", arguments["images"])


@operation_rule("OneHot")
def _one_hot(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    indices = emitter.cast(arguments["x"], "int32")
    return emitter.op("one_hot", indices, operation.num_classes, axis=operation.axis, dtype=dtype)


def channels_last(operation: Operation) -> None:
    """Raise for an operation on images whose channels come first."""
    if getattr(operation, "data_format", None) == "channels_first":
        raise unsupported(operation, f"{type(operation).__name__} with data_format='channels_first'")


@operation_rule("MaxPool", "AveragePool")
def _pool(emitter: Emitter, operation: Operation, arguments: Arguments, dtype: str) -> Structure:
    channels_last(operation)
    tensor = arguments["inputs"]
    kind = "Max" if type(operation).__name__ == "MaxPool" else "Average"
    config = {key: getattr(operation, key) for key in ("pool_size", "strides", "padding")}
    return emitter.layer(f"{kind}Pooling{len(tensor.shape) - 2}D", tensor, **config)


def whole_batch(shape: Sequence[int | None], tensor: Tensor) -> bool:
    """Whether reshaping ``tensor`` to ``shape`` leaves each sample's values in that sample."""
    known = tensor.shape[1:]
    return (
        len(shape) > 0
        and shape[0] in (-1, None)
        and None not in known
        and all(size is not None and size > 0 for size in shape[1:])
        and math.prod(shape[1:]) == math.prod(known)  # type: ignore[arg-type]
    )
