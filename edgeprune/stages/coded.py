"""Weights on grids that make their codes short, for microcontrollers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.artifact import Artifact, CodedFacts
from edgeprune.context import Context
from edgeprune.errors import RecipeError
from edgeprune.pipeline import stage
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.recipe.config import Amount, CodedConfig, Config, ReconstructConfig
from edgeprune.selection import DEFAULT_CODED_DROP, MaxDrop
from edgeprune.selection import within as is_within
from edgeprune.stages.reconstruction import refitted, unlabelled
from edgeprune.stages.saving import with_model

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.quantize.coded import Choices, Option, Trial


class CodedStageConfig(Config):
    """How small the encoded weights are to be, and the file that is made of them, where its size is limited."""

    coded: CodedConfig
    reconstruct: ReconstructConfig
    plan: QuantizationPlan | None


@stage("data", "task", "seed")
def code_weights(artifact: Artifact, config: CodedStageConfig, context: Context) -> Artifact:
    """Put the weights of each tensor on the grid that the recipe's limit leaves for it, and refit them."""
    from edgeprune.calibration import representative_indices
    from edgeprune.evaluate.accuracy import evaluate_keras
    from edgeprune.models.rebuild import copy_model
    from edgeprune.quantize.coded import choices, smallest, within_size

    data, task = context.required()
    original, ridge = context.read(artifact), config.reconstruct.ridge
    batches = unlabelled(original, data.train, config.reconstruct.samples, context.seed)
    # Nothing is trained, so that training samples judge as well, and they are many where validation has few.
    some = data.train.subset(representative_indices(data.train, config.reconstruct.samples, "stratified", context.seed))
    judges = [(split, evaluate_keras(original, split, task)) for split in (data.validation, some)]
    tensors = choices(original, batches, ridge=ridge, seed=context.seed, progress=context.progress)

    if not tensors:
        raise RecipeError(
            "[coded] leaves no weights to round.",
            expected="a dense layer or a convolution that is called once.",
            fix="leave out [coded].",
        )

    def make(options: Mapping[str, Option]) -> tf_keras.Model:
        rounded = copy_model(original)
        grids = {name: option.grid for name, option in options.items()}
        refitted(original, rounded, batches, config.reconstruct, context, grids=grids)
        return rounded

    def drop(model: tf_keras.Model) -> float:
        return max(task.drop(baseline, evaluate_keras(model, split, task)) for split, baseline in judges)

    given = config.coded.max_drop
    allowed = DEFAULT_CODED_DROP if given is None else MaxDrop.parse(given)
    if config.coded.max_size is None:
        limit = min(allowed.limit(task, baseline) for _, baseline in judges)
        trials = smallest(tensors, make, drop, lambda points: is_within(points, limit), config.coded.steps)
        warning = (
            f"No size of encoded weights kept within the allowed drop of {allowed.words(task)} on validation and "
            "training samples."
        )
    else:
        most = _most(config.coded.max_size, original, tensors, config.plan, context)
        trials = within_size(tensors, most, make, drop)
        warning = f"The encoded weights take {trials[-1].bytes:,} bytes, and {most:,.0f} were left for them."
    chosen = trials[-1]
    facts = _facts(trials, tensors)
    if not chosen.met:
        facts["warnings"].append(warning)
    weights = sum(one.weights for one in tensors)
    context.progress.note(
        f"{weights:,} weights in {chosen.bytes:,} bytes; {task.metric} on validation and training samples: "
        f"at most {max(chosen.drop, 0):.3g}{' points' if task.points == 100 else ''} worse"
    )
    assert chosen.model is not None
    return with_model(artifact, chosen.model, context).with_(coded=facts)


def _most(
    size: Amount, model: tf_keras.Model, tensors: list[Choices], plan: QuantizationPlan | None, context: Context
) -> float:
    """The bytes that are left for encoded weights where the file in flash may have a size.

    Raises:
        RecipeError: less is left than the smallest options take.
    """
    from edgeprune.calibration import representative_dataset
    from edgeprune.convert.converter import convert
    from edgeprune.tflite.compact import compact

    assert plan is not None
    data, _ = context.required()
    # One sample does: sizes do not depend on ranges.
    plan = dataclasses.replace(plan, ranges="minmax")
    file_bytes = len(compact(convert(model, plan, representative_dataset(data.train, np.arange(1)))))
    wanted = float(size.strip()[:-1]) / 100 * file_bytes if isinstance(size, str) else size
    rest = file_bytes - sum(one.weights for one in tensors)
    least = rest + sum(one.options[-1].bytes for one in tensors)
    if wanted < least:
        raise RecipeError(
            f"[coded] max_size = {size!r}: the file cannot be smaller than about {least:,} of {file_bytes:,} bytes, of "
            f"which {rest:,} are no weights.",
            fix=f"allow {least:,} bytes or more, or remove filters first ([filters]).",
        )
    return wanted - rest


def _facts(trials: list[Trial], tensors: list[Choices]) -> CodedFacts:
    grids = {name: option.grid for name, option in trials[-1].options.items()}
    return {
        "trials": [
            {
                "bytes": one.bytes,
                "loss": one.loss,
                "drop_points": one.drop,
                "met": one.met,
            }
            for one in trials
        ],
        "tensors": [
            {
                "layer": one.layer,
                "weights": one.weights,
                "levels": grids[one.layer].levels,
                "dead": grids[one.layer].dead,
            }
            for one in tensors
        ],
        "warnings": [],
    }
