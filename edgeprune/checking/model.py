"""What the user has, checked: a .tflite file as it is, a Keras model by converting it for a look."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.checking.check import Finding, Subject
from edgeprune.checking.check import check as run_checkers
from edgeprune.recipe.config import Mode
from edgeprune.target import Target, load_target

if TYPE_CHECKING:
    import keras
    import tf_keras

    from edgeprune.models.sizes import InputShapes


def check(
    model: str | Path | tf_keras.Model | keras.Model,
    target: str | Path | Target,
    *,
    input_shape: InputShapes | None = None,
) -> list[Finding]:
    """Find out what will not run, or not run fast, on a target, and what to change.

    Args:
        model: a .tflite file, which is read without TensorFlow; or a Keras model, trained or not: a file or an object
            as :func:`edgeprune.models.load.load_model` takes it. It is converted to the number formats that suit the
            target, with noise as calibration data, and the findings name its layers.
        target: the board: its name, its TOML file, or a :class:`~edgeprune.target.Target`.
        input_shape: sizes for inputs of open size, as :func:`edgeprune.models.load.load_model` takes them; None: sizes
            for a look, which a note names.

    Returns:
        The findings, errors (will not run as it is) first, then warnings (runs, but on the wrong processor or against
        the documentation), then notes (could run faster); empty where there is nothing to say. A number format that
        the converter refuses is a finding, too.

    Raises:
        TargetError: no such target.
        ModelError: the model is missing, damaged, or of a kind that edgeprune cannot use.
        UsageError: an input shape that does not fit the inputs.
        MissingError: a compiler that the target needs is not installed.
    """
    chosen = target if isinstance(target, Target) else load_target(target)
    if isinstance(model, str | Path) and Path(model).suffix == ".tflite":
        from edgeprune.tflite.flatbuffer import read

        return run_checkers([Subject(Path(model), read(model))], chosen)
    from edgeprune.models.load import load_model

    return _check_keras(load_model(model, input_shape=input_shape), chosen)


def _check_keras(model: tf_keras.Model, target: Target) -> list[Finding]:
    from edgeprune.checking.trial import trial_modes
    from edgeprune.models.sizes import for_a_look

    model, note = for_a_look(model)
    notes = [Finding("note", note, checker="sizes", formats=trial_modes(target))] if note else []
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        subjects, refused = _convert(model, target, Path(folder))
        return [*refused, *run_checkers(subjects, target), *notes]


def _convert(model: tf_keras.Model, target: Target, folder: Path) -> tuple[list[Subject], list[Finding]]:
    """The conversions that worked, and for those that did not, the converter's words."""
    from edgeprune.checking.trial import trial_modes, trial_subject
    from edgeprune.convert.recurrent import refuse_state
    from edgeprune.errors import ConversionError
    from edgeprune.quantize.plan import RULES

    subjects: list[Subject] = []
    modes = trial_modes(target)
    try:
        refuse_state(model)
    except ConversionError as error:  # in every format, before any is tried
        return [], [Finding("error", error.what, error.fix, checker="state", formats=tuple(modes))]
    refused = _loops(model, [mode for mode in modes if RULES[mode].samples])
    stuck = any(finding.severity == "error" for finding in refused)
    for mode in modes:
        if stuck and RULES[mode].samples:
            continue
        try:
            subjects.append(trial_subject(model, target, mode, folder))
        except ConversionError as error:
            refused.append(Finding("error", error.what, error.fix, checker="converter", formats=(mode,)))
    return subjects, refused


def _loops(model: tf_keras.Model, formats: Sequence[Mode]) -> list[Finding]:
    """Layers that become loops, in formats that are calibrated: refused, or written out."""
    from edgeprune.convert.recurrent import DYNAMIC, loops, note

    found = loops(model) if formats else []
    errors = [
        Finding(
            "error",
            f"{loop.kind} becomes a loop, for which activation ranges cannot be calibrated, and its steps cannot be "
            f"written out: {loop.obstacle.why}.",
            f"{DYNAMIC}; or {loop.obstacle.fix}.",
            (loop.layer,),
            "loops",
            tuple(formats),
        )
        for loop in found
        if loop.obstacle
    ]
    written = [loop for loop in found if not loop.obstacle]
    if not written:
        return errors
    what = f"{note(written).capitalize()}."
    return [*errors, Finding("note", what, None, tuple(loop.layer for loop in written), "loops", tuple(formats))]
