"""Removing filters and neurons."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.artifact import (
    AllocationFacts,
    Artifact,
    ModelFacts,
    RefittedLayer,
    RemovedChannels,
    WidthReason,
    WidthStep,
)
from edgeprune.context import Context
from edgeprune.pipeline import stage
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.recipe.config import Amount, Config, FileFigure, FiltersConfig, ReconstructConfig, SampleCount
from edgeprune.stages.conversion import described_file
from edgeprune.stages.reconstruction import refitted, undo_if_worse, unlabelled
from edgeprune.stages.saving import SCORES, with_model
from edgeprune.target import ChannelSteps, Target

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.prune.channels.graph import Graph, Group
    from edgeprune.prune.channels.units import Vector
    from edgeprune.prune.choice.allocation import Allocation
    from edgeprune.prune.choice.budget import Budget, Resource
    from edgeprune.prune.choice.criteria import Evidence, Scores
    from edgeprune.prune.choice.file_shapes import FileShapes
    from edgeprune.prune.choice.reasons import Reason, Step
    from edgeprune.prune.choice.sensitivity import Curves


# Samples that settle which channels go: of ResNet8 with half of the multiply-accumulates, five draws of 2,048 leave
# parameters that differ by 11 %, of 8,192 by 1 % (benchmarks/results/reconstruct.md).
_FEWEST, _MOST = 2048, 8192
_INPUT_BYTES = 500_000_000


class FileLimit(Config):
    """What a file may come to on a target.

    Attributes:
        most: milliseconds or bytes, or a share of what the file of the unpruned model comes to.
        named: what the recipe calls the target; None: it names none, and the target is that of the build.
        plan: of the file that a build for the target makes.
        compiler: name and version of what says how long the file takes; None: the target has coefficients.
        quantizer: version of what makes the file, if it is of weights alone.
    """

    what: FileFigure
    most: Amount
    target: Target
    named: str | None
    plan: QuantizationPlan
    compiler: str | None = None
    quantizer: str | None = None

    @property
    def board(self) -> str:
        """What to call the target: as the recipe does, but a file by what it says that it is called; else ""."""
        if self.named is None:
            return ""
        return self.named if self.named in (self.target.name, *self.target.aliases) else self.target.name

    @property
    def name(self) -> str:
        """In the report: "latency", "latency on coral"."""
        return f"{self.what} on {self.board}" if self.named else self.what

    @property
    def key(self) -> str:
        """Of the line of a recipe that sets it: "max_latency", "max_latency.coral"."""
        if self.named is None:
            return f"max_{self.what}"
        is_bare = re.fullmatch(r"[A-Za-z0-9_-]+", self.named)
        return f"max_{self.what}.{self.named if is_bare else json.dumps(self.named, ensure_ascii=False)}"


class ScoresStageConfig(Config):
    """What channels are scored by; the names are those of ``[filters]``."""

    criterion: str
    samples: SampleCount
    blocks: bool


class FiltersStageConfig(Config):
    """One step of filter pruning, counted from 1."""

    filters: FiltersConfig
    reconstruct: ReconstructConfig = ReconstructConfig()
    number: int
    steps: ChannelSteps  # of channels, with what the targets want already decided
    files: tuple[FileLimit, ...] = ()


@stage("data", "task", "seed")
def scores(artifact: Artifact, config: ScoresStageConfig, context: Context) -> Artifact:
    """Score every channel of the model by data. Builds that remove more or fewer of them share this stage."""
    from edgeprune.prune.filters import score

    graph, evidence = _scored(artifact, config.samples, config.blocks, context)
    found = score(graph, config.criterion, evidence)
    path = context.folder / "scores.npz"
    # By number, for a file takes no name of a layer whatever it is.
    numbered = {str(i): found[group.name] for i, group in enumerate(graph.groups) if group.name in found}
    np.savez(path, **numbered)  # type: ignore[arg-type]
    return Artifact({**artifact.files, SCORES: path}, artifact.facts)


def _scored(artifact: Artifact, samples: SampleCount, blocks: bool, context: Context) -> tuple[Graph, Evidence]:
    """The graph of the model, with its blocks among the groups if they may go; and what criteria look at."""
    from edgeprune.calibration import representative_indices
    from edgeprune.prune.channels.analyse import analyse
    from edgeprune.prune.channels.block_units import with_blocks
    from edgeprune.prune.choice.criteria import Evidence

    data, task = context.required()
    graph = analyse(context.read(artifact))
    count = looked_at(graph.model) if samples == "auto" else samples
    indices = representative_indices(data.train, count, "stratified", context.seed)
    evidence = Evidence(lambda: data.train.subset(indices).batches(32, shuffle_seed=context.seed), task, context.seed)
    return with_blocks(graph) if blocks else graph, evidence


def looked_at(model: tf_keras.Model) -> int:
    """Samples that settle which channels go, as far as their inputs, which are kept, fit into memory."""
    sizes = [math.prod(size or 1 for size in tensor.shape[1:]) * tensor.dtype.size for tensor in model.inputs]
    return min(max(_INPUT_BYTES // max(sum(sizes), 1), _FEWEST), _MOST)


def _known_scores(artifact: Artifact, graph: Graph) -> Scores | None:
    """What the stage before found; None: the criterion looks at weights only, and has no stage of its own."""
    if SCORES not in artifact.files:
        return None
    with np.load(artifact.files[SCORES]) as arrays:
        return {graph.groups[int(number)].name: arrays[number] for number in arrays}


@stage("data", "task", "seed")
def filters(artifact: Artifact, config: FiltersStageConfig, context: Context) -> Artifact:
    """Remove the least important filters and neurons, verify, and repair what can be repaired without training."""
    from edgeprune.evaluate.accuracy import evaluate_keras
    from edgeprune.prune.channels import surgery
    from edgeprune.prune.channels.block_units import gone_blocks, without_blocks
    from edgeprune.prune.channels.blocks import verify as verify_blocks
    from edgeprune.prune.choice.budget import Constraints
    from edgeprune.prune.filters import choose, removed_channels

    data, task = context.required()
    settings, original = config.filters, artifact.facts["original"]
    whole, evidence = _scored(artifact, settings.samples, settings.blocks, context)
    rates = {pattern: _step_rate(config, rate) for pattern, rate in settings.layer_rates.items()}
    constraints = Constraints(settings.min_channels, config.steps, settings.protect, rates)
    budget = _step_budget(config, original, artifact.facts["model"])
    curves = partial(_measure, settings, context)
    resources, original_files = _of_files(whole, artifact, config, context)
    how = (settings.criterion, settings.allocation)
    found = _known_scores(artifact, whole)
    measure = config.reconstruct.match == "answers"
    chosen = choose(whole, budget, *how, constraints, evidence, curves, resources, context.progress, found, measure)
    blocks = gone_blocks(whole, chosen.keep)
    graph, keep = without_blocks(whole, chosen.keep)
    if blocks and settings.verify:
        verify_blocks(graph.model, whole.model, blocks)
    pruned = surgery.remove(graph, keep)
    difference = surgery.verify(pruned, surgery.mask(graph, keep)) if settings.verify else None
    validation = {"pruned": evaluate_keras(pruned, data.validation, task)}
    rows: list[RefittedLayer] = []
    if settings.compensate:
        before = pruned.get_weights()
        batches = unlabelled(whole.model, data.train, config.reconstruct.samples, context.seed)
        rows = refitted(whole.model, pruned, batches, config.reconstruct, context, graph.kept_outputs(keep))
        validation["reconstructed"] = evaluate_keras(pruned, data.validation, task)
        if undo_if_worse(pruned, before, validation, task, context):
            rows = []
    removed = removed_channels(graph, keep)
    earlier = {row["name"]: row for row in artifact.facts["filters"]["groups"]} if config.number > 1 else {}
    groups = [
        _removed(group, removed.get(group.name, np.array([], int)), earlier.get(group.name), config.number == 1)
        for group in graph.groups
        if not group.block
    ]
    names = [block.name for block in blocks]
    context.progress.note(_filters_line(groups, names, validation, task.metric))
    return with_model(artifact, pruned, context).with_(
        filters={
            "criterion": settings.criterion,
            "groups": groups,
            "oracle_difference": difference,
            "validation": validation,
            "refitted": rows,
            "allocation": _allocation_facts(chosen, names),
            "original_files": original_files,
        }
    )


def _removed(group: Group, removed: Vector, earlier: RemovedChannels | None, is_first: bool) -> RemovedChannels:
    """What became of a group; ``removed``: numbers within it, ``earlier``: what became of it in the step before."""
    before: list[int] | None = [] if is_first else earlier["gone"] if earlier else None
    original = earlier["original"] if earlier else group.size
    if before is not None and original - len(before) != group.size:  # blocks went, and groups grew together
        original, before = group.size, None
    gone = None
    if before is not None:
        left = np.setdiff1d(np.arange(original), before)
        gone = sorted([*before, *left[removed].tolist()])
    return {
        "name": group.name,
        "layers": list(group.layers),
        "channels": group.size,
        "removed": len(removed),
        "original": original,
        "gone": gone,
        "frozen": group.frozen,
    }


def _of_files(
    graph: Graph, artifact: Artifact, config: FiltersStageConfig, context: Context
) -> tuple[list[Resource], dict[str, float]]:
    """What this step limits of the files that the model is converted to; and what the unpruned model's come to.

    Returns:
        A resource for each limit of ``config``; by its name, the milliseconds or bytes of the unpruned model.
    """
    from edgeprune.prune.choice.file_shapes import FileShapes

    files: dict[QuantizationPlan, _Files] = {}
    followed: dict[QuantizationPlan, FileShapes] = {}
    for plan in dict.fromkeys(limit.plan for limit in config.files):  # targets that take the same file share it
        files[plan] = _Files(artifact, plan, context)
        context.progress.note("converts the model several times to see how the file follows its channels")
        followed[plan] = FileShapes.of(graph, files[plan])
    for compiler in dict.fromkeys(limit.compiler for limit in config.files if limit.compiler):
        context.progress.note(f"asks {compiler} how long files of other widths take")
    found = {limit.name: _resource(limit, followed[limit.plan]) for limit in config.files}
    if config.number > 1:
        original = artifact.facts["filters"]["original_files"]
    elif artifact.facts["original"] == artifact.facts["model"]:
        original = {name: one.whole for name, one in found.items()}
    else:  # layers went before
        unpruned = context.read(artifact, "teacher")
        fixed = {plan: FileShapes(graph, file, file(unpruned), ()) for plan, file in files.items()}
        original = {limit.name: _resource(limit, fixed[limit.plan]).whole for limit in config.files}
    asked = [found[limit.name].limited(limit.most, of=original[limit.name]) for limit in config.files]
    return [dataclasses.replace(one, most=_step_most(config, one.most, original[one.name])) for one in asked], original


class _Files:
    """Converts models as one plan says."""

    def __init__(self, artifact: Artifact, plan: QuantizationPlan, context: Context):
        from edgeprune.calibration import representative_dataset

        data, _ = context.required()
        self._artifact, self._plan, self._context = artifact, plan, context
        # One sample does: sizes do not depend on ranges.
        self._samples = representative_dataset(data.train, np.arange(1)) if plan.needs_samples else None

    def __call__(self, model: tf_keras.Model) -> bytes:
        from edgeprune.convert.converter import convert

        converted = convert(model, self._plan, self._samples)
        return described_file(self._artifact, self._plan, self._context, model, converted)


def _resource(limit: FileLimit, shapes: FileShapes) -> Resource:
    """What is limited; all of it may be used."""
    from edgeprune.prune.choice import file_costs

    made = {
        "latency": lambda: file_costs.latency(shapes, limit.target),
        "memory": lambda: file_costs.memory(shapes),
        "size": lambda: file_costs.size(shapes),
    }[limit.what]()
    unit = f"{made.unit} on {limit.board}" if limit.named else made.unit
    return dataclasses.replace(made, name=limit.name, key=limit.key, unit=unit)


def _allocation_facts(chosen: Allocation, blocks: list[str]) -> AllocationFacts:
    return {
        "loss": chosen.loss,
        "bound": chosen.bound,
        "seconds": chosen.seconds,
        "limits": [
            {"name": name, "value": value, "most": most, "price": chosen.prices.get(name)}
            for name, (value, most) in chosen.costs.items()
        ],
        "multiple": chosen.steps.multiple,
        "block": chosen.steps.block,
        "widths": chosen.widths,
        "blocks": blocks,
        "reasons": [_reason_facts(one) for one in chosen.reasons],
    }


def _reason_facts(one: Reason) -> WidthReason:
    return {
        "name": one.name,
        "channels": one.channels,
        "kept": one.kept,
        "loss": one.loss,
        "last": _step_facts(one.last),
        "next": _step_facts(one.next),
        "curve": [{"channels": channels, "loss": loss} for channels, loss in one.curve.items()],
    }


def _step_facts(step: Step | None) -> WidthStep | None:
    if step is None:
        return None
    return {"channels": step.channels, "loss": step.loss, "saved": dict(step.saved), "worth": step.worth}


def _measure(settings: FiltersConfig, context: Context, graph: Graph, scores: Scores) -> Curves:
    """Sensitivity on validation samples; the folder of the stage belongs to one model and config, so that is the key.

    An interrupted stage continues with the order that it had: scores from data may differ in their last digits.
    """
    from edgeprune.calibration import representative_indices
    from edgeprune.prune.choice import sensitivity

    data, task = context.required()
    count = _FEWEST if settings.samples == "auto" else settings.samples
    sample = data.validation.subset(representative_indices(data.validation, count, "stratified", context.seed))
    journal = sensitivity.Journal(context.folder / "sensitivity.jsonl", "stage")
    return sensitivity.measure(graph, lambda: scores, sample, task, journal, progress=context.progress)[0]


def _step_budget(config: FiltersStageConfig, original: ModelFacts, current: ModelFacts) -> Budget:
    """The budget of one step, relative to the model as it is now; errors of earlier steps do not add up."""
    from edgeprune.prune.choice.budget import Budget

    settings = config.filters
    if settings.rate is not None:
        return Budget(rate=_step_rate(config, settings.rate))
    limits = {}
    if settings.max_params is not None:
        wanted = _kept(config, settings.max_params, config.number)
        limits["params"] = wanted * original["params"] / current["params"]
    if settings.max_macs is not None:
        limits["macs"] = _kept(config, settings.max_macs, config.number) * original["macs"] / current["macs"]
    # A limit that an earlier step already met binds no more.
    return Budget(**{f"max_{what}": limit for what, limit in limits.items() if limit < 1})


def _step_most(config: FiltersStageConfig, most: float, original: float) -> float:
    """What a file may come to after this step if it is to come to ``most`` in the end, and was at ``original``."""
    if config.number == config.filters.steps or most >= original:
        return most
    return original * _kept(config, most / original, config.number)


def _step_rate(config: FiltersStageConfig, rate: float) -> float:
    """The fraction of what is left now that goes in this step if ``rate`` of the original is to go in all."""
    before, after = (_kept(config, 1 - rate, number) for number in (config.number - 1, config.number))
    return 1 - after / before


def _kept(config: FiltersStageConfig, kept: float, number: int) -> float:
    """The fraction of the original kept after step ``number`` (0: before the first) if ``kept`` is to be left."""
    from edgeprune.prune.weights.schedule import SCHEDULES

    settings = config.filters
    # One cycle starts a little above zero: before the first step, nothing is gone. Where nothing is to go, no curve is
    # asked (an exponential one divides by what goes).
    if number == 0 or kept == 1:
        return 1.0
    return 1 - (1 - kept) * SCHEDULES[settings.schedule](1 - kept, settings.power).fraction(number / settings.steps)


def _filters_line(rows: list[RemovedChannels], blocks: list[str], validation: dict[str, float], metric: str) -> str:
    removed, channels = sum(row["removed"] for row in rows), sum(row["channels"] for row in rows)
    values = ", ".join(f"{name} {value:.4f}" for name, value in validation.items())
    whole = f", and the blocks {', '.join(blocks)}" if blocks else ""
    return f"removed {removed} of {channels} filters and neurons{whole}; validation {metric}: {values}"
