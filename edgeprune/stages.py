"""The stages: each takes an artifact, does one thing, and hands on a new artifact."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeprune.context import Context
from edgeprune.errors import VerificationError
from edgeprune.files import write_bytes
from edgeprune.pipeline import Artifact, stage
from edgeprune.recipe import (
    AugmentConfig,
    CalibrationConfig,
    Config,
    DistillConfig,
    FiltersConfig,
    FinetuneConfig,
    MagnitudeConfig,
    Mode,
)

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.prune.allocation import Budget
    from edgeprune.train.finetune import Lessons


class FiltersStageConfig(Config):
    """One step of filter pruning; ``share``: how much of the whole reduction is reached after it, in (0, 1]."""

    filters: FiltersConfig
    share: float
    multiple: int  # channels, with what the target wants already decided


class TrainingConfig(Config):
    """What every training stage depends on."""

    finetune: FinetuneConfig
    distill: DistillConfig | None
    augment: AugmentConfig


class MagnitudeStageConfig(TrainingConfig):
    magnitude: MagnitudeConfig


class ConvertConfig(Config):
    """A conversion, with what the target decides already decided."""

    mode: Mode
    io: Literal["float", "int8"]
    calibration: CalibrationConfig | None  # None: the mode needs no samples


@stage("model", "trust")
def load(artifact: Artifact, config: None, context: Context) -> Artifact:
    """The user's model as a functional tf_keras model, compile information included."""
    from edgeprune.models.load import load_model

    return _with_model(artifact, load_model(context.source, trust=context.trust), context)


@stage("seed", "deterministic")
def demo(artifact: Artifact, config: None, context: Context) -> Artifact:
    """A small CNN trained on handwritten digits on the spot."""
    from edgeprune.data.demo import train_demo_model

    context.progress.note("no model given: training a small CNN on handwritten digits")
    return _with_model(artifact, train_demo_model(context.seed), context)


@stage("data", "task")
def baseline(artifact: Artifact, config: None, context: Context) -> Artifact:
    """The model as it came, measured on validation data."""
    from edgeprune.evaluate.accuracy import evaluate_keras

    data, task = context.required()
    value = evaluate_keras(context.load(artifact), data.validation, task)
    warnings = []
    if task.classes and task.points == 100.0 and value < 1.5 / task.classes:
        warnings.append(
            f"The model's validation {task.metric} as it came is {value:.1%}, near chance for {task.classes} classes. "
            "The likely cause is preprocessing ([data] scale, mean, std: does the model expect pixels of 0..255, 0..1 "
            "or -1..1?) or the order of the classes (folders are taken in alphabetical order)."
        )
    return artifact.with_(baseline={"validation": value, "warnings": warnings})


@stage("data", "task", "seed")
def filters(artifact: Artifact, config: FiltersStageConfig, context: Context) -> Artifact:
    """Remove the least important filters and neurons, verify, and repair what can be repaired without training."""
    from edgeprune.calibration import representative_indices
    from edgeprune.evaluate.accuracy import evaluate_keras
    from edgeprune.prune import surgery
    from edgeprune.prune.allocation import Constraints
    from edgeprune.prune.compensation import fold_means, reestimate_batch_norm
    from edgeprune.prune.criteria import Evidence
    from edgeprune.prune.filters import choose, removed_channels
    from edgeprune.prune.graph import analyse

    data, task = context.required()
    settings, original = config.filters, artifact.facts.get("original", artifact.facts["model"])
    indices = representative_indices(data.train, settings.samples, "stratified", context.seed)
    evidence = Evidence(lambda: data.train.subset(indices).batches(32, shuffle_seed=context.seed), task, context.seed)
    graph = analyse(context.load(artifact))
    constraints = Constraints(settings.min_channels, config.multiple, settings.protect, settings.rates)
    budget = _step_budget(config, original, artifact.facts["model"])
    keep = choose(graph, budget, settings.criterion, settings.allocation, constraints, evidence)
    pruned = surgery.remove(graph, keep)
    difference = surgery.verify(pruned, surgery.mask(graph, keep)) if settings.verify else None
    validation = {"pruned": evaluate_keras(pruned, data.validation, task)}
    if settings.compensate:
        fold_means(graph, keep, pruned, evidence)
        reestimate_batch_norm(pruned, lambda: data.train.subset(indices).batches(128, shuffle_seed=context.seed))
        validation["compensated"] = evaluate_keras(pruned, data.validation, task)
    removed = removed_channels(graph, keep)
    rows = [
        {
            "name": group.name,
            "channels": group.size,
            "removed": len(removed.get(group.name, ())),
            "frozen": group.frozen,
        }
        for group in graph.groups
    ]
    context.progress.note(_filters_line(rows, validation, task.metric))
    return _with_model(artifact, pruned, context).with_(
        original=original, filters={"groups": rows, "oracle_difference": difference, "validation": validation}
    )


