"""From a Keras model to a .tflite."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from edgeprune.context import Context
from edgeprune.errors import VerificationError
from edgeprune.files import write_bytes
from edgeprune.pipeline import Artifact, stage
from edgeprune.recipe import CalibrationConfig, Config, Mode
from edgeprune.stages.sparse import check_sparse


class ConvertConfig(Config):
    """A conversion, with what the target decides already decided."""

    mode: Mode
    io: Literal["float", "int8"]
    calibration: CalibrationConfig | None  # None: the mode needs no samples
    sparse: bool = False  # store weights with many zeros sparse


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


def _convert(artifact: Artifact, config: ConvertConfig, context: Context, samples: Any) -> Artifact:
    from edgeprune.convert.tflite import convert as convert_model
    from edgeprune.quantize.plan import QuantizationPlan

    model, facts = context.load(artifact), artifact.facts
    trained = config.mode == "int8" and facts.get("qat", {}).get("applied", False)
    shared = _one_scale(model, facts) if trained else ()
    plan = QuantizationPlan(config.mode, config.io, samples is not None, config.sparse, trained, shared)
    path = context.folder / "model.tflite"
    write_bytes(path, convert_model(model, plan, samples))
    check_zeros_kept(path, facts.get("zeros", []))
    check_clusters_kept(path, facts.get("clusters", []), config.mode, shared)
    if config.sparse:
        check_sparse(path, model, facts["sparse_inference"]["layers"])
    return artifact.with_({"tflite": path}, warnings=[*facts.get("warnings", []), *_float_warnings(path, trained)])


def _one_scale(model: Any, facts: Mapping[str, Any]) -> tuple[str, ...]:
    """The clustered layers that get one scale for all channels, as they were trained with."""
    from edgeprune.quantize.rules import kernel_rule

    clustered = {row["layer"] for row in facts.get("clusters", [])}
    rules = {layer.name: kernel_rule(layer) for layer in model.layers if layer.name in clustered}
    return tuple(name for name, rule in rules.items() if rule is not None and rule.one_scale)


def _float_warnings(path: Path, trained: bool) -> list[str]:
    from edgeprune.profile.flatbuffer import read
    from edgeprune.profile.islands import float_warning

    warning = float_warning(read(path)) if trained else None
    return [warning] if warning else []


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


# Formats that store the weights as they are; the others have a scale per channel.
_ONE_SCALE_MODES = ("float32", "float16")


def check_clusters_kept(path: Path, expected: list[dict[str, Any]], mode: Mode, one_scale: Collection[str]) -> None:
    """Recount the different weights of clustered layers in the flatbuffer.

    Counted are stored numbers: in the whole kernel where it has no scale, or one for all channels; in each output
    channel where every channel has its own (then k shared weights are at most k different integers in each).

    Args:
        expected: one entry per clustered kernel: layer, size, distinct.
        one_scale: names of the layers whose quantized kernels have one scale.

    Raises:
        VerificationError: the file has no kernel of that size with so few different weights.
    """
    from edgeprune.profile.flatbuffer import read
    from edgeprune.profile.size import kernels

    left = kernels(read(path)) if expected else []
    lost = []
    # The kernels with the fewest clusters choose first, among the kernels of their size.
    for row in sorted(expected, key=lambda row: row["distinct"]):
        whole = mode in _ONE_SCALE_MODES or row["layer"] in one_scale
        count = {kernel: kernel.distinct if whole else kernel.channel_distinct for kernel in left}
        match = [kernel for kernel in left if kernel.size == row["size"] and count[kernel] <= row["distinct"]]
        if match:
            left.remove(max(match, key=lambda kernel: count[kernel]))
        else:
            lost.append(f"{row['layer']} ({row['distinct']} of {row['size']})")
    if lost:
        listed = ", ".join(f"{kernel.tensor_name} {kernel.distinct} of {kernel.size}" for kernel in left)
        raise VerificationError(
            f"Conversion lost shared weights. Expected at most: {', '.join(lost)}. Left in the .tflite: {listed}.",
            fix="report this model; conversion must keep clusters.",
        )
