"""Recipe × target → the steps of a build, as a tree.

The order of pruning stages is fixed here: a recipe says which, never in what order.
"""

from __future__ import annotations

import dataclasses

from edgeprune import stages
from edgeprune.models.hash import model_hash
from edgeprune.pipeline import Step
from edgeprune.quantize.plan import quantization_plan
from edgeprune.recipe import FiltersConfig, LotteryConfig, Mode, Recipe, WeightsConfig
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
    pruning, pruned = _pruning_steps(recipe, target)
    steps += pruning
    chains |= {f"{name}-": name for name in pruned}
    for prefix, parent in chains.items():
        modes = recipe.quantize.modes if prefix else dict.fromkeys((REFERENCE, *recipe.quantize.modes))
        for mode in modes:
            made = _variant_steps(f"{prefix}{mode}", parent, _convert_config(recipe, target, mode))
            steps += made
            variants.append(Variant(f"{prefix}{mode}", made[-1].name, parent))
    return Plan(tuple(steps), tuple(variants))


def _pruning_steps(recipe: Recipe, target: Target) -> tuple[list[Step], list[str]]:
    """The steps from the model to the pruned ones, and the names of those that end in a model to convert.

    Such a step is named after all methods on its way.
    """
    steps: list[Step] = []
    if recipe.filters:
        steps += _filter_steps(recipe, recipe.filters, channel_multiple(recipe, target))
    before = steps[-1].name if steps else MODEL
    prefix = f"{before}-" if steps else ""
    if recipe.weights and recipe.lottery:
        tickets = _lottery_steps(recipe, recipe.weights, recipe.lottery, before, prefix)
        return [*steps, *tickets], [step.name for step in tickets[recipe.lottery.rounds :]]
    if recipe.weights:
        config = stages.WeightsStageConfig(
            weights=recipe.weights, finetune=recipe.finetune, distill=recipe.distill, augment=recipe.augment
        )
        steps.append(Step(prefix + weights_method(recipe.weights), stages.weights, config, after=before))
    return steps, [steps[-1].name] if steps else []


def weights_method(config: WeightsConfig) -> str:
    """What the field calls it: the criterion, or the dynamic method if masks of one size keep changing."""
    if config.regrow == "none":
        return config.criterion
    dynamic = {"gradient": "rigl", "random": "set"}
    return dynamic[config.regrow] if config.schedule == "constant" else f"{config.criterion}-regrow"


def _lottery_steps(
    recipe: Recipe, weights: WeightsConfig, lottery: LotteryConfig, before: str, prefix: str
) -> list[Step]:
    """One step per round, each of which makes a mask; then the ticket, and the control if asked for."""
    common = stages.LotteryStageConfig(
        lottery=lottery,
        weights=weights,
        initial_hash=model_hash(lottery.initial) if lottery.initial else None,
        finetune=recipe.finetune.model_copy(update={"epochs": lottery.epochs}),
        distill=recipe.distill,
        augment=recipe.augment,
    )
    steps: list[Step] = []
    for number in range(1, lottery.rounds + 1):
        config = common.model_copy(update={"round": number})
        steps.append(Step(f"{prefix}lottery.round{number}", stages.ticket, config, after=before))
        before = steps[-1].name
    steps.append(Step(f"{prefix}lottery", stages.retrain, common, after=before))
    if lottery.control:
        config = common.model_copy(update={"control": True})
        steps.append(Step(f"{prefix}lottery-control", stages.retrain, config, after=before))
    return steps


def _filter_steps(recipe: Recipe, filters: FiltersConfig, multiple: int) -> list[Step]:
    steps: list[Step] = []
    for number in range(1, filters.steps + 1):
        last = number == filters.steps
        config = stages.FiltersStageConfig(filters=filters, number=number, multiple=multiple)
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
    plan = quantization_plan(mode, recipe.quantize, target)
    return stages.ConvertConfig(
        mode=plan.mode, io=plan.io, calibration=recipe.calibration if plan.needs_samples else None
    )


def _variant_steps(name: str, parent: str, config: stages.ConvertConfig) -> list[Step]:
    converting = stages.calibrate_and_convert if config.calibration else stages.convert
    steps = [Step(f"{name}.convert", converting, config, after=parent)]
    for measuring in (stages.profile, stages.evaluate, stages.latency):
        steps.append(Step(f"{name}.{measuring.name}", measuring, after=steps[-1].name))
    return steps
