"""Weights on the grid that a file's integers will have, before it is converted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.artifact import Artifact, PreparedFacts
from edgeprune.context import Context
from edgeprune.pipeline import stage
from edgeprune.recipe.config import Config
from edgeprune.stages.reconstruction import REFIT, unlabelled
from edgeprune.stages.saving import ROUNDED

if TYPE_CHECKING:
    import tf_keras

# The model that is converted where it is not the artifact's own: with weights prepared for one number format.
PREPARED = "prepared"


class RoundStageConfig(Config):
    """What is done to the weights before they become integers."""

    equalize: bool
    levels: int | None  # largest integer that weights are rounded to by their moments; None: the converter rounds
    samples: int
    ridge: float


@stage("data", "task", "seed")
def round_weights(artifact: Artifact, config: RoundStageConfig, context: Context) -> Artifact:
    """Equalize channels and round weights so that what layers give changes least, as far as the recipe asks for it."""
    from edgeprune.models.save import save_model
    from edgeprune.quantize.equalize import equalize, no_pairs
    from edgeprune.quantize.rounding import round_by_moments

    if ROUNDED in artifact.files:  # trained with its rounding
        return artifact
    model = context.load(artifact)
    facts: PreparedFacts = {}
    if config.equalize:
        pairs = equalize(model)
        facts["equalized"] = [{"producer": a, "consumer": b} for a, b in pairs]
        facts["warnings"] = [] if pairs else [no_pairs(model)]
    if config.levels is not None:
        data, _ = context.required()
        fitting = unlabelled(model, data.train, config.samples, context.seed)
        judging = unlabelled(model, data.validation, config.samples, context.seed)
        rounded = round_by_moments(
            model, fitting, judging, config.levels,
            ridge=config.ridge, seed=context.seed, folder=context.folder / REFIT, progress=context.progress,
        )  # fmt: skip
        facts["rounded"] = {
            "layers": len(rounded.layers),
            "nearest": rounded.nearest,
            "moments": rounded.moments,
            "used": rounded.used,
        }
        model = rounded.model
    path = context.folder / "prepared.keras"
    save_model(model, path)
    return artifact.with_({PREPARED: path}, prepared=facts)


def to_convert(artifact: Artifact, context: Context) -> tf_keras.Model:
    """The model that a file is made of."""
    return context.read(artifact, PREPARED if PREPARED in artifact.files else "model")
