"""Recipe × target → the steps of a build, as a tree.

The order of pruning stages is fixed here: a recipe says which, never in what order.
"""

from __future__ import annotations

import dataclasses

from edgeprune import stages
from edgeprune.pipeline import Step
from edgeprune.quantize.plan import quantization_plan
from edgeprune.recipe import FiltersConfig, Mode, Recipe, rate_label
from edgeprune.target import Target

MODEL = "model"
BASELINE = "baseline"
# The variant that every report compares against; it is always built.
REFERENCE: Mode = "float32"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One .tflite of a build: its name, the step that ends it, and the step its Keras model comes from.

    Where the recipe explores rates: the rate, and the series of variants that differ in nothing else.
    """

    name: str
    last: str
    model: str
    series: str | None = None  # the method and format that variants of several rates have in common
    rate: float | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """The steps after the model is there, and the variants that they make."""

    steps: tuple[Step, ...]
    variants: tuple[Variant, ...]


def source_step(is_demo: bool) -> Step:
    """The first step: where the model comes from."""
    return Step(MODEL, stages.demo if is_demo else stages.load)


@dataclasses.dataclass(frozen=True)
class _Chain:
    """A chain of steps from the model to what is converted: the step it ends with, and what its variants are called."""

    last: str
    prefix: str = ""
    method: str | None = None
    rate: float | None = None


def make_plan(recipe: Recipe, target: Target) -> Plan:
    """All steps of a build but the first."""
    steps = [Step(BASELINE, stages.baseline, after=MODEL)]
    variants = []
    chains = [_Chain(BASELINE)]
    for rate in recipe.rates or (None,):
        pruning = _pruning_steps(recipe if rate is None else recipe.at_rate(rate), target, rate)
        steps += [step for step in pruning if step not in steps]  # what comes before the first rate is shared
        if pruning:
            last = pruning[-1].name
            method = None if rate is None else last.removesuffix(rate_label(rate))
            chains.append(_Chain(last, f"{last}-", method, rate))
    for chain in chains:
        modes = recipe.quantize.modes if chain.prefix else dict.fromkeys((REFERENCE, *recipe.quantize.modes))
        for mode in modes:
            name = f"{chain.prefix}{mode}"
            made = _variant_steps(name, chain.last, _convert_config(recipe, target, mode))
            steps += made
            series = f"{chain.method}-{mode}" if chain.method else None
            variants.append(Variant(name, made[-1].name, chain.last, series, chain.rate))
    return Plan(tuple(steps), tuple(variants))


def _pruning_steps(recipe: Recipe, target: Target, rate: float | None) -> list[Step]:
    """The chain from the model to the pruned one. Its last step is named after all methods in it.

    From the first section on that has a budget, the names of steps end in the ``rate`` that the recipe is at.
    """
    steps: list[Step] = []
    at = "" if rate is None else rate_label(rate)
    if recipe.filters:
        steps += _filter_steps(recipe, recipe.filters, channel_multiple(recipe, target), at)
    if recipe.magnitude:
        config = stages.MagnitudeStageConfig(
            magnitude=recipe.magnitude, finetune=recipe.finetune, distill=recipe.distill, augment=recipe.augment
        )
        before = steps[-1].name if steps else MODEL
        steps.append(
            Step(f"filters-magnitude{at}" if steps else f"magnitude{at}", stages.magnitude, config, after=before)
        )
    return steps


def _filter_steps(recipe: Recipe, filters: FiltersConfig, multiple: int, at: str) -> list[Step]:
    steps: list[Step] = []
    for number in range(1, filters.steps + 1):
        last = number == filters.steps
        config = stages.FiltersStageConfig(filters=filters, share=number / filters.steps, multiple=multiple)
        before = steps[-1].name if steps else MODEL
        steps.append(Step(f"filters{at}.remove{number}", stages.filters, config, after=before))
        finetune = recipe.finetune if last else recipe.finetune.model_copy(update={"epochs": filters.step_epochs})
        training = stages.TrainingConfig(finetune=finetune, distill=recipe.distill, augment=recipe.augment)
        name = f"filters{at}" if last else f"filters{at}.finetune{number}"
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
