"""From a Keras model to a .tflite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.context import Context
from edgeprune.errors import VerificationError
from edgeprune.files import write_bytes
from edgeprune.pipeline import Artifact, stage
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.recipe import CalibrationConfig, Config

if TYPE_CHECKING:
    import tf_keras


class ConvertConfig(Config):
    """A conversion, with what the target decides already decided."""

    plan: QuantizationPlan
    calibration: CalibrationConfig | None  # None: the mode needs no samples


@stage("data", "task")
def convert(artifact: Artifact, config: ConvertConfig, context: Context) -> Artifact:
    """Convert without looking at samples; the metadata tells how data is preprocessed."""
    return finish(artifact, config.plan, context, context.load(artifact), samples=None)


@stage("data", "task", "seed")
def calibrate_and_convert(artifact: Artifact, config: ConvertConfig, context: Context) -> Artifact:
    """Convert with activation ranges from representative training samples."""
    model = context.load(artifact)
    samples, facts = representative(model, config, context)
    return finish(artifact, config.plan, context, model, samples).with_(calibration=facts)


def representative(model: tf_keras.Model, config: ConvertConfig, context: Context) -> tuple[Any, dict[str, Any]]:
    """The representative dataset, and what the report and the manifest say about it."""
    import numpy as np

    from edgeprune.calibration import check_samples, choose_samples, representative_dataset

    data, _ = context.required()
    assert config.calibration is not None
    indices = choose_samples(data.train, config.calibration, model, context.seed)
    samples = representative_dataset(data.train, indices)
    labels = data.train.labels
    warnings = check_samples(
        samples(),
        data.train.spec,
        labels=None if labels is None else labels[indices],
        class_count=None if labels is None else len(np.unique(labels)),
    )
    return samples, {"samples": len(indices), "indices": indices.tolist(), "warnings": warnings}


def finish(
    artifact: Artifact, plan: QuantizationPlan, context: Context, model: tf_keras.Model, samples: Any
) -> Artifact:
    """Convert, check, and hand on the file."""
    from edgeprune.convert.tflite import convert as convert_model

    return write(artifact, plan, context, model, convert_model(model, plan, samples))


def write(
    artifact: Artifact, plan: QuantizationPlan, context: Context, model: tf_keras.Model, content: bytes
) -> Artifact:
    """Hand on a converted file, with what is odd about it."""
    from edgeprune.convert.findings import conversion_warnings, select_operators

    path = context.folder / "model.tflite"
    described = _described(content, plan, context, model)
    write_bytes(path, described)
    check_zeros_kept(path, artifact.facts.get("zeros", []))
    return artifact.with_(
        {"tflite": path},
        conversion={
            "warnings": conversion_warnings(content, plan, model),
            "select_operators": select_operators(content),
            "metadata_bytes": len(described) - len(content),
        },
    )


def _described(content: bytes, plan: QuantizationPlan, context: Context, model: tf_keras.Model) -> bytes:
    """The file with TFLite metadata: what its inputs are, what its outputs mean, what it needs."""
    from edgeprune._version import __version__
    from edgeprune.convert.metadata import describe, with_metadata
    from edgeprune.profile.flatbuffer import parse
    from edgeprune.profile.versions import format_version, min_runtime

    data, task = context.required()
    needed = min_runtime(parse(content))
    runtime = f" Needs TensorFlow Lite {format_version(needed)} or newer." if needed else ""
    info = describe(
        model,
        data.preprocessing,
        description=f"{model.name} as {plan.mode}, converted by edgeprune {__version__}.{runtime}",
        version=__version__,
        classes=data.class_names if task.classes else None,
    )
    return with_metadata(content, info)


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
