"""Sparse inference: what is rewritten before pruning, and what is verified after conversion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.artifact import Artifact
from edgeprune.context import Context
from edgeprune.errors import RecipeError, VerificationError
from edgeprune.hardware.xnnpack.sparse_inference import MIN_ZEROS, Node
from edgeprune.pipeline import stage
from edgeprune.recipe.config import Config, WeightsConfig
from edgeprune.recipe.patterns import check_patterns, exactly, matching
from edgeprune.stages.saving import with_model

if TYPE_CHECKING:
    import tf_keras


class PrepareSparseConfig(Config):
    """What decides which layers will be pruned."""

    weights: WeightsConfig


@stage()
def prepare_sparse(artifact: Artifact, config: PrepareSparseConfig, context: Context) -> Artifact:
    """Rewrite the model for XNNPACK's sparse kernels, and choose the layers to prune; refuse what cannot qualify."""
    from edgeprune.prune.sparse.prepare import prepare, require_qualified

    model = context.read(artifact)
    prepared = prepare(model)
    require_qualified(prepared)
    layers = choose_layers(prepared.analysis.pointwise, config.weights, [layer.name for layer in model.layers])
    rewritten = ", ".join(prepared.changed) or "nothing"
    context.progress.note(f"sparse inference: {len(layers)} 1x1 convolutions will be pruned; rewritten: {rewritten}")
    return with_model(artifact, prepared.model, context).with_(
        sparse_inference={"changed": prepared.changed, "layers": layers}
    )


def choose_layers(pointwise: list[Node], config: WeightsConfig, layers: list[str]) -> list[str]:
    """The 1x1 convolutions that the recipe lets prune.

    Args:
        layers: names of all layers of the model that the recipe is about.

    Raises:
        RecipeError: a pattern matches no layer, or too few of them are left for two thirds of all 1x1 weights to become
            zero.
    """
    given = {"include": config.include, "exclude": config.exclude}
    check_patterns("weights", given, layers)
    sizes = {node.name: node.weights for node in pointwise}
    chosen = matching(sizes, **given)
    share = config.sparsity * sum(sizes[name] for name in chosen) / sum(sizes.values())
    if share <= MIN_ZEROS:
        left = ", ".join(name for name in sizes if name not in chosen)
        raise RecipeError(
            f"With {left} left dense, {share:.1%} of the weights of the 1x1 convolutions become zero.",
            expected="more than two thirds; XNNPACK keeps dense kernels up to there.",
            fix="include more layers, or raise [weights] sparsity.",
        )
    return chosen


def for_sparse_inference(config: WeightsConfig, artifact: Artifact) -> WeightsConfig:
    """The config, limited to the layers that :func:`prepare_sparse` chose, if it ran."""
    if "sparse_inference" not in artifact.facts:
        return config
    names = tuple(exactly(name) for name in artifact.facts["sparse_inference"]["layers"])
    return config.model_copy(update={"include": names, "exclude": ()})


def check_sparse(path: Path, model: tf_keras.Model, layers: list[str]) -> None:
    """Find the pruned layers in the flatbuffer, by shape and zeros, among the tensors that are stored sparse.

    Args:
        layers: names of pruned 1x1 convolutions of ``model``.

    Raises:
        VerificationError: one of them is not stored sparse, or XNNPACK would keep its dense kernels.
    """
    from edgeprune.hardware.xnnpack.sparse_file import sparse_path
    from edgeprune.tflite.flatbuffer import read

    file = read(path)
    stored = [t.data() for t in file.subgraphs[0].tensors if t.constant and t.sparsity]
    dense = [name for name in layers if not _take(stored, model.get_layer(name).get_weights()[0])]
    if dense:
        raise VerificationError(
            f"These layers were to be stored sparse, and are not in {path.name}: {', '.join(dense)}.",
            fix="raise [weights] sparsity; the converter stores nearly dense weights dense.",
        )
    path_taken = sparse_path(file)
    if path_taken is None or not path_taken.expected:
        reasons = "; ".join(path_taken.reasons) if path_taken else "no weights are stored sparse"
        raise VerificationError(
            f"The file {path.name} would run with dense kernels: {reasons}.",
            fix="report this model; its layers qualified before conversion.",
        )


def _take(stored: list[np.ndarray], kernel: np.ndarray) -> bool:
    """Take a kernel [1, 1, in, out] out of ``stored``; conversion scales its filters, and zeros stay zeros."""
    wanted = kernel[0, 0].T != 0
    for number, values in enumerate(stored):
        nonzero = values.reshape(values.shape[0], -1) != 0
        if nonzero.shape == wanted.shape and not (nonzero & ~wanted).any():
            del stored[number]
            return True
    return False
