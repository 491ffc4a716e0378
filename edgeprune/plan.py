"""Recipes × target → the steps of a build, as a tree.

The order of methods is fixed here: a recipe says which, never in what order.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Container, Mapping, Sequence
from typing import Any

from edgeprune import stages
from edgeprune.errors import RecipeError, TargetError
from edgeprune.hardware.compilers import compiler_version
from edgeprune.hardware.latency.source import latency_source
from edgeprune.models.hash import model_hash
from edgeprune.pipeline import Stage, Step
from edgeprune.prune.choice.criteria import CRITERIA
from edgeprune.quantize.plan import RULES, WEIGHT_ONLY, quantization_plan
from edgeprune.recipe.config import ClusterConfig, Mode, QatConfig, Recipe, WeightsConfig, rate_label
from edgeprune.target import ChannelSteps, Target, load_target

MODEL = "model"
SIZED = "sized"
BASELINE = "baseline"
CONTROL = "control"
# What is measured on each file of a build, what depends on the target last; on each file of a trial of a search, which
# never sees test data; and on those of the front of a search.
MEASURED = (stages.evaluate, stages.latency, stages.profile)
JUDGED = (stages.validate, stages.profile)
TESTED = (stages.evaluate,)
# Stages that differ from board to board by what they do to the same file.
OF_BOARD = (stages.compile_model, stages.encode_weights, stages.evaluate_micro, stages.profile)
# What takes the place of a stage where the file goes to a microcontroller.
ON_MICRO = {stages.evaluate: stages.evaluate_micro}
# The variant that every report compares against; it is always built.
REFERENCE: Mode = "float32"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One .tflite of a build: its name, the step that ends it, and the step its Keras model comes from.

    ``shared``: the last step that is the same on all boards that the file is for.
    Where the recipe explores rates: the rate, and the series of variants that differ in nothing else. Where it stands
    only for comparison: the variant that it is the control of.
    """

    name: str
    last: str
    model: str
    shared: str
    series: str | None = None  # the method and format that variants of several rates have in common
    rate: float | None = None
    control_of: str | None = None
    on_device: str | None = None  # the step that measures it on the device of the build, if that has one


