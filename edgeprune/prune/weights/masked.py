"""Training under masks: what tfmot's wrappers lack (see :mod:`edgeprune.prune.weights.engines`).

A :class:`MaskedModel` is the model itself plus, per pruned kernel, non-trainable weights: its mask and what its
criterion adds up. They travel with ``get_weights``, so a training that is resumed from its state file goes on exactly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from edgeprune.models.rebuild import copy_model
from edgeprune.prune.weights.kernels import PrunableKernel, kernels, selected
from edgeprune.prune.weights.schedule import SCHEDULES, Updates, updates
from edgeprune.recipe.config import WeightsConfig
from edgeprune.recipe.granularity import choose, parse, regrow

# How much of the average of earlier batches stays when a batch is added: about the last 20 batches count.
MEMORY = 0.95


def _taylor(evidence: tf.Variable, weights: tf.Variable, gradient: tf.Tensor) -> tf.Tensor:
    """First-order change of the loss without the weight, averaged over recent batches (Molchanov et al. 2019,
    arXiv:1906.10771)."""
    return MEMORY * evidence + (1 - MEMORY) * tf.abs(weights * gradient)


def _movement(evidence: tf.Variable, weights: tf.Variable, gradient: tf.Tensor) -> tf.Tensor:
    """Added up over training: positive where the weight moves away from zero (Sanh et al. 2020, arXiv:2005.07683)."""
    return evidence - weights * gradient


# Criterion → what is added up in each step: (so far, weights, gradient) → new value, all of the kernel's shape.
EVIDENCE = {"taylor": _taylor, "movement": _movement}


@dataclasses.dataclass(frozen=True)
class MaskedKernel:
    """A kernel of a :class:`MaskedModel` with its variables, all of its shape."""

    kernel: PrunableKernel
    mask: tf.Variable
    evidence: tf.Variable | None  # None: magnitude needs none
    gradient: tf.Variable | None  # of the last batch; None: nothing regrows by gradient


class MaskedModel(tf_keras.Model):
    """A functional model whose pruned kernels are multiplied by their masks after every step.

    Attributes:
        criterion: how kept weights are ranked.
        pruned: the pruned kernels.
    """

    def add_masks(self, names: list[str], criterion: str, by_gradient: bool = False) -> None:
        """Add the masks, all ones, and what the criterion needs. To be called once, before compiling."""
        self.criterion = criterion
        add = EVIDENCE.get(criterion)
        self.pruned = tuple(
            MaskedKernel(
                kernel,
                self._beside(kernel, "mask", "ones"),
                self._beside(kernel, criterion, "zeros") if add else None,
                self._beside(kernel, "gradient", "zeros") if by_gradient else None,
            )
            for kernel in kernels(self, names)
        )

    def _beside(self, kernel: PrunableKernel, what: str, initializer: str) -> tf.Variable:
        name = f"{kernel.layer}/{what}"
        return self.add_weight(name, kernel.variable.shape, initializer=initializer, trainable=False)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = tf_keras.utils.unpack_x_y_sample_weight(data)
        trained, own = self.trainable_variables, [pruned.kernel.variable for pruned in self.pruned]
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight)
        gradients = tape.gradient(loss, [*trained, *own])
        dense = [tf.convert_to_tensor(gradient) for gradient in gradients[len(trained) :]]
        # Without this, the optimizer's moments would go on remembering gradients of removed weights.
        masked = {p.kernel.variable.ref(): g * p.mask for p, g in zip(self.pruned, dense, strict=True)}
        self._remember(dense)
        applied = [masked.get(v.ref(), g) for v, g in zip(trained, gradients[: len(trained)], strict=True)]
        self.optimizer.apply_gradients(zip(applied, trained, strict=True))
        self.apply_masks()
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def _remember(self, gradients: list[tf.Tensor]) -> None:
        if all(pruned.evidence is None and pruned.gradient is None for pruned in self.pruned):
            return
        # Each replica has seen its part of the batch (see edgeprune.train.replicas); alone, it is the whole.
        gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        for pruned, gradient in zip(self.pruned, gradients, strict=True):
            if pruned.evidence is not None:
                add = EVIDENCE[self.criterion]
                pruned.evidence.assign(add(pruned.evidence, pruned.kernel.variable, gradient))
            if pruned.gradient is not None:
                pruned.gradient.assign(gradient)

    def apply_masks(self) -> None:
        for pruned in self.pruned:
            pruned.kernel.variable.assign(pruned.kernel.variable * pruned.mask)

    def masks(self) -> list[np.ndarray]:
        """What stays: one bool array per kernel, in the layout of TFLite."""
        return [p.kernel.to_tflite(p.mask.numpy() > 0) for p in self.pruned]

    def set_masks(self, masks: Sequence[np.ndarray]) -> None:
        """Take over masks as :meth:`masks` gives them, and apply them."""
        for pruned, mask in zip(self.pruned, masks, strict=True):
            pruned.mask.assign(pruned.kernel.to_keras(mask).astype(np.float32))
        self.apply_masks()

    def scores(self) -> list[np.ndarray]:
        """How much each weight matters by the criterion, in the layout of TFLite; -inf for what is removed."""
        rows = []
        for pruned in self.pruned:
            evidence = pruned.evidence
            score = np.abs(pruned.kernel.variable.numpy()) if evidence is None else evidence.numpy()
            rows.append(pruned.kernel.to_tflite(np.where(pruned.mask.numpy() > 0, score, -np.inf)))
        return rows


def masked_model(
    model: tf_keras.Model, names: list[str], criterion: str = "magnitude", by_gradient: bool = False
) -> MaskedModel:
    """A masked model that shares no weights with ``model``; all masks are ones."""
    copy = copy_model(model)
    masked = MaskedModel(copy._nested_inputs, copy._nested_outputs, name=model.name)
    masked.add_masks(names, criterion, by_gradient)
    return masked


def wrap(
    model: tf_keras.Model, config: WeightsConfig, total_steps: int, seed: int = 0
) -> tuple[MaskedModel, list[str]]:
    """A masked model that prunes itself as the recipe says when it is trained with :func:`callbacks`.

    Returns:
        A model that shares no weights with ``model``, and the names of the pruned layers.

    Raises:
        RecipeError: a pattern selects no layer that can be pruned.
    """
    names = selected(model, config)
    masked = masked_model(model, names, config.criterion, by_gradient=config.regrow == "gradient")
    masked.mask_schedule = MaskSchedule(config, updates(config, total_steps, first=1), seed)
    return masked, names


def wrap_fixed(
    model: tf_keras.Model, config: WeightsConfig, total_steps: int, seed: int = 0
) -> tuple[MaskedModel, list[str]]:
    """A masked model whose zeros stay where they are; the same as :func:`wrap` otherwise."""
    names = selected(model, config)
    masked = masked_model(model, names)
    masked.set_masks([p.kernel.to_tflite(p.kernel.variable.numpy() != 0) for p in masked.pruned])
    return masked, names


@dataclasses.dataclass(frozen=True)
class MaskSchedule:
    """How the masks of a model change; a pure function of the step and of the model's weights."""

    config: WeightsConfig
    when: Updates
    seed: int

    def update(self, model: MaskedModel, step: int) -> None:
        """Choose the masks anew if they are due at ``step`` (from 1)."""
        if not self.when.at(step):
            return
        config, progress, pattern = self.config, self.when.progress(step), parse(self.config.granularity)
        curve = SCHEDULES[config.schedule](config.sparsity, config.power)
        scores = model.scores()
        masks = choose(scores, pattern, config.sparsity * curve.fraction(progress), config.scope)
        exchanged = config.regrow_fraction / 2 * (1 + np.cos(np.pi * progress))
        if config.regrow != "none" and exchanged > 0:
            growth = GROWTH[config.regrow](model, np.random.default_rng([self.seed, step]))
            masks = regrow(masks, scores, growth, pattern, exchanged, config.scope)
        model.set_masks(masks)


def _by_gradient(model: MaskedModel, generator: np.random.Generator) -> list[np.ndarray]:
    return [p.kernel.to_tflite(np.abs(p.gradient.numpy())) for p in model.pruned if p.gradient is not None]


def _at_random(model: MaskedModel, generator: np.random.Generator) -> list[np.ndarray]:
    return [generator.random(mask.shape) for mask in model.masks()]


# Which removed weights regrow: RigL (Evci et al. 2020, arXiv:1911.11134), SET (Mocanu et al. 2018, arXiv:1707.04780).
GROWTH = {"gradient": _by_gradient, "random": _at_random}


class _UpdateMasks(tf_keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.model.mask_schedule.update(self.model, int(self.model.optimizer.iterations.numpy()))


def callbacks() -> list[tf_keras.callbacks.Callback]:
    """The callback that changes the masks after the steps that are due."""
    return [_UpdateMasks()]


def strip(masked: MaskedModel) -> tf_keras.Model:
    """The plain model with the same layers; the zeros stay in the weights."""
    return tf_keras.Model(masked._nested_inputs, masked._nested_outputs, name=masked.name)
