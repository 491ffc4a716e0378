"""A model with the channels before the positions (NCHW) → the same with the channels last, as TFLite computes.

Every tensor of the new model is one of the old with its axes in some order, which is tracked. A layer whose rule knows
how takes its inputs with the channels last and gives its outputs so; any other is called on inputs in the order that it
had, behind a ``Permute``. So a model of ordinary layers keeps two: behind its inputs and before its outputs, which stay
as they were for the user.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import ModelError
from edgeprune.models.graph import CallKey, View, activation_name, flat, is_symbolic, symbol_of
from edgeprune.models.rebuild import config_of, copy_trainable, make_like, rebuild
from edgeprune.models.types import Arguments, Config, Layer, Structure, Tensor, Value
from edgeprune.models.verify import difference_of, has_channels_first, tolerance

if TYPE_CHECKING:
    import tf_keras

_log = logging.getLogger(__name__)

# The order of the axes of a new tensor, as axes of the old one; the batch is 0.
Order = tuple[int, ...]

# Layers whose kernels are the same in both formats; of LocallyConnected, they are not.
_WITH_FORMAT = {
    *("Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose", "DepthwiseConv1D"),
    *("DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "Flatten"),
    *(f"{kind}Pooling{n}D" for kind in ("Max", "Average", "GlobalMax", "GlobalAverage") for n in (1, 2, 3)),
    *(f"{kind}{n}D" for kind in ("UpSampling", "ZeroPadding", "Cropping", "SpatialDropout") for n in (1, 2, 3)),
}
# Layers with the positions of a step behind an axis of time.
_WITH_TIME = {"TimeDistributed", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"}
_WITH_AXIS = {"BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization", "Softmax"}
_BY_POSITION = {
    *("Activation", "ReLU", "LeakyReLU", "ELU", "ThresholdedReLU", "Dropout", "GaussianNoise", "GaussianDropout"),
    *("AlphaDropout", "ActivityRegularization", "Add", "Multiply", "Subtract", "Maximum", "Minimum", "Average"),
    *("Rescaling",),
}
# Operations on tensors of one shape, and numbers.
_OPERATIONS = {
    *("math.add", "math.subtract", "math.multiply", "math.divide", "math.maximum", "math.minimum", "math.abs"),
    *("__operators__.add", "__operators__.sub", "__operators__.mul", "__operators__.truediv", "__operators__.neg"),
    *("nn.relu", "nn.relu6", "nn.elu", "nn.selu", "nn.gelu", "nn.silu", "nn.leaky_relu", "math.sigmoid", "math.tanh"),
    *("math.exp", "math.sqrt", "math.square", "math.rsqrt", "math.softplus", "nn.softplus", "nn.swish", "math.pow"),
    *("clip_by_value", "cast", "identity", "stop_gradient"),
}
# Functions that mix the numbers along the last axis, whatever it is.
_ALONG_LAST = {"softmax", "log_softmax", "softmax_v2", "glu"}


def channels_last(model: tf_keras.Model) -> tf_keras.Model:
    """The same model, inputs and outputs as they were, with the channels last in all layers.

    Args:
        model: flat functional tf_keras model.

    Returns:
        ``model`` itself if no layer has the channels first; else a new model, not compiled.

    Raises:
        ModelError: a layer cannot be turned, named; or the outputs differ.
    """
    if not has_channels_first(model):
        return model
    new = _turned(model, stay_turned=True)
    difference, against = _difference(model, new)
    allowed = tolerance(new.layers)
    if not difference <= allowed:
        raise ModelError(
            f"The model {model.name!r} computes something else once its channels are the last axis: its outputs differ "
            f"by {difference:.1e} of the largest.",
            expected=f"at most {allowed:.0e}",
            fix='build it with data_format="channels_last"; and please report it.',
        )
    _log.warning(
        "The model has its channels first, which TFLite has not: rebuilt with the channels last, behind a transpose of "
        "its inputs, which stay as they were (checked against %s; outputs differ by %.1e of the largest).",
        against,
        difference,
    )
    return new


def _difference(model: tf_keras.Model, new: tf_keras.Model) -> tuple[float, str]:
    """How far the new model is from the old one, and what that was computed by."""
    import tensorflow as tf

    # XLA does not compile every operation; each layer between two transposes of its own is the next best reference.
    try:
        return difference_of(model, new), "the model as XLA computes it"
    except (tf.errors.OpError, NotImplementedError, ValueError, TypeError):
        _log.debug("XLA does not compute %r.", model.name, exc_info=True)
        return difference_of(_turned(model, stay_turned=False), new), "each layer between transposes"


def _turned(model: tf_keras.Model, *, stay_turned: bool) -> tf_keras.Model:
    """The model with the channels last in every layer; without ``stay_turned``, each gives its outputs as it did."""
    turner = _Turner(model, stay_turned)
    new = rebuild(model, turner.emit)
    turner.fill()
    return new


def _last(rank: int, time: bool = False) -> Order:
    """The channels behind the positions; those of a step stand behind the time."""
    first = 2 if time and rank > 3 else 1
    return (*range(first), *range(first + 1, rank), first) if rank > 2 else tuple(range(rank))


class _Turner:
    """The calls of the new model, and in which order each of its tensors has its axes."""

    def __init__(self, model: tf_keras.Model, stay_turned: bool):
        self._view = View(model)
        self._stay = stay_turned
        self._orders: dict[int, Order] = {}
        self._known: dict[tuple[int, Order], Tensor] = {}
        self._made: dict[str, tuple[Layer, Layer, Callable[[list[np.ndarray]], list[np.ndarray]]]] = {}
        self._names = {layer.name for layer in model.layers}

    def emit(self, layer: Layer, key: CallKey, args: tuple[Structure, ...], kwargs: Arguments) -> Structure:
        rule = _rule(layer)
        outputs = rule(self, layer, args, kwargs) if rule else None
        if outputs is None:  # as it was
            outputs = self.copy(layer)(*self.each(args, None), **self.each(kwargs, None))
        node = self._view.calls[key]
        kept = [
            self.ordered(new, None, layer.name if self._view.is_end(old) else None)
            if not self._stay or self._view.is_end(old)
            else new
            for old, new in zip(flat(node.outputs), flat(outputs), strict=True)
        ]
        return kept[0] if len(kept) == 1 else kept

    def fill(self) -> None:
        """The weights."""
        for layer, new, change in self._made.values():
            copy_trainable(layer, new)
            new.set_weights(change(layer.get_weights()))

    def order(self, tensor: Tensor) -> Order:
        """Which axis of the old tensor each axis of the new one is."""
        return self._orders.get(id(tensor), tuple(range(len(tensor.shape))))

    def as_is(self, tensor: Tensor, order: Order) -> Tensor:
        """A tensor that a rule made, with the order that its axes have."""
        self._orders[id(tensor)] = order
        self._known[id(tensor), order] = tensor
        return tensor

    def ordered(self, tensor: Tensor, order: Order | None, name: str | None = None) -> Tensor:
        """A tensor with its axes in an order; None: that of the old model."""
        import tf_keras

        found = self.order(tensor)
        order = order or tuple(range(len(found)))
        if found == order:
            return tensor
        if (id(tensor), order) not in self._known:
            dims = [found.index(axis) for axis in order[1:]]
            name = name or self._unique(f"{tensor.node.layer.name}_transposed")
            made = tf_keras.layers.Permute(dims, dtype=tensor.dtype.name, name=name)(tensor)
            self._orders[id(made)] = order
            self._known[id(tensor), order], self._known[id(made), found] = made, tensor
        return self._known[id(tensor), order]

    def each(self, structure: Structure, order: Order | None) -> Structure:
        """Every tensor of a structure in an order; those of another rank, and all without one, in that of the model."""
        import tensorflow as tf

        def one(value: Value) -> Value:
            if not is_symbolic(value):
                return value
            return self.ordered(value, order if order and len(order) == len(value.shape) else None)

        return tf.nest.map_structure(one, structure)

    def copy(
        self,
        layer: Layer,
        config: Config | None = None,
        change: Callable[[list[np.ndarray]], list[np.ndarray]] = lambda weights: weights,
        *,
        is_last: bool = True,
    ) -> Layer:
        """The one new layer for a layer.

        The name of an output is that of its last layer: what stands behind the new layer takes it over.

        Args:
            is_last: whether nothing but a transpose stands behind it.
        """
        if layer.name not in self._made:
            turned = config is not None and any(
                self._view.is_end(tensor) and (len(tensor.shape) > 2 or not is_last)
                for node in self._view.uses(layer)
                for tensor in flat(node.outputs)
            )
            name = self._unique(f"{layer.name}_channels_last") if turned else layer.name
            self._made[layer.name] = (layer, make_like(layer, config or config_of(layer), name), change)
        return self._made[layer.name][1]

    def _unique(self, name: str) -> str:
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name


# (turner, layer, args and kwargs with the new tensors) -> outputs; None: the layer is called as it was.
Rule = Callable[[_Turner, Layer, tuple[Structure, ...], Arguments], Any]


def _rule(layer: Layer) -> Rule | None:
    kind, inner = type(layer).__name__, getattr(layer, "layer", None)
    if kind == "TimeDistributed" and _needs_turning(inner):
        return _with_format
    if getattr(layer, "data_format", None) == "channels_first" or _needs_turning(inner):
        if kind in _WITH_FORMAT:
            return _with_format
        raise ModelError(
            f"The layer {layer.name!r} ({kind}) has its channels first, and cannot be turned.",
            expected=f"channels first in these layers only: {', '.join(sorted(_WITH_FORMAT))}",
            fix='build that layer with data_format="channels_last", between two Permute layers.',
        )
    if kind == "TFOpLambda":
        return _by_position if symbol_of(layer) in _OPERATIONS else None
    return _RULES.get(kind)


def _needs_turning(inner: Layer | None) -> bool:
    return getattr(inner, "data_format", None) == "channels_first" and type(inner).__name__ in _WITH_FORMAT


def _with_format(turner: _Turner, layer: Layer, args: tuple[Structure, ...], kwargs: Arguments) -> Structure:
    """A layer that has a data_format: its channels go last."""
    import tf_keras

    time = type(layer).__name__ in _WITH_TIME
    config = _turned_format(config_of(layer))
    activation = activation_name(layer) if not time else "linear"
    along_last = activation in _ALONG_LAST
    if along_last:  # in Keras, over the last positions
        config["activation"] = "linear"
    new = turner.copy(layer, config, is_last=not along_last)
    inputs = [value for value in flat((args, kwargs)) if is_symbolic(value)]
    rank = len(inputs[0].shape)
    outputs = new(*turner.each(args, _last(rank, time)), **turner.each(kwargs, _last(rank, time)))
    for part in flat(outputs):
        turner.as_is(part, _last(len(part.shape), time and len(part.shape) == rank))
    if along_last:
        name = turner._unique(f"{layer.name}_{activation}") if new.name == layer.name else layer.name
        return tf_keras.layers.Activation(activation, name=name)(turner.ordered(outputs, None))
    return outputs


def _turned_format(config: Config) -> Config:
    """A configuration, and those within it, with the channels last."""
    turned = {
        key: _turned_format(value) if isinstance(value, dict) else "channels_last" if key == "data_format" else value
        for key, value in config.items()
    }
    return {key: value for key, value in turned.items() if key != "batch_input_shape"}


def _by_position(turner: _Turner, layer: Layer, args: tuple[Structure, ...], kwargs: Arguments) -> Structure | None:
    """One number in, one number out: in whichever order its inputs come."""
    import tensorflow as tf

    if type(layer).__name__ == "Activation" and activation_name(layer) in _ALONG_LAST:
        return None
    if getattr(layer, "noise_shape", None) or np.size(getattr(layer, "scale", 0)) > 1:
        return None
    inputs = [value for value in flat((args, kwargs)) if is_symbolic(value)]
    constants = [value for value in flat((args, kwargs)) if not is_symbolic(value) and np.ndim(_array(value))]
    order = next((turner.order(value) for value in inputs if turner.order(value) != _same(value)), None)
    if order is None or constants or len({len(value.shape) for value in inputs}) > 1:
        return None
    new = turner.copy(layer, config_of(layer))
    outputs = new(*turner.each(args, order), **turner.each(kwargs, order))
    return tf.nest.map_structure(lambda part: turner.as_is(part, order), outputs)


def _array(value: Value) -> Value:
    return value if isinstance(value, int | float | str | bool | type(None)) or hasattr(value, "shape") else None


def _same(tensor: Tensor) -> Order:
    return tuple(range(len(tensor.shape)))


def _with_axis(turner: _Turner, layer: Layer, args: tuple[Structure, ...], kwargs: Arguments) -> Structure | None:
    """A layer that works along one axis: along the same, where it stands now; TFLite fuses it along the last."""
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    (tensor,) = [value for value in flat(args) if is_symbolic(value)] or [None]
    if tensor is None or len(axes) != 1:
        return None
    rank = len(tensor.shape)
    axis = int(axes[0]) % rank
    if axis == 1 and turner.order(tensor) == _same(tensor):
        tensor = turner.ordered(tensor, _last(rank))
    order = turner.order(tensor)
    if order == _same(tensor):
        return None
    config = {**config_of(layer), "axis": order.index(axis)}
    return turner.as_is(turner.copy(layer, config)(tensor, **turner.each(kwargs, order)), order)


def _concatenate(turner: _Turner, layer: Layer, args: tuple[Structure, ...], kwargs: Arguments) -> Structure | None:
    inputs = flat((args, kwargs))
    order = next((turner.order(value) for value in inputs if turner.order(value) != _same(value)), None)
    if order is None:
        return None
    config = {**config_of(layer), "axis": order.index(int(layer.axis) % len(order))}
    return turner.as_is(turner.copy(layer, config)(turner.each(inputs, order)), order)


def _prelu(turner: _Turner, layer: Layer, args: tuple[Structure, ...], kwargs: Arguments) -> Structure | None:
    (tensor,) = flat(args)
    order = turner.order(tensor)
    if order == _same(tensor):
        return None
    shared = [order.index(axis) for axis in layer.shared_axes or ()] or None
    axes = [axis - 1 for axis in order[1:]]
    made = turner.copy(
        layer, {**config_of(layer), "shared_axes": shared}, lambda weights: [np.transpose(weights[0], axes)]
    )
    return turner.as_is(made(tensor), order)


def _permute(turner: _Turner, layer: Layer, args: tuple[Structure, ...], kwargs: Arguments) -> Structure | None:
    """A transpose is another order of the same tensor: nothing moves, unless it has to."""
    (tensor,) = flat(args)
    dims = (0, *layer.dims)
    order = tuple(dims.index(axis) for axis in turner.order(tensor))
    if len(turner._view.uses(layer)) > 1:
        return None
    # The same numbers under another name: an identity, because each order belongs to one tensor.
    return turner.as_is(_identity(turner, layer)(tensor), order)


@functools.cache
def _identity_function() -> Callable[[Tensor], Tensor]:
    import tensorflow as tf

    return tf.identity


def _identity(turner: _Turner, layer: Layer) -> Layer:
    from tf_keras.src.layers.core.tf_op_layer import TFOpLambda

    return TFOpLambda(_identity_function(), name=turner._unique(f"{layer.name}_kept"))


_RULES: dict[str, Rule] = {
    **dict.fromkeys(_BY_POSITION, _by_position),
    **dict.fromkeys(_WITH_AXIS, _with_axis),
    "Concatenate": _concatenate,
    "PReLU": _prelu,
    "Permute": _permute,
}