@dataclasses.dataclass(frozen=True)
class Board:
    """One of several targets of a build.

    Attributes:
        own: the variants that a build for this target alone makes; picks are chosen among them.
        last: every variant of the build → the step that says what it is like on this board.
    """

    target: Target
    own: tuple[str, ...]
    last: Mapping[str, str]

    def without(self, failed: Container[str]) -> Board:
        """The same where some steps failed."""
        last = {name: step for name, step in self.last.items() if step not in failed}
        return dataclasses.replace(self, own=tuple(name for name in self.own if name in last), last=last)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The steps after the model is there, and the variants that they make.

    ``on_device`` come last, one per variant: a device may go away, and must not take the rest along. ``source``: the
    step that all of them start from. ``boards``: of a build for several targets; ``Variant.last`` is on the first.
    """

    steps: tuple[Step, ...]
    variants: tuple[Variant, ...]
    on_device: tuple[Step, ...] = ()
    source: str = MODEL
    boards: tuple[Board, ...] = ()

    def without(self, failed: Container[str]) -> Plan:
        """The plan of what is there where some steps failed."""
        return dataclasses.replace(
            self,
            steps=tuple(step for step in self.steps if step.name not in failed),
            variants=tuple(variant for variant in self.variants if variant.last not in failed),
            on_device=tuple(step for step in self.on_device if step.after not in failed),
            boards=tuple(board.without(failed) for board in self.boards),
        )


@dataclasses.dataclass(frozen=True)
class _Chain:
    """Steps in a row from the model on. It is named after the methods in it, and so are its steps.

    Attributes:
        source: the step that it starts from.
        rate: the one of several rates that the recipe is at.
        rated: whether a method in the chain follows it; before, chains of several rates are the same.
    """

    source: str
    steps: tuple[Step, ...] = ()
    methods: tuple[str, ...] = ()
    rate: float | None = None
    rated: bool = False

    @property
    def name(self) -> str:
        return "-".join(self.methods) + (rate_label(self.rate) if self.rated and self.rate is not None else "")

    @property
    def treated(self) -> _Chain | None:
        """The chain that this one is the control of; None: it is no control."""
        methods = tuple(method for method in self.methods if method != CONTROL)
        return dataclasses.replace(self, methods=methods) if methods != self.methods else None

    @property
    def last(self) -> str:
        return self.steps[-1].name if self.steps else self.source

    def method(self, name: str, rated: bool = False) -> _Chain:
        """The chain with a method begun: the steps that follow are its steps."""
        return dataclasses.replace(self, methods=(*self.methods, name), rated=self.rated or rated)

    def step(self, stage: Stage, config: Any, suffix: str = "") -> _Chain:
        """The chain with one more step; the last of a method has no suffix."""
        step = Step(f"{self.name}{suffix}", stage, config, after=self.last, ends_method=not suffix)
        return dataclasses.replace(self, steps=(*self.steps, step))


def source_step(is_demo: bool) -> Step:
    """The first step: where the model comes from."""
    return Step(MODEL, stages.demo if is_demo else stages.load)


def sizes_step() -> Step:
    """The step after the first where the model leaves sizes of its inputs open."""
    return Step(SIZED, stages.fix_sizes, after=MODEL)


def make_plan(
    recipes: Sequence[Recipe],
    target: Target,
    *,
    on_device: bool = False,
    source: str = MODEL,
    measured: Sequence[Stage] = MEASURED,
) -> Plan:
    """All steps of a build from ``source`` on; with those that measure on a device if there is one.

    Every file goes through the stages ``measured``.

    What several recipes have in common is there once. A recipe whose steps have the names of another one's, and do
    something else, has its own name before them.
    """
    steps: dict[str, Step] = {BASELINE: Step(BASELINE, stages.baseline, after=source)}
    variants: dict[str, Variant] = {}
    modes = dict.fromkeys((REFERENCE, *(mode for recipe in recipes for mode in recipe.quantize.modes)))
    makers = [
        (recipe, functools.partial(_unchanged, recipe, target, mode, measured))
        for mode in modes
        for recipe in recipes
        if mode in (REFERENCE, *recipe.quantize.modes)
    ]
    makers += [(recipe, functools.partial(_changed, recipe, target, source, measured)) for recipe in recipes]
    for recipe, make in makers:
        own, ends = make(None)
        if any(steps.get(step.name, step) != step for step in own):
            own, ends = _once(*make(recipe.name), known=steps.values())
        steps |= {step.name: step for step in own}
        variants |= {variant.name: variant for variant in ends}
    found = tuple(variants.values())
    if not on_device:
        return Plan(tuple(steps.values()), found, source=source)
    measuring = tuple(Step(f"{v.name}.on_device", stages.measure_on_device, after=v.last) for v in found)
    there = tuple(dataclasses.replace(v, on_device=step.name) for v, step in zip(found, measuring, strict=True))
    return Plan(tuple(steps.values()), there, measuring, source)


def _once(made: Sequence[Step], ends: Sequence[Variant], known: Collection[Step]) -> tuple[list[Step], list[Variant]]:
    """Steps and variants of a recipe, where steps that are known under other names are those, and not made again."""
    names: dict[str, str] = {}
    own = []
    for step in made:
        step = dataclasses.replace(step, after=names.get(step.after or "", step.after))
        same = next((one for one in known if dataclasses.replace(step, name=one.name) == one), None)
        if same:
            names[step.name] = same.name
        else:
            own.append(step)

    def known_as(name: str) -> str:
        return names.get(name, name)

    return own, [
        dataclasses.replace(end, last=known_as(end.last), model=known_as(end.model), shared=known_as(end.shared))
        for end in ends
    ]


def _unchanged(
    recipe: Recipe, target: Target, mode: Mode, measured: Sequence[Stage], prefix: str | None
) -> tuple[list[Step], list[Variant]]:
    """The steps and the variant of the model as it is, in one format."""
    name = f"{prefix}-{mode}" if prefix else mode
    config, rounding = _convert_config(recipe, target, mode), _rounding(recipe, mode)
    optional = mode != REFERENCE
    made = _variant_steps(name, BASELINE, config, target, measured, rounding, optional, rounded=prefix or BASELINE)
    return made, [Variant(name, made[-1].name, BASELINE, _shared(made))]


def _shared(made: Sequence[Step]) -> str:
    """Of the steps of one file, the last that does not depend on the board."""
    return next(step.name for step in reversed(made) if step.stage not in OF_BOARD)


def _changed(
    recipe: Recipe, target: Target, source: str, measured: Sequence[Stage], prefix: str | None
) -> tuple[list[Step], list[Variant]]:
    """The steps and variants of what a recipe makes of the model; none if it changes nothing."""
    steps: list[Step] = []
    variants = []
    for rate in recipe.rates or (None,):
        for chain in _chains(recipe if rate is None else recipe.at_rate(rate), target, rate, source, prefix):
            steps += chain.steps
            for mode in recipe.quantize.modes:
                if recipe.qat and mode != "int8":
                    continue  # the model carries the rounding of int8
                config = _convert_config(recipe, target, mode, sparse=mode == "float32" and _is_sparse(recipe))
                ending = f"{mode}-sparse" if config.plan.sparse else mode
                trained = recipe.qat or recipe.cluster or recipe.coded  # for these very integers
                rounding = None if trained else _rounding(recipe, mode)
                made = _variant_steps(f"{chain.last}-{ending}", chain.last, config, target, measured, rounding)
                series = None if rate is None else f"{'-'.join(chain.methods)}-{ending}"
                control_of = f"{chain.treated.name}-{ending}" if chain.treated else None
                name, last = f"{chain.last}-{ending}", made[-1].name
                variants.append(Variant(name, last, chain.last, _shared(made), series, rate, control_of))
                steps += made
    return steps, variants


def _chains(recipe: Recipe, target: Target, rate: float | None, source: str, prefix: str | None) -> list[_Chain]:
    """The chains from the model to the changed ones; none if the recipe changes nothing."""
    chains = [_Chain(source, methods=(prefix,) if prefix else (), rate=rate)]
    for method in METHODS:
        chains = [after for chain in chains for after in method(recipe, target, chain)]
    return [chain for chain in chains if chain.steps]


def _layers(recipe: Recipe, target: Target, chain: _Chain) -> list[_Chain]:
    if not recipe.layers:
        return [chain]
    chain, config = chain.method("layers"), stages.LayersStageConfig(layers=recipe.layers)
    if recipe.sparsify or recipe.filters or recipe.weights:  # their training restores accuracy
        return [chain.step(stages.layers, config)]
    return [chain.step(stages.layers, config, ".remove").step(stages.finetune, _training(recipe))]


def _sparsify(recipe: Recipe, target: Target, chain: _Chain) -> list[_Chain]:
    if not recipe.sparsify:
        return [chain]
    training = _training(recipe, epochs=recipe.sparsify.epochs, patience=None)
    config = stages.SparsifyStageConfig(sparsify=recipe.sparsify, **dict(training))
    return [chain.method("sparsify").step(stages.sparsify, config)]


def _filters(recipe: Recipe, target: Target, chain: _Chain) -> list[_Chain]:
    if not recipe.filters:
        return [chain]
    filters, limits = recipe.filters, file_limits(recipe, target)
    boards = (target, *(limit.target for limit in limits))
    steps = functools.reduce(ChannelSteps.both, (channel_steps(recipe, one) for one in boards))
    scores = stages.ScoresStageConfig(criterion=filters.criterion, samples=filters.samples, blocks=filters.blocks)
    chain = chain.method("filters")
    for number in range(1, filters.steps + 1):
        if CRITERIA[filters.criterion].needs_data:
            chain = chain.step(stages.scores, scores, f".scores{number}")
        chain = dataclasses.replace(chain, rated=True)  # the first scores are those of a model that every rate has
        config = stages.FiltersStageConfig(
            filters=filters,
            reconstruct=recipe.reconstruct,
            number=number,
            steps=steps,
            files=limits,
        )
        chain = chain.step(stages.filters, config, f".remove{number}")
        if number < filters.steps and filters.step_epochs:
            chain = chain.step(stages.finetune, _training(recipe, epochs=filters.step_epochs), f".finetune{number}")
    return [chain.step(stages.finetune, _training(recipe))]


def file_limits(recipe: Recipe, target: Target) -> tuple[stages.FileLimit, ...]:
    """What ``[filters]`` limits of files: each limit with its target, and the file that a build for that makes.

    Args:
        target: of the build, for limits that name none.

    Raises:
        TargetError: there is no target of a name, or its file does not validate.
        RecipeError: nothing is known about the speed of a target, or two targets are called the same.
        MissingError: a target's compiler, which would tell its speed, is not installed.
    """
    from edgeprune.convert.weight_only import quantizer_version

    found: dict[str, stages.FileLimit] = {}
    for what, amounts in recipe.filters.of_file.items() if recipe.filters else ():
        for name, most in amounts.items():
            board = target if name is None else _named(name, f"max_{what}")
            plan = quantization_plan(main_mode(recipe), recipe, board)
            source = latency_source(board) if what == "latency" else None
            if what == "latency" and source is None:
                raise RecipeError(
                    f"[filters] max_latency: the target {board.name} has no coefficients to estimate a latency by.",
                    fix="limit max_macs, max_memory or max_size instead, or measure files on the board and run "
                    "`edgeprune targets fit`.",
                )
            compiler = compiler_version(board) if source == "compiler" else None
            quantizer = quantizer_version() if plan.mode in WEIGHT_ONLY else None
            limit = stages.FileLimit(
                what=what, most=most, target=board, named=name, plan=plan, compiler=compiler, quantizer=quantizer
            )
            if found.setdefault(limit.name, limit) != limit:
                raise RecipeError(
                    f"[filters] max_{what} has two targets that are called {limit.board}, which reports could not tell "
                    "apart.",
                    fix="give the target of one of the files another name.",
                )
    return tuple(found.values())


def _named(name: str, key: str) -> Target:
    try:
        return load_target(name)
    except TargetError as error:
        error.add_note(f"[filters] {key} of the recipe names it.")
        raise


def main_mode(recipe: Recipe) -> Mode:
    """The format of the file that limits of latency, memory and size are meant for."""
    wanted: tuple[Mode, ...] = ("int8", "int16x8", "dynamic", "float16", *WEIGHT_ONLY)
    return next((mode for mode in wanted if mode in recipe.quantize.modes), "float32")


def _weights(recipe: Recipe, target: Target, chain: _Chain) -> list[_Chain]:
    if not recipe.weights:
        return [chain]
    if recipe.lottery:
        return _tickets(recipe, chain)
    chain = chain.method(weights_method(recipe.weights), rated=True)
    if recipe.weights.sparse_inference:
        chain = chain.step(stages.prepare_sparse, stages.PrepareSparseConfig(weights=recipe.weights), ".prepare_sparse")
    training = stages.WeightsStageConfig(weights=recipe.weights, **dict(_training(recipe)))
    if recipe.weights.criterion != "reconstruct":
        return [chain.step(stages.weights, training)]
    zeros = stages.ZeroStageConfig(weights=recipe.weights, reconstruct=recipe.reconstruct)
    if not recipe.finetune.epochs:
        return [chain.step(stages.zero, zeros)]
    return [chain.step(stages.zero, zeros, ".zero").step(stages.weights, training)]


def weights_method(config: WeightsConfig) -> str:
    """What the field calls it: the criterion, or the dynamic method if masks of one size keep changing."""
    if config.regrow == "none":
        return config.criterion
    dynamic = {"gradient": "rigl", "random": "set"}
    return dynamic[config.regrow] if config.schedule == "constant" else f"{config.criterion}-regrow"


def _tickets(recipe: Recipe, chain: _Chain) -> list[_Chain]:
    """One step per round, each of which makes a mask; then the ticket, and the control if asked for."""
    lottery, weights = recipe.lottery, recipe.weights
    assert lottery is not None
    assert weights is not None
    config = stages.LotteryStageConfig(
        lottery=lottery,
        weights=weights,
        initial_hash=model_hash(lottery.initial) if lottery.initial else None,
        **dict(_training(recipe, epochs=lottery.epochs)),
    )
    chain = chain.method("lottery", rated=True)
    for number in range(1, lottery.rounds + 1):
        chain = chain.step(stages.ticket, config.model_copy(update={"round": number}), f".round{number}")
    tickets = [chain.step(stages.retrain, config)]
    if lottery.control:
        control = config.model_copy(update={"control": True})
        tickets.append(chain.method(CONTROL).step(stages.retrain, control))
    return tickets


def _cluster(recipe: Recipe, target: Target, chain: _Chain) -> list[_Chain]:
    if not recipe.cluster:
        return [chain]
    config = stages.ClusterStageConfig(cluster=recipe.cluster, **dict(_gentle(recipe, recipe.cluster)))
    return [chain.method("cluster").step(stages.cluster, config)]


def _coded(recipe: Recipe, target: Target, chain: _Chain) -> list[_Chain]:
    if not recipe.coded:
        return [chain]
    plan = quantization_plan("int8", recipe, target) if recipe.coded.max_size else None
    config = stages.CodedStageConfig(coded=recipe.coded, reconstruct=recipe.reconstruct, plan=plan)
    return [chain.method("coded").step(stages.code_weights, config)]


def _qat(recipe: Recipe, target: Target, chain: _Chain) -> list[_Chain]:
    if not recipe.qat:
        return [chain]
    config = stages.QatStageConfig(calibration=recipe.calibration, **dict(_gentle(recipe, recipe.qat)))
    return [chain.method("qat").step(stages.qat, config)]


METHODS = (_layers, _sparsify, _filters, _weights, _cluster, _coded, _qat)


def _gentle(recipe: Recipe, config: ClusterConfig | QatConfig) -> stages.TrainingConfig:
    """The epochs and the learning rate of a stage that trains an already trained model further."""
    epochs = recipe.finetune.epochs if config.epochs is None else config.epochs
    return _training(recipe, epochs=epochs, learning_rate=recipe.finetune.learning_rate * config.learning_rate_scale)


def _training(recipe: Recipe, **changes: Any) -> stages.TrainingConfig:
    """The recipe's training, with other values of ``[finetune]`` where a method has its own."""
    finetune = recipe.finetune.model_copy(update=changes)
    return stages.TrainingConfig(finetune=finetune, distill=recipe.distill, augment=recipe.augment)


