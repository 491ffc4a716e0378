"""What is measured on a finished .tflite."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from edgeprune.context import Context
from edgeprune.pipeline import Artifact, stage

if TYPE_CHECKING:
    from edgeprune.devices.runtime import Runtime


@stage("data", "task", "runtime")
def evaluate(artifact: Artifact, config: None, context: Context) -> Artifact:
    """The metric of the .tflite on validation and test, and its parity with its Keras model on test.

    The only stage that reads test data.
    """
    from edgeprune.evaluate.accuracy import evaluate_tflite
    from edgeprune.evaluate.session import Session

    data, task = context.required()
    model = context.load(artifact)
    session = Session(artifact.files["tflite"], model.input_names, model.output_names, runtime=_runtime(artifact))
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

    return artifact.with_(profile=profile_file(artifact.files["tflite"], context.target).to_dict())


@stage("runtime")
def latency(artifact: Artifact, config: None, context: Context) -> Artifact:
    """Latency on this machine, with the runtime's default kernels and with its built-in ones."""
    from edgeprune.devices.host import measure_latency

    measured = [
        measure_latency(artifact.files["tflite"], threads=1, kernels=k, runtime=_runtime(artifact))
        for k in ("default", "builtin")
    ]
    return artifact.with_(latency=measured)


def _runtime(artifact: Artifact) -> Runtime:
    """The first that is installed; only TensorFlow's own interpreter has the operators of full TensorFlow."""
    from edgeprune.devices.runtime import find_runtime

    return find_runtime("tensorflow" if artifact.facts["conversion"]["select_operators"] else None)
