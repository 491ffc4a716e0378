"""From a Keras model to a .tflite."""

from __future__ import annotations

import contextlib
import dataclasses
import zipfile
import zlib
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.artifact import Artifact, CalibrationFacts, KernelClusters, KernelZeros, SparseEncodingFacts
from edgeprune.context import Context
from edgeprune.errors import EdgepruneError, VerificationError
from edgeprune.files import write_bytes
from edgeprune.pipeline import stage
from edgeprune.quantize.plan import WEIGHT_ONLY, QuantizationPlan
from edgeprune.recipe.config import CalibrationConfig, Config, Mode
from edgeprune.stages.reconstruction import unlabelled
from edgeprune.stages.rounding import to_convert
from edgeprune.stages.saving import IMPORTED, ROUNDED
from edgeprune.stages.sparse import check_sparse
from edgeprune.tflite.flatbuffer import parse, read

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.convert.converter import Samples
    from edgeprune.convert.range_choice import ChosenRanges


class ConvertConfig(Config):
    """A conversion, with what the target decides already decided."""

    plan: QuantizationPlan
    calibration: CalibrationConfig | None  # None: the mode needs no samples
    sparse: bool = False  # store weights with many zeros sparse


@stage("data", "task")
def convert_without_samples(artifact: Artifact, config: ConvertConfig, context: Context) -> Artifact:
    """Convert without looking at samples; the metadata tells how data is preprocessed."""
    return finish(artifact, config.plan, context, to_convert(artifact, context), samples=None)


@stage("data", "task", "seed")
def calibrate_and_convert(artifact: Artifact, config: ConvertConfig, context: Context) -> Artifact:
    """Convert with activation ranges from representative training samples, or with those that training left."""
    if ROUNDED in artifact.files and config.plan.mode == "int8":
        plan = dataclasses.replace(config.plan, ranges_in_model=True, ranges="minmax")
        return finish(artifact, plan, context, context.read(artifact, ROUNDED), samples=None)
    model = to_convert(artifact, context)
    if _trained_for_int8(artifact):  # its samples are among its facts already
        return finish(artifact, config.plan, context, model, samples=None)
    samples, facts = representative(model, config.calibration, context)
    return finish(artifact, config.plan, context, model, samples).with_(calibration=facts)


@stage("data", "task", "seed", "runtime")
def narrow_and_convert(artifact: Artifact, config: ConvertConfig, context: Context) -> Artifact:
    """Calibrate and convert with ranges that may leave outliers out, which the runtime's values decide."""
    if ROUNDED in artifact.files or _trained_for_int8(artifact):  # its ranges are in it
        return calibrate_and_convert.run(artifact, config, context)
    model = to_convert(artifact, context)
    samples, facts = representative(model, config.calibration, context)
    chosen = ranges_by_outputs(model, config, samples, context)
    if chosen is None:
        return finish(artifact, config.plan, context, model, samples).with_(calibration=facts)
    facts["ranges"] = chosen.facts
    return write(artifact, config.plan, context, model, chosen.content).with_(calibration=facts)


def ranges_by_outputs(
    model: tf_keras.Model, config: ConvertConfig, samples: Samples, context: Context
) -> ChosenRanges | None:
    """The ranges whose file answers most like the model on validation inputs.

    None where the recipe says which, or where files cannot be made or run here: the conversion that follows says what
    is wrong with the model, if anything is.
    """
    from edgeprune.convert.range_choice import choose_ranges

    assert config.calibration is not None
    if config.calibration.range != "auto":
        return None
    data, _ = context.required()
    judging = partial(unlabelled, model, data.validation, seed=context.seed)
    try:
        chosen = choose_ranges(model, config.plan, samples, judging, config.calibration.compared, context.runtime)
    except EdgepruneError as error:
        context.progress.note(f"ranges of activations: {config.plan.ranges}; files could not be compared: {error.what}")
        return None
    listed = ", ".join(f"{name} {value:.2e}" for name, value in chosen.differences.items())
    context.progress.note(f"ranges of activations: {chosen.method}; error of the outputs: {listed}")
    return chosen


@stage("data", "task", "quantizer")
def convert_weights(artifact: Artifact, config: ConvertConfig, context: Context) -> Artifact:
    """Convert with kernels in fewer bits and arithmetic in float32."""
    return convert_without_samples.run(artifact, config, context)