@stage("data", "task", "seed", "deterministic")
def finetune(artifact: Artifact, config: TrainingConfig, context: Context) -> Artifact:
    """Train the model as it is."""
    from edgeprune.train.finetune import finetune as train

    data, task = context.required()
    model = context.load(artifact)
    history = train(
        model,
        data,
        task,
        _lessons(artifact, config, context),
        seed=context.seed,
        deterministic=context.deterministic,
        state_file=context.folder / "training.npz",
        progress=context.progress,
    )
    return _with_model(artifact, model, context).with_(training=history)


@stage("data", "task", "seed", "deterministic")
def magnitude(artifact: Artifact, config: MagnitudeStageConfig, context: Context) -> Artifact:
    """Prune single weights while fine-tuning, and take the wrappers off."""
    from edgeprune.prune import magnitude as pruning
    from edgeprune.train.finetune import finetune, steps_per_epoch

    data, task = context.required()
    total_steps = config.finetune.epochs * steps_per_epoch(data, config.finetune)
    wrapped, names = pruning.wrap(context.load(artifact), config.magnitude, total_steps)
    history = finetune(
        wrapped,
        data,
        task,
        _lessons(artifact, config, context),
        seed=context.seed,
        deterministic=context.deterministic,
        state_file=context.folder / "training.npz",
        progress=context.progress,
        callbacks=pruning.callbacks(),
        first_eligible_epoch=pruning.final_epoch(config.magnitude, config.finetune.epochs),
    )
    stripped = pruning.strip(wrapped)
    zeros = pruning.check_sparsity(stripped, names, config.magnitude.sparsity)
    return _with_model(artifact, stripped, context).with_(training=history, zeros=zeros)


@stage()
def convert(artifact: Artifact, config: ConvertConfig, context: Context) -> Artifact:
    """Convert without looking at data."""
    return _convert(artifact, config, context, samples=None)


@stage("data", "seed")
def calibrate_and_convert(artifact: Artifact, config: ConvertConfig, context: Context) -> Artifact:
    """Convert with activation ranges from representative training samples."""
    from edgeprune.calibration import representative_dataset, representative_indices

    data, _ = context.required()
    assert config.calibration is not None
    calibration = config.calibration
    indices = representative_indices(data.train, calibration.samples, calibration.strategy, context.seed)
    return _convert(artifact, config, context, representative_dataset(data.train, indices))


@stage("target", "compiler")
def compile_model(artifact: Artifact, config: None, context: Context) -> Artifact:
    """The vendor's compiler makes the file for the accelerator; nothing where it may be missing and is."""
    from edgeprune.convert.compilers import compile_for

    made = compile_for(context.target, artifact.files["tflite"], context.folder)
    if made is None:
        return artifact
    context.progress.note(f"{made.compiler} {made.version}: {made.placement['cpu_ops']} operators left on the CPU")
    return artifact.with_({"compiled": made.file}, compiled=made.to_dict())


@stage("data", "task", "runtime")
def evaluate(artifact: Artifact, config: None, context: Context) -> Artifact:
    """The metric of the .tflite on validation and test, and its parity with its Keras model on test.

    The only stage that reads test data.
    """
    from edgeprune.devices.runtime import find_runtime
    from edgeprune.evaluate.accuracy import evaluate_tflite
    from edgeprune.evaluate.session import Session

    data, task = context.required()
    model = context.load(artifact)
    session = Session(artifact.files["tflite"], model.input_names, model.output_names, runtime=find_runtime())
    validation, _ = evaluate_tflite(session, data.validation, task, progress=context.progress)
    test, parity = evaluate_tflite(session, data.test, task, reference=model, progress=context.progress)
    session.close()
    assert parity is not None
    return artifact.with_(
        evaluation={
            "validation": {"value": validation, "samples": data.validation.size},
            "test": {"value": test, "samples": data.test.size, "split": "test"},
            "parity": dataclasses.asdict(parity),
        }
    )


