"""Kernels rounded to int8 in the forward pass of training, as the file stores them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.models.layer_facts import LAYER_FACTS, LayerFacts, kernel_of
from edgeprune.models.types import Layer
from edgeprune.quantize.rules import takes_one_scale
from edgeprune.quantize.structure import Structure

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_config import QuantizeConfig

_SMALLEST_LIMIT = 1e-8


def stored_kernel(kernel: tf.Tensor, layer: Layer, structure: Structure | None, *, rounds: bool) -> tf.Tensor:
    """The kernel of a layer as the file will hold it: with its structure and, if it ``rounds``, on its int8 grid."""
    if structure is not None:
        kernel = structure.project(kernel)
    if not rounds:
        return kernel
    is_clustered = structure is not None and structure.clusters is not None
    return round_kernel(kernel, LAYER_FACTS[type(layer).__name__], shared=is_clustered and takes_one_scale(layer))


def round_kernel(kernel: tf.Tensor, facts: LayerFacts, *, shared: bool) -> tf.Tensor:
    """The kernel on its int8 grid, symmetric, -127..127, one scale per output channel; the gradient passes through.

    Args:
        shared: one scale for all channels. A clustered kernel needs it: with a scale per channel, k different weights
            become up to k different integers in each channel, and compression sees nothing of the clusters.
    """
    import tensorflow as tf

    axes = facts.channel_axes
    others = [axis for axis in range(len(kernel.shape)) if axis not in axes]
    order = [*others, *axes]
    moved = tf.transpose(kernel, order)
    flat = tf.reshape(moved, [-1, int(np.prod([kernel.shape[axis] for axis in axes]))])
    limits = tf.stop_gradient(tf.reduce_max(tf.abs(flat), 0))
    if shared:
        limits = tf.fill(tf.shape(limits), tf.reduce_max(limits))
    limits = tf.maximum(limits, _SMALLEST_LIMIT)
    rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        flat, -limits, limits, num_bits=8, narrow_range=True
    )
    return tf.transpose(tf.reshape(rounded, tf.shape(moved)), np.argsort(order))


@contextlib.contextmanager
def one_scale_kernels(model: tf_keras.Model, names: Sequence[str]) -> Iterator[None]:
    """While a model is traced, the kernels of some of its layers carry their scale, one for all channels."""
    import tensorflow as tf

    replaced = []
    for layer in model.layers:
        if layer.name in names:
            attribute, variable = LAYER_FACTS[type(layer).__name__].kernel, kernel_of(layer)
            with tf.init_scope():  # the value, which does not exist in the graph that is being traced
                kernel = variable.numpy()
            limit = np.maximum(np.abs(kernel).max(), _SMALLEST_LIMIT)
            # The converter takes a scale per channel for convolutions; of a matrix, it fails to transpose them.
            convolution = kernel.ndim == 4
            make = tf.quantization.fake_quant_with_min_max_vars
            if convolution:
                make = tf.quantization.fake_quant_with_min_max_vars_per_channel
                limit = np.full(kernel.shape[-1], limit)
            rounded = make(tf.constant(kernel), -limit, limit, num_bits=8, narrow_range=True)
            # Not by assignment: Keras would take the variable off its list.
            vars(layer)[attribute] = rounded
            replaced.append((layer, attribute, variable))
    try:
        yield
    finally:
        for layer, attribute, variable in replaced:
            vars(layer)[attribute] = variable


@functools.cache
def _classes() -> tuple[type, type]:
    """The classes, made on first use: their bases come with TensorFlow."""
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_config import QuantizeConfig
    from tensorflow_model_optimization.python.core.quantization.keras.quantizers import Quantizer

    class KernelQuantizer(Quantizer):
        """Keeps the structure of a kernel, and rounds it. It has no variables: the range is the kernel's own."""

        def __init__(self, layer: Layer, structure: Structure | None, rounds: bool):
            self.layer, self.structure, self.rounds = layer, structure, rounds

        def build(self, tensor_shape: Any, name: str, layer: Layer) -> dict[str, Any]:
            return {}

        def __call__(self, inputs: tf.Tensor, training: bool, weights: Any, **kwargs: Any) -> tf.Tensor:
            return stored_kernel(inputs, self.layer, self.structure, rounds=self.rounds)

        def get_config(self) -> dict[str, Any]:
            raise NotImplementedError("A model in training is not saved; what is saved is Trainee.baked().")

    class KernelOnly(QuantizeConfig):
        """Rounds the kernel of a layer; its output is rounded by a layer behind it."""

        def __init__(self, quantizer: KernelQuantizer):
            self.quantizer = quantizer

        def get_weights_and_quantizers(self, layer: Layer) -> list[Any]:
            return [(kernel_of(layer), self.quantizer)]

        def set_quantize_weights(self, layer: Layer, quantize_weights: Any) -> None:
            setattr(layer, LAYER_FACTS[type(layer).__name__].kernel, quantize_weights[0])

        def get_activations_and_quantizers(self, layer: Layer) -> list[Any]:
            return []

        def set_quantize_activations(self, layer: Layer, quantize_activations: Any) -> None:
            pass

        def get_output_quantizers(self, layer: Layer) -> list[Any]:
            return []

        def get_config(self) -> dict[str, Any]:
            raise NotImplementedError("A model in training is not saved; what is saved is Trainee.baked().")

    return KernelQuantizer, KernelOnly


def kernel_config(layer: Layer, structure: Structure | None, *, rounds: bool) -> QuantizeConfig:
    """tfmot's ``QuantizeConfig`` for a layer with a kernel; without ``rounds`` it only keeps the structure."""
    quantizer, config = _classes()
    return config(quantizer(layer, structure, rounds))