def representative(
    model: tf_keras.Model, config: CalibrationConfig | None, context: Context
) -> tuple[Samples, CalibrationFacts]:
    """The representative dataset, and what the report and the manifest say about it."""
    import numpy as np

    from edgeprune.calibration import check_samples, choose_samples, representative_dataset

    data, _ = context.required()
    assert config is not None
    indices = choose_samples(data.train, config, model, context.seed)
    samples = representative_dataset(data.train, indices)
    labels = data.train.labels
    warnings = check_samples(
        samples(),
        data.train.spec,
        labels=None if labels is None else labels[indices],
        class_count=None if labels is None else len(np.unique(labels)),
    )
    facts: CalibrationFacts = {"samples": len(indices), "indices": indices.tolist(), "warnings": warnings}
    return samples, facts


@stage("target", "compiler")
def compile_model(artifact: Artifact, config: None, context: Context) -> Artifact:
    """Compile the file for the accelerator with the vendor's compiler; skipped where the target does without it."""
    from edgeprune.hardware.compilers import compile_for

    made = compile_for(context.target, artifact.files["tflite"], context.folder)
    if made is None:
        return artifact
    context.progress.note(f"{made.compiler} {made.version}: {made.placement['cpu_ops']} operators left on the CPU")
    return artifact.with_({"compiled": made.file}, compiled=made.to_dict())


def finish(
    artifact: Artifact, plan: QuantizationPlan, context: Context, model: tf_keras.Model, samples: Samples | None
) -> Artifact:
    """Convert, check, and hand on the file."""
    from edgeprune.convert.converter import convert

    if plan.mode in WEIGHT_ONLY:
        context.require("quantizer")
    plan = _as_trained(artifact, plan, model)
    content = convert(model, plan, samples, context.runtime)
    if not plan.sparse_if_smaller or plan.sparse or not artifact.facts.get("zeros"):
        return write(artifact, plan, context, model, content)
    sparse = convert(model, dataclasses.replace(plan, sparse=True), samples, context.runtime)
    context.progress.note(f"{len(content):,} bytes with dense weights, {len(sparse):,} with sparse ones")
    made = write(artifact, plan, context, model, min(content, sparse, key=len))
    encoding: SparseEncodingFacts = {
        "used": len(sparse) < len(content),
        "dense_bytes": len(content),
        "sparse_bytes": len(sparse),
    }
    return made.with_(conversion={**made.facts["conversion"], "sparse_encoding": encoding})


def _as_trained(artifact: Artifact, plan: QuantizationPlan, model: tf_keras.Model) -> QuantizationPlan:
    """The plan for a model that was trained for int8: its ranges are in it, and so are the scales of shared weights."""
    from edgeprune.quantize.rules import takes_one_scale

    if plan.mode != "int8" or not _trained_for_int8(artifact):
        return plan
    clustered = {row["layer"] for row in artifact.facts.get("clusters", [])}
    shared = tuple(layer.name for layer in model.layers if layer.name in clustered and takes_one_scale(layer))
    return dataclasses.replace(plan, ranges_in_model=True, ranges="minmax", one_scale=shared)


def _trained_for_int8(artifact: Artifact) -> bool:
    return bool(artifact.facts.get("qat", {}).get("applied", False))


def write(
    artifact: Artifact, plan: QuantizationPlan, context: Context, model: tf_keras.Model, content: bytes
) -> Artifact:
    """Hand on a converted file, checked, with its metadata and the warnings about it."""
    from edgeprune.convert.findings import conversion_warnings, select_operators

    path = context.folder / "model.tflite"
    described = described_file(artifact, plan, context, model, content)
    write_bytes(path, described)
    if select := select_operators(content):  # said here, too: the build may end where the file is to be run
        context.progress.note(f"the file needs operators of full TensorFlow: {', '.join(select)}")
    facts = artifact.facts
    check_zeros_kept(path, facts.get("zeros", []))
    check_clusters_kept(path, facts.get("clusters", []), plan.mode, plan.one_scale)
    if plan.sparse:
        check_sparse(path, model, facts["sparse_inference"]["layers"])
    return artifact.with_(
        {"tflite": path},
        conversion={
            "warnings": conversion_warnings(content, plan, model),
            "select_operators": select,
            "metadata_bytes": len(described) - len(content),
        },
    )