@stage("target")
def profile(artifact: Artifact, config: None, context: Context) -> Artifact:
    """What the file itself tells: sizes, sparsity, memory, operator versions."""
    from edgeprune.profile import profile as profile_file

    found = profile_file(artifact.files["tflite"], context.target, artifact.facts.get("compiled"))
    return artifact.with_(profile=found.to_dict())


@stage("runtime")
def latency(artifact: Artifact, config: None, context: Context) -> Artifact:
    """Latency on this machine, with the runtime's default kernels and with its built-in ones."""
    from edgeprune.devices.host import measure_latency

    measured = [measure_latency(artifact.files["tflite"], threads=1, kernels=k) for k in ("default", "builtin")]
    return artifact.with_(latency=measured)


def _lessons(artifact: Artifact, config: TrainingConfig, context: Context) -> Lessons:
    """The teacher is the model as it came."""
    from edgeprune.train.finetune import Lessons

    teacher = context.load(artifact, "teacher") if config.distill else None
    return Lessons(config.finetune, config.distill, config.augment, teacher)


def _step_budget(config: FiltersStageConfig, original: dict[str, Any], current: dict[str, Any]) -> Budget:
    """The budget of one step, relative to the model as it is now; errors of earlier steps do not add up."""
    from edgeprune.prune.allocation import Budget

    settings = config.filters
    if settings.rate is not None:
        return Budget(rate=1 - (1 - settings.rate) ** (1 / settings.steps))
    what, kept = ("params", settings.max_params) if settings.max_params is not None else ("macs", settings.max_macs)
    assert kept is not None
    limit = kept**config.share * original[what] / current[what]
    return Budget(max_params=limit) if what == "params" else Budget(max_macs=limit)


def _filters_line(rows: list[dict[str, Any]], validation: dict[str, float], metric: str) -> str:
    removed, channels = sum(row["removed"] for row in rows), sum(row["channels"] for row in rows)
    values = ", ".join(f"{name} {value:.4f}" for name, value in validation.items())
    return f"removed {removed} of {channels} filters and neurons; validation {metric}: {values}"


def _convert(artifact: Artifact, config: ConvertConfig, context: Context, samples: Any) -> Artifact:
    from edgeprune.convert.tflite import convert as convert_model
    from edgeprune.quantize.plan import QuantizationPlan

    plan = QuantizationPlan(config.mode, config.io, needs_samples=config.calibration is not None)
    path = context.folder / "model.tflite"
    write_bytes(path, convert_model(context.load(artifact), plan, samples))
    check_zeros_kept(path, artifact.facts.get("zeros", []))
    return artifact.with_({"tflite": path})


def check_zeros_kept(path: Path, expected: list[dict[str, Any]]) -> None:
    """Recount the zeros of pruned layers in the flatbuffer.

    Args:
        expected: one entry per pruned kernel: layer, size, zeros.

    Raises:
        VerificationError: the file has fewer zeros than the Keras model had.
    """
    from edgeprune.profile.flatbuffer import read
    from edgeprune.profile.size import kernels

    if not expected:
        return
    found = kernels(read(path))
    wanted, kept = sum(row["zeros"] for row in expected), sum(kernel.zeros for kernel in found)
    if kept < wanted:
        listed = ", ".join(f"{kernel.tensor_name} {kernel.zeros / kernel.size:.1%}" for kernel in found)
        raise VerificationError(
            f"Conversion lost zeros: the pruned model had {wanted:,}, the .tflite has {kept:,}. By kernel: {listed}.",
            fix="report this model; conversion must keep zeros.",
        )


def _with_model(artifact: Artifact, model: tf_keras.Model, context: Context) -> Artifact:
    from edgeprune.models.count import count
    from edgeprune.models.save import save_model

    path = context.folder / "model.keras"
    save_model(model, path)
    counts = count(model)
    return artifact.with_(
        {"teacher": path, **artifact.files, "model": path},
        model={
            "params": counts.params,
            "macs": counts.macs,
            "input_shape": _shapes(model.inputs),
            "output_shape": _shapes(model.outputs),
        },
    )


def _shapes(tensors: list[Any]) -> Any:
    shapes = [json.loads(json.dumps(list(tensor.shape))) for tensor in tensors]
    return shapes[0] if len(shapes) == 1 else shapes