def _is_sparse(recipe: Recipe) -> bool:
    return recipe.weights is not None and recipe.weights.sparse_inference


def channel_steps(recipe: Recipe, target: Target) -> ChannelSteps:
    """Channels per layer in these steps: the recipe's number, or the target's for the format that is built."""
    assert recipe.filters is not None
    if recipe.filters.round_to != "target":
        return ChannelSteps(recipe.filters.round_to)
    return target.channel_steps("int8" if "int8" in recipe.quantize.modes else "float32")


def _convert_config(recipe: Recipe, target: Target, mode: Mode, sparse: bool = False) -> stages.ConvertConfig:
    plan = dataclasses.replace(quantization_plan(mode, recipe, target), sparse=sparse)
    calibration = recipe.calibration if plan.needs_samples else None
    if mode == "mixed":
        return stages.MixedStageConfig(plan=plan, calibration=calibration, mixed=recipe.mixed)
    return stages.ConvertConfig(plan=plan, calibration=calibration)


def _rounding(recipe: Recipe, mode: Mode) -> stages.RoundStageConfig | None:
    """How weights are prepared to become integers; None: they are not, or as the converter makes them."""
    levels, by_moments = RULES[mode].levels, recipe.quantize.rounding == "reconstruct"
    if levels is None or not (by_moments or recipe.quantize.equalize):
        return None
    return stages.RoundStageConfig(
        equalize=recipe.quantize.equalize,
        levels=levels if by_moments else None,
        samples=recipe.calibration.compared,
        ridge=recipe.reconstruct.ridge,
    )


