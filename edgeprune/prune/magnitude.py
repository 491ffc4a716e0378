"""Magnitude pruning of single weights with tfmot's ``prune_low_magnitude``.

The schedule is derived from the real number of training steps: with tfmot's default update frequency of 100 a short
fine-tune may never reach an update, and nothing says so.
"""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import RecipeError, VerificationError
from edgeprune.recipe import MagnitudeConfig

if TYPE_CHECKING:
    import tf_keras

# More updates than this change nothing but the time they take.
MAX_UPDATES = 50


def schedule(config: MagnitudeConfig, total_steps: int) -> Any:
    """The tfmot schedule over ``total_steps`` optimizer steps; its last update falls exactly on its end."""
    from tensorflow_model_optimization.sparsity import keras as sparsity

    begin = min(round(config.begin * total_steps), max(total_steps - 2, 0))
    length = max(round(config.end * total_steps) - 1 - begin, 1)
    frequency = max(length // MAX_UPDATES, 1)
    end = begin + length // frequency * frequency
    if config.schedule == "constant":
        return sparsity.ConstantSparsity(config.sparsity, begin, end, frequency)
    return sparsity.PolynomialDecay(0.0, config.sparsity, begin, end, power=3, frequency=frequency)


def final_epoch(config: MagnitudeConfig, epochs: int) -> int:
    """The first epoch (from 0) at whose end the target sparsity is reached."""
    return max(int(np.ceil(config.end * epochs)) - 1, 0)


def wrap(model: tf_keras.Model, config: MagnitudeConfig, total_steps: int) -> tuple[tf_keras.Model, list[str]]:
    """Wrap the layers that the recipe selects.

    Returns:
        A model that shares no weights with ``model``, and the names of the wrapped layers.

    Raises:
        RecipeError: a pattern selects no layer that can be pruned.
    """
    import tf_keras
    from tensorflow_model_optimization.sparsity import keras as sparsity

    names = _selected(model, config)

    def clone(layer: Any) -> Any:
        copy = layer.__class__.from_config(layer.get_config())
        if layer.name not in names:
            return copy
        return sparsity.prune_low_magnitude(copy, pruning_schedule=schedule(config, total_steps))

    wrapped = tf_keras.models.clone_model(model, clone_function=clone)
    for layer in model.layers:
        _copy_weights(layer, wrapped, layer.name in names)
    return wrapped, names


def _copy_weights(layer: Any, wrapped: tf_keras.Model, pruned: bool) -> None:
    name = f"prune_low_magnitude_{layer.name}" if pruned else layer.name
    target = wrapped.get_layer(name)
    (target.layer if pruned else target).set_weights(layer.get_weights())


def callbacks() -> list[Any]:
    """The callback that advances the masks."""
    from tensorflow_model_optimization.sparsity import keras as sparsity

    return [sparsity.UpdatePruningStep()]


def strip(wrapped: tf_keras.Model) -> tf_keras.Model:
    """Remove the wrappers; the zeros stay in the weights."""
    from tensorflow_model_optimization.sparsity import keras as sparsity

    return sparsity.strip_pruning(wrapped)


def prunable_weights(layer: Any) -> list[Any]:
    """The weight variables of a built layer that tfmot prunes; none for a layer that it does not know."""
    from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry

    if not PruneRegistry.supports(layer):
        return []
    return PruneRegistry.make_prunable(layer).get_prunable_weights()


def check_sparsity(model: tf_keras.Model, names: list[str], sparsity: float) -> list[dict[str, Any]]:
    """Recount the zeros of the pruned layers.

    Returns:
        One entry per kernel: layer, size, zeros.

    Raises:
        VerificationError: a layer has fewer zeros than asked for.
    """
    rows: list[dict[str, Any]] = [
        {"layer": name, "size": int(kernel.size), "zeros": int(kernel.size - np.count_nonzero(kernel))}
        for name in names
        for kernel in (weight.numpy() for weight in prunable_weights(model.get_layer(name)))
    ]
    # tfmot keeps at least one weight and rounds to whole ones, so a kernel may lack one zero.
    short = [row for row in rows if row["zeros"] < np.floor(row["size"] * sparsity) - 1]
    if short:
        listed = ", ".join(f"{row['layer']} {row['zeros'] / row['size']:.1%}" for row in short)
        raise VerificationError(
            f"After fine-tuning and stripping, the sparsity asked for ({sparsity:.1%}) is missing in: {listed}.",
            fix="train for more epochs, or let the schedule end earlier ([magnitude] end).",
        )
    return rows


def _selected(model: tf_keras.Model, config: MagnitudeConfig) -> list[str]:
    prunable = [layer.name for layer in model.layers if prunable_weights(layer)]
    for pattern in (*config.include, *config.exclude):
        if not fnmatch.filter([layer.name for layer in model.layers], pattern):
            raise RecipeError(
                f"The pattern {pattern!r} in [magnitude] matches no layer.",
                expected=f"shell patterns over layer names such as {', '.join(prunable[:6])}.",
            )
    chosen = [
        name
        for name in prunable
        if any(fnmatch.fnmatch(name, p) for p in config.include)
        and not any(fnmatch.fnmatch(name, p) for p in config.exclude)
    ]
    if not chosen:
        raise RecipeError(
            "[magnitude] leaves no layer to prune.",
            expected=f"at least one of: {', '.join(prunable) or 'a layer that tfmot can prune; this model has none'}.",
        )
    return chosen
