"""What is measured on a finished .tflite."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from edgeprune.artifact import Artifact
from edgeprune.context import Context
from edgeprune.files import JsonObject
from edgeprune.pipeline import Unfinished, stage

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.runtime.interpreter import Runtime
    from edgeprune.runtime.micro import FloatMicroSession
    from edgeprune.runtime.session import Session

# Below this agreement with the Keras model, the report says where the error arises.
LOW_AGREEMENT = 0.98
ORIGIN_SAMPLES = 32
ANSWERS = "answers.npz"


@stage("data", "task", "runtime")
def evaluate(artifact: Artifact, config: None, context: Context) -> Artifact:
    """The metrics of the .tflite on validation and test, and its parity with its Keras model on test.

    With :func:`evaluate_micro`, which does the same, the only stage that reads test data.
    """
    from edgeprune.runtime.session import Session

    model = context.read(artifact)
    runtime = _runtime(artifact, context)
    session = Session(artifact.files["tflite"], model.input_names, model.output_names, runtime=runtime)
    return _evaluated(artifact, context, model, session, runtime.version)


@stage("data", "task", "runtime", "micro")
def evaluate_micro(artifact: Artifact, config: None, context: Context) -> Artifact:
    """As :func:`evaluate`, of the file that is flashed, run by TensorFlow Lite Micro's interpreter.

    Where that is not installed, LiteRT runs the plain file.
    """
    from edgeprune.runtime.micro import FloatMicroSession, installed_version
    from edgeprune.tflite.flatbuffer import read

    context.require("micro")
    version = installed_version()
    if version is None:
        context.progress.note("measured by LiteRT: edgeprune[micro] has the interpreter of microcontrollers")
        return evaluate.run(artifact, config, context)
    model = context.read(artifact)
    flashed, plain = artifact.files["micro"].read_bytes(), read(artifact.files["tflite"])
    session = FloatMicroSession(flashed, plain, model.input_names, model.output_names)
    return _evaluated(artifact, context, model, session, version)


def _evaluated(
    artifact: Artifact, context: Context, model: tf_keras.Model, session: Session | FloatMicroSession, runtime: str
) -> Artifact:
    from edgeprune.evaluate.accuracy import evaluate_tflite
    from edgeprune.evaluate.answers import Answers

    data, task = context.required()
    validation, _ = evaluate_tflite(session, data.validation, task, progress=context.progress)
    answers = Answers(task.outputs, task.merit)
    test, parity = evaluate_tflite(
        session, data.test, task, reference=model, answers=answers, progress=context.progress
    )
    session.close()
    assert parity is not None
    agreement = parity.top1_agreement
    origin = _origin(artifact, model, context) if agreement is not None and agreement < LOW_AGREEMENT else None
    answers.save(context.folder / ANSWERS)
    warnings = _coarse(artifact, model, context)
    facts = dataclasses.asdict(parity)
    if lost := facts.pop("not_finite"):
        warnings.append(
            f"{lost:,} of the values that the file answers on test data are NaN or infinite: a class is read from them "
            "all the same, so that figures of classes mean little"
        )
    return artifact.with_(
        {"answers": context.folder / ANSWERS},
        warnings=[*artifact.facts.get("warnings", []), *warnings],
        evaluation={
            "validation": {"value": task.value(validation), "samples": data.validation.size, "metrics": validation},
            "test": {"value": task.value(test), "samples": data.test.size, "split": "test", "metrics": test},
            "parity": {**facts, "origin": origin},
            "runtime": runtime,
        },
    )


@stage("data", "task", "runtime")
def validate(artifact: Artifact, config: None, context: Context) -> Artifact:
    """The metrics of the .tflite on validation alone: what trials of a search are chosen by."""
    from edgeprune.evaluate.accuracy import evaluate_tflite
    from edgeprune.runtime.session import Session

    data, task = context.required()
    model = context.read(artifact)
    runtime = _runtime(artifact, context)
    session = Session(artifact.files["tflite"], model.input_names, model.output_names, runtime=runtime)
    try:
        metrics, _ = evaluate_tflite(session, data.validation, task, progress=context.progress)
    finally:
        session.close()
    return artifact.with_(validated={"value": task.value(metrics), "samples": data.validation.size, "metrics": metrics})


@stage("target", "compiler")
def profile(artifact: Artifact, config: None, context: Context) -> Artifact:
    """What the file itself tells: sizes, sparsity, memory, operator versions."""
    from edgeprune.profiling.profile import profile as profile_file

    compiled = artifact.facts.get("compiled")
    profiled = profile_file(artifact.files["tflite"], context.target, compiled, best_compression=True)
    return artifact.with_(profile=profiled.to_dict())


@stage("runtime")
def latency(artifact: Artifact, config: None, context: Context) -> Artifact:
    """Latency on this machine, with the runtime's default kernels and with its built-in ones."""
    from edgeprune.devices.host import measure_latency

    measured = [
        measure_latency(artifact.files["tflite"], threads=1, kernels=k, runtime=_runtime(artifact, context))
        for k in ("default", "builtin")
    ]
    return artifact.with_(latency=measured)


@stage("target", "device")
def measure_on_device(artifact: Artifact, config: None, context: Context) -> Artifact:
    """Latency, or a count of instructions, on the device that the build was given.

    A file that cannot be measured there is a warning about its variant. A device that goes away ends the measuring;
    the rounds of this file that it had finished are shown, and measured again by the next build.
    """
    from edgeprune.devices.variants import measure_variant

    facts, error = measure_variant(context.connection(), artifact.files["tflite"], context.target)
    measured = artifact.with_(on_device=facts)
    if error is not None:
        raise Unfinished(measured) from error
    return measured


def _runtime(artifact: Artifact, context: Context) -> Runtime:
    """The first that is installed; only TensorFlow's own interpreter has the operators of full TensorFlow."""
    return context.runtime("tensorflow" if artifact.facts["conversion"]["select_operators"] else None)


def _coarse(artifact: Artifact, model: tf_keras.Model, context: Context) -> list[str]:
    """Warnings about outputs whose integers are too far apart, on validation samples."""
    from edgeprune.calibration import representative_dataset, representative_indices
    from edgeprune.quantize.coarse import answers_of, coarse_outputs, integer_outputs
    from edgeprune.tflite.flatbuffer import read

    file = read(artifact.files["tflite"])
    if not integer_outputs(file):
        return []
    data, _ = context.required()
    indices = representative_indices(data.validation, ORIGIN_SAMPLES, "stratified", seed=0)
    values = answers_of(model, representative_dataset(data.validation, indices)())
    return [output.warning for output in coarse_outputs(file, values)]


def _origin(artifact: Artifact, model: tf_keras.Model, context: Context) -> JsonObject | None:
    """The first layer after which the file departs from its Keras model, on validation samples."""
    from edgeprune.calibration import representative_dataset, representative_indices
    from edgeprune.convert.converter import convert
    from edgeprune.quantize.origin import describe, error_by_tensor
    from edgeprune.quantize.plan import QuantizationPlan

    data, _ = context.required()
    indices = representative_indices(data.validation, ORIGIN_SAMPLES, "stratified", seed=0)
    samples = representative_dataset(data.validation, indices)
    reference = convert(model, QuantizationPlan("float32", "float", needs_samples=False))
    errors = error_by_tensor(artifact.files["tflite"].read_bytes(), reference, samples(), _runtime(artifact, context))
    return describe(errors, model)
