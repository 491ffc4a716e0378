"""Refitting a pruned model to the original one: the public function, and what a graph tells about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import DataError, UsageError
from edgeprune.models.load import load_model
from edgeprune.models.rebuild import rebuild
from edgeprune.progress import Progress
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.channels.units import Vector
from edgeprune.prune.filters import Pruned
from edgeprune.reconstruction.channel_scales import Scaled, scale_channels
from edgeprune.reconstruction.refit import RIDGE, Refitted, refit

if TYPE_CHECKING:
    import keras
    import tf_keras

Inputs = np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Reconstructed:
    """The outcome of a reconstruction.

    Attributes:
        model: the new model, a flat functional one.
        layers: what became of each layer, in the order in which they were refitted.
        answers: how far the answers were from the original ones after that, and with channels scaled and shifted;
            None: samples are too few for that many channels, sizes of inputs are open, or no answers can be compared.
    """

    model: tf_keras.Model
    layers: tuple[Refitted, ...]
    answers: Scaled | None = None


def reconstruct(
    original: tf_keras.Model | keras.Model,
    changed: Pruned | tf_keras.Model | keras.Model,
    inputs: Inputs,
    *,
    ridge: float = RIDGE,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Reconstructed:
    """Refit what pruning left, layer by layer, so that each layer gives what it gave before; nothing is trained.

    At last, channels are scaled and shifted so that the answers are nearest to the original ones.

    Args:
        original: of tf_keras or Keras 3, as it was before.
        changed: what :func:`edgeprune.prune_filters` gave; or the same model with some of its weights set to zero, or
            changed in other ways. Zeros stay zero. Neither model is changed.
        inputs: samples as the model takes them, [samples, ...] per input: an array, or several in the order of the
            model's inputs, or by their names. No labels; some hundreds do.
        ridge: how strongly weights are held where they are, in units of the mean square of what a layer reads.
        batch_size: samples that are run at once.
        seed: of the positions that are looked at in large feature maps.
        progress: is told of each layer.

    Returns:
        The repaired model and, per layer, its error before and after.

    Raises:
        ModelError: a model is of a kind that edgeprune cannot use.
        UsageError: the models do not belong together.
        DataError: the inputs do not fit the model.
    """
    whole = load_model(original)
    model = load_model(changed.model if isinstance(changed, Pruned) else changed)
    kept: dict[str, Vector] = {}
    if isinstance(changed, Pruned):
        graph = analyse(whole)
        keep = np.ones(len(graph.units), bool)
        for group in graph.groups:
            keep[group.units[changed.removed.get(group.name, [])]] = False
        kept = graph.kept_outputs(keep)
    _require_same_calls(whole, model, pruned=isinstance(changed, Pruned))
    copy = rebuild(model)
    for ours, theirs in zip(copy.layers, model.layers, strict=True):
        ours.set_weights(theirs.get_weights())
    batches = _batches(whole, inputs, batch_size)
    layers = refit(whole, copy, batches, kept, ridge=ridge, seed=seed, progress=progress)
    return Reconstructed(copy, tuple(layers), scale_channels(whole, copy, batches, seed=seed, progress=progress))


def _require_same_calls(original: tf_keras.Model, changed: tf_keras.Model, *, pruned: bool) -> None:
    theirs = {layer.name: [tuple(weight.shape) for weight in layer.weights] for layer in original.layers}
    ours = {layer.name: [tuple(weight.shape) for weight in layer.weights] for layer in changed.layers}
    if ours.keys() != theirs.keys():
        only = next(iter(ours.keys() ^ theirs.keys()))
        raise UsageError(
            f"The models do not belong together: only one of them has the layer {only!r}.",
            expected="a model, and the same model with fewer channels or other weights.",
        )
    for name, shapes in ours.items():
        if not pruned and shapes != theirs[name]:
            raise UsageError(
                f"The layer {name!r} has weights of other shapes than in the original model, and which of its "
                "channels are left is not known.",
                expected="what edgeprune.prune_filters gave, which knows that.",
                fix="pass it as it is, and not its model alone.",
            )


def _batches(model: tf_keras.Model, inputs: Inputs, size: int) -> list[list[np.ndarray]]:
    if isinstance(inputs, Mapping):
        if missing := [name for name in model.input_names if name not in inputs]:
            names = ", ".join(model.input_names)
            raise DataError(f"The inputs lack {missing[0]!r}.", expected=f"arrays named {names}.")
        arrays = [np.asarray(inputs[name]) for name in model.input_names]
    else:
        arrays = [np.asarray(each) for each in (inputs if isinstance(inputs, list | tuple) else [inputs])]
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    fits = len(arrays) == len(shapes) and all(
        array.ndim == len(shape) + 1
        and all(size is None or size == length for size, length in zip(shape, array.shape[1:], strict=True))
        for array, shape in zip(arrays, shapes, strict=True)
    )
    count = len(arrays[0]) if fits and arrays else 0
    if not count or any(len(array) != count for array in arrays):
        raise DataError(
            f"The inputs have the shapes {', '.join(str(array.shape) for array in arrays) or 'of nothing'}.",
            expected=f"samples of {', '.join(map(str, shapes))}, as many for each input.",
        )
    arrays = [_as_input(array, tensor) for array, tensor in zip(arrays, model.inputs, strict=True)]
    size = min(size, -(-count // 2))  # two batches at least: one half of the samples judges the other
    return [[array[start : start + size] for array in arrays] for start in range(0, count, size)]


def _as_input(array: np.ndarray, tensor: Any) -> np.ndarray:
    """An array in the type of an input, which is what Keras makes of it where a model is called."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"The inputs have the type {array.dtype}.", expected="arrays of real numbers.")
    with np.errstate(over="ignore"):  # what is too large for the type is found below
        array = array.astype(tensor.dtype.as_numpy_dtype, copy=False)
    # One such value would be in every sum, and so in every weight that is refitted.
    finite = np.isfinite(array).all(axis=tuple(range(1, array.ndim))) if array.dtype.kind == "f" else np.ones(1, bool)
    if not finite.all():
        raise DataError(
            f"Sample {np.argmin(finite)} of the inputs has values that are not finite.",
            expected="numbers, neither NaN nor infinite.",
            fix="leave such samples out.",
        )
    return array
