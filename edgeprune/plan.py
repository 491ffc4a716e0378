"""Recipe × target → the steps of a build, as a tree.

The order of pruning stages is fixed here: a recipe says which, never in what order.
"""

from __future__ import annotations

import dataclasses

from edgeprune import stages
from edgeprune.pipeline import Stage, Step
from edgeprune.quantize.plan import quantization_plan
from edgeprune.recipe import FiltersConfig, Mode, Recipe
from edgeprune.target import Target

MODEL = "model"
BASELINE = "baseline"
# The variant that every report compares against; it is always built.
REFERENCE: Mode = "float32"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One .tflite of a build: its name, the step that ends it, and the step its Keras model comes from."""

    name: str
    last: str
    model: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """The steps after the model is there, and the variants that they make."""

    steps: tuple[Step, ...]
    variants: tuple[Variant, ...]


def source_step(is_demo: bool) -> Step:
    """The first step: where the model comes from."""
    return Step(MODEL, stages.demo if is_demo else stages.load)


def make_plan(recipe: Recipe, target: Target) -> Plan:
    """All steps of a build but the first."""
    steps = [Step(BASELINE, stages.baseline, after=MODEL)]
    variants = []
    chains = {"": BASELINE}
    if pruning := _pruning_steps(recipe, target):
        steps += pruning
        chains[f"{pruning[-1].name}-"] = pruning[-1].name
    for prefix, parent in chains.items():
        modes = recipe.quantize.modes if prefix else dict.fromkeys((REFERENCE, *recipe.quantize.modes))
        for mode in modes:
            made = _variant_steps(f"{prefix}{mode}", parent, _convert_config(recipe, target, mode))
            steps += made
            variants.append(Variant(f"{prefix}{mode}", made[-1].name, parent))
    return Plan(tuple(steps), tuple(variants))


def _pruning_steps(recipe: Recipe, target: Target) -> list[Step]:
    """The chain from the model to the pruned one. Its last step is named after all methods in it."""
    steps: list[Step] = []
    if recipe.filters:
        steps += _filter_steps(recipe, recipe.filters, channel_multiple(recipe, target))
    if recipe.magnitude:
        config = stages.MagnitudeStageConfig(
            magnitude=recipe.magnitude, finetune=recipe.finetune, distill=recipe.distill, augment=recipe.augment
        )
        before = steps[-1].name if steps else MODEL
        steps.append(Step("filters-magnitude" if steps else "magnitude", stages.magnitude, config, after=before))
    return steps


def _filter_steps(recipe: Recipe, filters: FiltersConfig, multiple: int) -> list[Step]:
    steps: list[Step] = []
    for number in range(1, filters.steps + 1):
        last = number == filters.steps
        config = stages.FiltersStageConfig(filters=filters, share=number / filters.steps, multiple=multiple)
        before = steps[-1].name if steps else MODEL
        steps.append(Step(f"filters.remove{number}", stages.filters, config, after=before))
        finetune = recipe.finetune if last else recipe.finetune.model_copy(update={"epochs": filters.step_epochs})
        training = stages.TrainingConfig(finetune=finetune, distill=recipe.distill, augment=recipe.augment)
        name = "filters" if last else f"filters.finetune{number}"
        steps.append(Step(name, stages.finetune, training, after=steps[-1].name))
    return steps


def channel_multiple(recipe: Recipe, target: Target) -> int:
    """Channels per layer in multiples of this: the recipe's number, or the target's for the format that is built."""
    assert recipe.filters is not None
    if recipe.filters.round_to != "target":
        return recipe.filters.round_to
    dtype = "int8" if "int8" in recipe.quantize.modes else "float32"
    return int(target.channel_multiple.get(dtype, 1))  # type: ignore[call-overload]


def _convert_config(recipe: Recipe, target: Target, mode: Mode) -> stages.ConvertConfig:
    plan = quantization_plan(mode, recipe, target)
    calibration = recipe.calibration if plan.needs_samples else None
    if mode == "mixed":
        return stages.MixedStageConfig(plan=plan, calibration=calibration, mixed=recipe.mixed)
    if mode == "int8" and (recipe.quantize.equalize or recipe.quantize.correct_bias):
        return stages.PreparedConvertConfig(
            plan=plan,
            calibration=calibration,
            equalize=recipe.quantize.equalize,
            correct_bias=recipe.quantize.correct_bias,
        )
    return stages.ConvertConfig(plan=plan, calibration=calibration)


def _variant_steps(name: str, parent: str, config: stages.ConvertConfig) -> list[Step]:
    steps = [Step(f"{name}.convert", _converting(config), config, after=parent)]
    for measuring in (stages.profile, stages.evaluate, stages.latency):
        steps.append(Step(f"{name}.{measuring.name}", measuring, after=steps[-1].name))
    return steps


def _converting(config: stages.ConvertConfig) -> Stage:
    by_config = {
        stages.MixedStageConfig: stages.mix_and_convert,
        stages.PreparedConvertConfig: stages.prepare_and_convert,
    }
    return by_config.get(type(config), stages.calibrate_and_convert if config.calibration else stages.convert)
