"""From a Keras model to a .tflite."""

from __future__ import annotations

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

    plan = QuantizationPlan(config.mode, config.io, config.calibration is not None, config.sparse)
    path, model = context.folder / "model.tflite", context.load(artifact)
    write_bytes(path, convert_model(model, plan, samples))
    check_zeros_kept(path, artifact.facts.get("zeros", []))
    if config.sparse:
        check_sparse(path, model, artifact.facts["sparse_inference"]["layers"])
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
