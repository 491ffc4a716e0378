"""Conversions to integers that do more than calibrate: mixed precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.artifact import Artifact, MixedFacts
from edgeprune.context import Context
from edgeprune.pipeline import stage
from edgeprune.recipe.config import MixedConfig
from edgeprune.selection import DEFAULT_MIXED_DROP, MaxDrop
from edgeprune.stages.conversion import ConvertConfig, ranges_by_outputs, representative, write

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.quantize.mixed import Trial

RANKING_SAMPLES = 32


class MixedStageConfig(ConvertConfig):
    mixed: MixedConfig


@stage("data", "task", "seed", "runtime")
def mix_and_convert(artifact: Artifact, config: MixedStageConfig, context: Context) -> Artifact:
    """Keep the layers in float that int8 hurts most, as few as the allowed drop on validation needs."""
    import dataclasses
    import itertools

    from edgeprune.convert.converter import calibrate, quantize_calibrated
    from edgeprune.evaluate.accuracy import evaluate_keras
    from edgeprune.quantize.coarse import answers_of, coarse_outputs
    from edgeprune.quantize.mixed import rank, search
    from edgeprune.tflite.flatbuffer import parse

    data, task = context.required()
    model = context.read(artifact)
    samples, calibration = representative(model, config.calibration, context)
    ranges = ranges_by_outputs(model, config, samples, context)
    if ranges is None:
        (calibrated,) = calibrate(model, config.plan, samples, [config.plan.ranges], context.runtime).values()
    else:
        calibrated, calibration["ranges"] = ranges.calibrated, ranges.facts
    files: dict[tuple[str, ...], bytes] = {}
    # No figure of a whole output shows what its few typical values lose, so that these are not left to the search.
    all_int8 = quantize_calibrated(calibrated, config.plan, model)
    found = coarse_outputs(parse(all_int8), answers_of(model, itertools.islice(samples(), RANKING_SAMPLES)))
    coarse = tuple(dict.fromkeys(tensor for output in found for tensor in output.tensors))

    def build(tensors: tuple[str, ...]) -> bytes:
        if tensors not in files:
            plan = dataclasses.replace(config.plan, float_tensors=(*coarse, *tensors))
            files[tensors] = quantize_calibrated(calibrated, plan, model)
        return files[tensors]

    baseline = evaluate_keras(model, data.validation, task)

    def measure(tensors: tuple[str, ...]) -> tuple[float, int]:
        value = _validation(build(tensors), model, context)
        return task.drop(baseline, value), len(files[tensors])

    seen = itertools.islice(samples(), RANKING_SAMPLES)
    ranked = [name for name in rank(all_int8, calibrated, seen, context.runtime()) if name not in coarse]
    given = config.mixed.max_drop
    allowed = DEFAULT_MIXED_DROP if given is None else MaxDrop.parse(given)
    trials = search(ranked, measure, allowed.limit(task, baseline), config.mixed.steps)
    chosen = next(trial for trial in reversed(trials) if trial.chosen)
    facts = _mixed_facts(chosen, trials, coarse, allowed.words(task), model)
    return write(artifact, config.plan, context, model, build(chosen.tensors)).with_(
        calibration=calibration, mixed=facts
    )


def _validation(content: bytes, model: tf_keras.Model, context: Context) -> float:
    from edgeprune.evaluate.accuracy import evaluate_tflite
    from edgeprune.files import write_bytes
    from edgeprune.runtime.session import Session

    data, task = context.required()
    path = context.folder / "trial.tflite"
    write_bytes(path, content)
    session = Session(path, model.input_names, model.output_names, runtime=context.runtime())
    figures, _ = evaluate_tflite(session, data.validation, task, progress=context.progress)
    session.close()
    path.unlink()
    return task.value(figures)


def _mixed_facts(
    chosen: Trial, trials: list[Trial], always: tuple[str, ...], allowed: str, model: tf_keras.Model
) -> MixedFacts:
    from edgeprune.models.naming import layer_of

    layers = [layer_of(tensor, model) or tensor for tensor in (*always, *chosen.tensors)]
    warnings = []
    if not chosen.met:
        warnings.append(
            f"Mixed precision did not keep within the allowed drop of {allowed} in {len(trials)} "
            f"trials; the best has {len(layers)} layers in float, and loses {chosen.drop_points:.3g} on validation."
        )
    return {
        "float_layers": layers,
        "trials": [
            {
                "float_operators": len(always) + len(trial.tensors),
                "drop_points": trial.drop_points,
                "bytes": trial.bytes,
                "met": trial.met,
                "chosen": trial.chosen,
            }
            for trial in trials
        ],
        "warnings": warnings,
    }
