"""Quantization-aware training: a model trains with the rounding of its int8 file (Jacob et al., arXiv:1712.05877).

The pieces are tfmot's (``QuantizeWrapperV2``, ``QuantizeLayer``, quantizers, ``QuantizeConfig``); where they are placed
is decided here, by the tables of :mod:`edgeprune.quantize.rules`. tfmot's own placement matches patterns of layers,
refuses every layer that it does not know, and leaves batch normalization unfolded unless it follows a convolution
(tfmot#363).

Ranges of activations start from training samples: from tfmot's -6..6, a short training would not reach them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.models.graph import CallKey
from edgeprune.models.rebuild import MakeLayer, copy_layer, copy_trainable, rebuild
from edgeprune.models.types import Layer, Tensor, Variable
from edgeprune.quantize.prepare import prepare
from edgeprune.quantize.quantizers import kernel_config, stored_kernel
from edgeprune.quantize.ranges import Point, RoundOne, observe, rounded
from edgeprune.quantize.rules import KERNELS, kernel_rule
from edgeprune.quantize.structure import Structure, check_kept, structures

if TYPE_CHECKING:
    import tf_keras

# Training for int8 pays if most of the work becomes int8.
MIN_QUANTIZED_MACS = 0.5
# An empty range has no scale; activations that are always zero get this one.
_SMALLEST_RANGE = 1e-5


@dataclasses.dataclass(frozen=True)
class Preserved:
    """What earlier methods of the recipe made of the weights, and training must keep.

    Attributes:
        zeros: whether weights were pruned.
        clustered: names of the layers whose weights are shared.
    """

    zeros: bool = False
    clustered: tuple[str, ...] = ()


@dataclasses.dataclass
class Trainee:
    """A model in quantization-aware training.

    Attributes:
        model: what is trained: kernels and activations are rounded in the forward pass.
        prepared: the same model without rounding; the one that :meth:`baked` starts from.
        kept: layer name → what is kept of its kernel.
        rounders: tensor that is rounded → the layer that rounds it and learns its range.
    """

    model: tf_keras.Model
    prepared: tf_keras.Model
    kept: dict[str, Structure]
    rounders: dict[Point, Layer]

    def baked(self) -> tf_keras.Model:
        """The trained model as an ordinary one: weights on their int8 grid, activations rounded by operations.

        Raises:
            VerificationError: zeros or clusters were lost in training.
        """
        baked = _rebuild(self.prepared, copy_layer, self._round)
        for layer in self.prepared.layers:
            copy_trainable(layer, baked.get_layer(layer.name))
            baked.get_layer(layer.name).set_weights(self._weights(layer))
        check_kept(baked, self.kept)
        return baked

    def _round(self, point: Point, tensor: Tensor) -> Tensor:
        import tensorflow as tf

        if point not in self.rounders:
            return tensor
        low, high = (float(variable.numpy()) for variable in self.limits(point))
        name = _rounder_name(point)
        return tf.quantization.fake_quant_with_min_max_vars(
            tensor, low, max(high, low + _SMALLEST_RANGE), num_bits=8, name=name
        )

    def limits(self, point: Point) -> tuple[Variable, Variable]:
        """The range of a point as training left it."""
        variables = self.rounders[point].quantizer_vars
        return variables["min_var"], variables["max_var"]

    def _weights(self, layer: Layer) -> list[np.ndarray]:
        if not _trains_kernel(layer):
            names = {item.name for item in self.model.layers}
            return self.model.get_layer(layer.name).get_weights() if layer.name in names else layer.get_weights()
        wrapper = self.model.get_layer(_wrapper_name(layer))
        (kernel, quantizer, _), *_ = wrapper._weight_vars
        bias = [wrapper.layer.bias.numpy()] if layer.use_bias else []
        return [quantizer(kernel, False, {}).numpy(), *bias]


def prepare_training(model: tf_keras.Model, samples: Iterable[Any], preserve: Preserved) -> Trainee:
    """Make a model ready for quantization-aware training.

    Args:
        model: flat functional tf_keras model.
        samples: batches of training inputs, for the first ranges of activations.
        preserve: what must stay as it is.
    """
    prepared = prepare(model)
    kept = structures(prepared, zeros=preserve.zeros, clustered=list(preserve.clustered))
    return _trainee(prepared, kept, observe(prepared, samples))


def share_weights(prepared: tf_keras.Model, kept: dict[str, Structure]) -> Trainee:
    """Make a clustered model ready for fine-tuning its shared weights; nothing is rounded.

    Args:
        prepared: as :func:`edgeprune.quantize.prepare.prepare` makes it.
        kept: its clusters and zeros (:func:`edgeprune.quantize.cluster.cluster`).
    """
    return _trainee(prepared, kept, None)


def _trainee(
    prepared: tf_keras.Model, kept: dict[str, Structure], limits: dict[Point, tuple[float, float]] | None
) -> Trainee:
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_layer import QuantizeLayer
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapperV2
    from tensorflow_model_optimization.python.core.quantization.keras.quantizers import MovingAverageQuantizer

    rounders: dict[Point, Layer] = {}

    def make(layer: Layer) -> Layer:
        copy = copy_layer(layer)
        if not _trains_kernel(layer):
            return copy
        config = kernel_config(layer, kept.get(layer.name), rounds=limits is not None)
        return QuantizeWrapperV2(copy, config, name=_wrapper_name(layer))

    def round_one(point: Point, tensor: Tensor) -> Tensor:
        if limits is None or point not in limits:
            return tensor
        quantizer = MovingAverageQuantizer(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)
        rounders[point] = QuantizeLayer(quantizer, name=_rounder_name(point))
        return rounders[point](tensor)

    trained = _rebuild(prepared, make, round_one)
    _fill(trained, prepared, kept, rounds=limits is not None)
    for point, (low, high) in (limits or {}).items():
        variables = rounders[point].quantizer_vars
        variables["min_var"].assign(low)
        variables["max_var"].assign(max(high, low + _SMALLEST_RANGE))
    return Trainee(trained, prepared, kept, rounders)


def refusal(model: tf_keras.Model) -> str | None:
    """Why quantization-aware training has no use for a model, or None.

    What has no rule stays float; if that is most of the multiply-accumulates, training for int8 would train little.
    """
    from edgeprune.models.count import count

    classes = {layer.name: type(layer).__name__ for layer in model.layers}
    rows = [row for row in count(model).layers if row.macs]
    total = sum(row.macs for row in rows)
    known = {*KERNELS, "SeparableConv2D"}
    others = [row for row in rows if classes.get(row.name) not in known]
    if not rows or len(others) == len(rows):
        listed = ", ".join(sorted({row.kind for row in rows})) or "none"
        return f"no layer can be trained with rounded weights (its layers with multiply-accumulates: {listed})"
    share = sum(row.macs for row in others) / total
    if share <= 1 - MIN_QUANTIZED_MACS:
        return None
    listed = ", ".join(f"{row.name} ({row.kind})" for row in others)
    return f"{share:.0%} of its multiply-accumulates are in layers whose weights it cannot round: {listed}"


def _rebuild(prepared: tf_keras.Model, make: MakeLayer, round_one: RoundOne) -> tf_keras.Model:
    make_once = functools.cache(make)

    def emit(layer: Layer, key: CallKey, args: Any, kwargs: Any) -> Any:
        return rounded(make_once(layer)(*args, **kwargs), key, round_one)

    def emit_input(layer: Layer) -> Any:
        return rounded(copy_layer(layer).output, (layer.name, 0), round_one)

    return rebuild(prepared, emit, emit_input=emit_input)


def _trains_kernel(layer: Layer) -> bool:
    """Whether the kernel of a layer changes, and is rounded in each step; that of a frozen one is rounded once."""
    return kernel_rule(layer) is not None and layer.trainable


def _fill(trained: tf_keras.Model, prepared: tf_keras.Model, kept: dict[str, Structure], *, rounds: bool) -> None:
    for layer in prepared.layers:
        weights = layer.get_weights()
        if not _trains_kernel(layer):
            if not weights:
                continue
            if kernel_rule(layer) is not None:
                weights[0] = stored_kernel(weights[0], layer, kept.get(layer.name), rounds=rounds)
            copy_trainable(layer, trained.get_layer(layer.name))
            trained.get_layer(layer.name).set_weights(weights)
            continue
        wrapper = trained.get_layer(_wrapper_name(layer))
        kernel, *bias = weights
        wrapper._weight_vars[0][0].assign(kernel)
        if bias:
            wrapper.layer.bias.assign(bias[0])


def _wrapper_name(layer: Layer) -> str:
    return f"quant_{layer.name}"


def _rounder_name(point: Point) -> str:
    name, call, place = point
    return "_".join([name, "range", *(str(part) for part in (call, place) if part)])
