"""What pruning and clustering gave to a kernel, and how training keeps it: zeros stay zero, equal weights stay equal.

A kernel is not used as it is but through its projection, in the forward pass and therefore in the gradient: a zeroed
weight gets no gradient, and the weights of a cluster all get the mean of their gradients, so that every optimizer keeps
them equal (the shared-weight fine-tuning of Han et al. 2016, arXiv:1510.00149, section 3.2, with a mean for its sum).
Nothing is assigned while training, so nothing can drift (tfmot#720, #721), and the cluster of a weight is known from
the clustered model instead of being searched for again (tfmot#979: every 1x1 kernel zeroed).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.artifact import KernelClusters, KernelZeros
from edgeprune.errors import VerificationError
from edgeprune.models.layer_facts import facts_of, kernel_of
from edgeprune.models.types import Layer
from edgeprune.quantize.rules import kernel_rule, takes_one_scale

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras


@dataclasses.dataclass(frozen=True)
class Structure:
    """What is kept of one kernel.

    Attributes:
        mask: 0 where the weight stays zero, else 1; shape of the kernel. None: zeros are not kept.
        clusters: number of the cluster of each weight; shape of the kernel. None: clusters are not kept.
        count: number of clusters.
    """

    mask: np.ndarray | None = None
    clusters: np.ndarray | None = None
    count: int = 0

    def project(self, kernel: tf.Tensor) -> tf.Tensor:
        """The kernel with its structure, differentiable; a tensor of the same shape."""
        import tensorflow as tf

        if self.clusters is not None:
            flat = self.clusters.reshape(-1)
            sizes = np.maximum(np.bincount(flat, minlength=self.count), 1).astype("float32")
            sums = tf.math.unsorted_segment_sum(tf.reshape(kernel, [-1]), flat, self.count)
            kernel = tf.reshape(tf.gather(sums / sizes, flat), self.clusters.shape)
        return kernel if self.mask is None else kernel * self.mask


def structure_of(kernel: np.ndarray, *, zeros: bool, clusters: bool) -> Structure | None:
    """What there is to keep of a kernel: its zeros, its equal weights, or both; None if there is nothing."""
    mask = (kernel != 0).astype(kernel.dtype) if zeros and not kernel.all() else None
    if not clusters:
        return None if mask is None else Structure(mask)
    centroids, numbers = np.unique(kernel, return_inverse=True)
    return Structure(mask, numbers.reshape(kernel.shape).astype("int32"), len(centroids))


def structures(model: tf_keras.Model, *, zeros: bool, clustered: list[str]) -> dict[str, Structure]:
    """Layer name → what is kept of its kernel.

    Args:
        zeros: whether zeros are kept, in every layer that has some.
        clustered: names of the layers whose weights are shared.
    """
    kept = {}
    for layer in model.layers:
        if kernel_rule(layer) is None:
            continue
        structure = structure_of(kernel_of(layer).numpy(), zeros=zeros, clusters=layer.name in clustered)
        if structure is not None:
            kept[layer.name] = structure
    return kept


def count_zeros(model: tf_keras.Model, names: list[str]) -> list[KernelZeros]:
    """One entry per kernel of the layers: layer, size, zeros."""
    return [
        {"layer": name, "size": int(kernel.size), "zeros": int(kernel.size - np.count_nonzero(kernel))}
        for name, kernel in _kernels(model, names)
    ]


def count_clusters(model: tf_keras.Model, kept: dict[str, Structure]) -> list[KernelClusters]:
    """One entry per clustered kernel: layer, size, distinct (how many different weights it holds).

    A kernel that was rounded with a scale per channel holds as many as clusters were kept in each channel.
    """
    names = [name for name, structure in kept.items() if structure.clusters is not None]
    return [
        {"layer": name, "size": int(kernel.size), "distinct": min(len(np.unique(kernel)), kept[name].count)}
        for name, kernel in _kernels(model, names)
    ]


def check_kept(model: tf_keras.Model, kept: dict[str, Structure]) -> None:
    """Recount zeros and clusters after training.

    Raises:
        VerificationError: a kernel has fewer zeros, or more different weights, than before.
    """
    lost = []
    for name, kernel in _kernels(model, list(kept)):
        structure = kept[name]
        if structure.mask is not None and np.count_nonzero(kernel) > np.count_nonzero(structure.mask):
            lost.append(f"{name}: {np.mean(kernel == 0):.1%} zeros instead of {np.mean(structure.mask == 0):.1%}")
        if structure.clusters is not None and (distinct := _distinct(model.get_layer(name))) > structure.count:
            lost.append(f"{name}: {distinct} different weights instead of {structure.count}")
    if lost:
        raise VerificationError(
            f"Quantization-aware training lost what was to be preserved. {'; '.join(lost)}.",
            fix="report this model; training must keep zeros and clusters.",
        )


def _distinct(layer: Layer) -> int:
    """Different weights in the kernel, or at most in one channel if its channels have scales of their own."""
    kernel, facts = kernel_of(layer).numpy(), facts_of(layer)
    if facts is None or takes_one_scale(layer):
        return len(np.unique(kernel))
    (axis,) = facts.channel_axes  # depthwise kernels are not clustered
    return max(len(np.unique(part)) for part in np.moveaxis(kernel, axis, 0))


def _kernels(model: tf_keras.Model, names: list[str]) -> list[tuple[str, np.ndarray]]:
    layers = [layer for layer in model.layers if kernel_rule(layer) is not None and layer.name in names]
    return [(layer.name, kernel_of(layer).numpy()) for layer in layers]