def _variant_steps(
    name: str,
    parent: str,
    config: stages.ConvertConfig,
    target: Target,
    measured: Sequence[Stage],
    rounding: stages.RoundStageConfig | None = None,
    optional: bool = True,
    rounded: str | None = None,
) -> list[Step]:
    """The steps of one file; formats with integers of the same size share their rounding, which is called after
    ``rounded``, or else after the parent."""
    steps = []
    if rounding:
        grid = "equalize" if rounding.levels is None else f"round{rounding.levels.bit_length() + 1}"
        steps.append(Step(f"{rounded or parent}.{grid}", stages.round_weights, rounding, after=parent))
        parent = steps[-1].name
    steps.append(Step(f"{name}.convert", _converting(config), config, after=parent))
    if target.micro and config.plan.mode == "int8":
        steps.append(Step(f"{name}.encode", stages.encode_weights, after=steps[-1].name))
        measured = [ON_MICRO.get(stage, stage) for stage in measured]
    for measuring in measured:
        if measuring is stages.profile and target.compiler and config.plan.mode == "int8":  # compilers take integers
            steps.append(Step(f"{name}.compile", stages.compile_model, after=steps[-1].name))
        steps.append(Step(f"{name}.{measuring.name}", measuring, after=steps[-1].name))
    return [dataclasses.replace(step, optional=optional) for step in steps]


def _converting(config: stages.ConvertConfig) -> Stage:
    """The stage whose inputs the number format needs: samples, a runtime to look into the file, a quantizer."""
    if isinstance(config, stages.MixedStageConfig):
        return stages.mix_and_convert
    if config.plan.mode in WEIGHT_ONLY:
        return stages.convert_weights
    if not config.calibration:
        return stages.convert_without_samples
    plain = config.calibration.range == "minmax" or not RULES[config.plan.mode].clipping
    return stages.calibrate_and_convert if plain else stages.narrow_and_convert