def described_file(
    artifact: Artifact, plan: QuantizationPlan, context: Context, model: tf_keras.Model, content: bytes
) -> bytes:
    """A converted file with its metadata, and with the names that its inputs and outputs have for the user."""
    named = _with_interface(content, artifact, model)
    if IMPORTED in artifact.files and not artifact.facts["imported"]["states"]:
        carried = _carried(named, artifact.files[IMPORTED])
        if carried is not None:
            return carried
    return _described(named, plan, context, model)


def _carried(content: bytes, path: Path) -> bytes | None:
    """A file with the metadata, and the files within, of the .tflite that its model came from.

    None if it has none, or if it describes other outputs: those behind the post-processing that the model ends before.
    """
    from edgeprune.models.archive import open_archive
    from edgeprune.tflite.metadata import carry

    old = read(path)
    if len(old.subgraphs[0].outputs) > len(parse(content).subgraphs[0].outputs):
        return None
    members = {}
    if zipfile.is_zipfile(path):
        with contextlib.suppress(zipfile.BadZipFile, zlib.error, OSError, ValueError), open_archive(path) as archive:
            members = {name: archive.read(name) for name in archive.members}
    return carry(content, old.metadata, members)


def _with_interface(content: bytes, artifact: Artifact, model: tf_keras.Model) -> bytes:
    """The file with the order and the names that its outputs have for the user; training may have renamed layers."""
    from edgeprune.models.compiled import Compiled, output_names
    from edgeprune.tflite.interface import with_interface

    stated = artifact.facts.get("compiled_with")
    names = Compiled.from_json(stated).names if stated else output_names(model)
    outputs = [
        [*(name for name in own if name != last), last] for own, last in zip(names, model.output_names, strict=True)
    ]
    padded = any(getattr(tensor, "_keras_mask", None) is not None for tensor in model.outputs)
    return with_interface(content, model.input_names, outputs, padded)


def _described(content: bytes, plan: QuantizationPlan, context: Context, model: tf_keras.Model) -> bytes:
    """The file with TFLite metadata: what its inputs are, what its outputs mean, what it needs."""
    from edgeprune._version import __version__
    from edgeprune.tflite.flatbuffer import parse
    from edgeprune.tflite.metadata import describe, with_metadata
    from edgeprune.tflite.versions import format_version, min_runtime

    data, task = context.required()
    file = parse(content)
    needed = min_runtime(file)
    runtime = f" Needs TensorFlow Lite {format_version(needed)} or newer." if needed else ""
    info = describe(
        model,
        file,
        data.preprocessing,
        description=f"{model.name} as {plan.mode}, converted by edgeprune {__version__}.{runtime}",
        version=__version__,
        classes=data.class_names if task.row_classes else None,
    )
    return with_metadata(content, info)


def check_zeros_kept(path: Path, expected: Sequence[KernelZeros]) -> None:
    """Recount the zeros of pruned layers in the flatbuffer.

    Args:
        expected: one entry per pruned kernel: layer, size, zeros.

    Raises:
        VerificationError: the file has fewer zeros than the Keras model had.
    """
    from edgeprune.tflite.flatbuffer import read
    from edgeprune.tflite.size import kernels

    if not expected:
        return
    stored = kernels(read(path))
    wanted, kept = sum(row["zeros"] for row in expected), sum(kernel.zeros for kernel in stored)
    if kept < wanted:
        listed = ", ".join(f"{kernel.tensor_name} {kernel.zeros / kernel.size:.1%}" for kernel in stored)
        raise VerificationError(
            f"Conversion lost zeros: the pruned model had {wanted:,}, the .tflite has {kept:,}. By kernel: {listed}.",
            fix="report this model; conversion must keep zeros.",
        )


# Formats that store the weights as they are; the others have a scale per channel.
_ONE_SCALE_MODES = ("float32", "float16")


def check_clusters_kept(path: Path, expected: Sequence[KernelClusters], mode: Mode, one_scale: Collection[str]) -> None:
    """Recount the different weights of clustered layers in the flatbuffer.

    Counted are stored numbers: in the whole kernel where it has no scale, or one for all channels; in each output
    channel where every channel has its own (then k shared weights are at most k different integers in each).

    Args:
        expected: one entry per clustered kernel: layer, size, distinct.
        one_scale: names of the layers whose quantized kernels have one scale.

    Raises:
        VerificationError: the file has no kernel of that size with so few different weights.
    """
    from edgeprune.tflite.flatbuffer import read
    from edgeprune.tflite.size import kernels

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
