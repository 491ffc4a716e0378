"""Runs of commands on random models: what has to hold of each, and following what a message advises.

A command runs as ``edgeprune`` runs it, in this process. A run fails by an exception that is no EdgepruneError, by an
exit code or message that no user should see, by outputs that are not the model's, or by advice that changes nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from random_models import OWN

TARGETS = ("rpi4", "rpi4", "rpi-zero2w", "coral-usb", "android-arm64")
STEPS = 6
_LONGEST = 4000
_CODES = {0, 1, 2, 3}
# What float32 may differ by, relative to the largest value of an output.
_MODEL_TOLERANCE, _FILE_TOLERANCE = 1e-3, 1e-2
_HALF_TOLERANCE = 0.1
_HALF = {"float16", "mixed_float16", "mixed_bfloat16"}


@dataclasses.dataclass
class Given:
    """What a user gives a command beside the model: it grows with the advice that is followed."""

    options: list[str] = dataclasses.field(default_factory=list)
    recipe: list[str] = dataclasses.field(default_factory=list)
    followed: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Outcome:
    """How a command ended.

    Attributes:
        code: the exit code; None: it raised.
        out, err: what it wrote.
    """

    code: int | None
    out: str
    err: str


@dataclasses.dataclass
class Result:
    """What became of a run: "worked", "refused", or how it failed; and the message."""

    kind: str
    message: str = ""
    followed: Sequence[str] = ()

    @property
    def failed(self) -> bool:
        return self.kind not in ("worked", "refused")


def run_command(arguments: Sequence[str]) -> Outcome:
    """Run ``edgeprune ARGUMENTS`` here, without the process that watches it."""
    from edgeprune import cli

    before = sys.argv
    sys.argv = ["edgeprune", *arguments]
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), as_found():
            code = cli._run(arguments[0], False)
    except BaseException:
        return Outcome(None, out.getvalue(), err.getvalue() + traceback.format_exc())
    finally:
        sys.argv = before
    return Outcome(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def as_found():
    """A fresh process has no classes registered and no layers counted."""
    import keras
    import tf_keras

    from edgeprune.models.custom import register_known_layers

    register_known_layers()
    tables = [tf_keras.saving.get_custom_objects(), keras.saving.get_custom_objects()]
    kept = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, found in zip(tables, kept, strict=True):
            table.clear()
            table.update(found)
        tf_keras.backend.clear_session()
        keras.backend.clear_session()


# --- messages ----------------------------------------------------------------------------------------------------


def flaw(outcome: Outcome, allowed: set[int] = _CODES) -> str | None:
    """What is wrong with how a command ended, whatever the model."""
    if outcome.code is None:
        return "traceback"
    if outcome.code not in allowed:
        return f"exit code {outcome.code}"
    if "Traceback (most recent call last)" in outcome.err + outcome.out:
        return "a traceback is printed"
    if outcome.code >= 2:
        messages = [line for line in outcome.err.splitlines() if line.startswith("edgeprune: ")]
        if len(messages) != 1:
            return f"{len(messages)} messages"
        if not re.search(r"^(To fix|Expected): ", outcome.err, re.MULTILINE):
            return "nothing to do is said"
        if len(outcome.err) > _LONGEST:
            return "a long message"
    return None


def message_of(outcome: Outcome) -> str:
    """The message of an error, without progress."""
    return outcome.err[outcome.err.find("edgeprune: ") :].strip() if "edgeprune: " in outcome.err else ""


def general(message: str) -> str:
    """The first line of a message, without what differs from model to model."""
    lines = message.splitlines() or [""]
    text = re.sub(r"\S*/(?=[\w.]*)", "", lines[0].removeprefix("edgeprune: "))
    return re.sub(r"'[^']*'|\"[^\"]*\"|\(.*?\)|[\d,.]*\d\w*", "…", text)[:150]


# --- advice ------------------------------------------------------------------------------------------------------

_Follow = Callable[[Given, re.Match[str]], None]


def _trust(given: Given, _: re.Match[str]) -> None:
    _option(given, "--trust-model")


def _custom(given: Given, match: re.Match[str]) -> None:
    _trust(given, match)
    _option(given, "--custom-objects", str(OWN))


def _shape(given: Given, match: re.Match[str]) -> None:
    words = shlex.split(match[0])
    for option, value in zip(words[::2], words[1::2], strict=True):
        _option(given, option, value, again=True)


def _lines(given: Given, match: re.Match[str]) -> None:
    given.recipe += [line.strip() for line in match[1].splitlines() if line.strip()]


def _modes(given: Given, match: re.Match[str]) -> None:
    given.recipe += ["[quantize]", f"modes = {match[1]}"]


def _other_modes(given: Given, _: re.Match[str]) -> None:
    given.recipe += ["[quantize]", 'modes = ["dynamic"]']


def _select(given: Given, match: re.Match[str]) -> None:
    given.recipe += ["[convert]", match[1]]


def _option(given: Given, *words: str, again: bool = False) -> None:
    if again or words[0] not in given.options:
        given.options += words


# What the end of a message may advise, the first that it holds is followed: words → what a user then does.
ADVICE: tuple[tuple[str, re.Pattern[str], _Follow], ...] = (
    (
        "custom objects",
        re.compile(r"(?s)\b(Shift|Stretch|Calls|Calls3|own_loss)\b.*--custom-objects FILE\.py"),
        _custom,
    ),
    ("trust", re.compile(r"add --trust-model"), _trust),
    ("shape", re.compile(r"(--input-shape ('[^']*'|[\w=,.]*\d)\s*)+"), _shape),
    ("modes", re.compile(r"\[quantize\] modes = (\[.*?\])"), _modes),
    ("other modes", re.compile(r"`\[quantize\] modes` takes"), _other_modes),
    ("recipe", re.compile(r"((?:^\s+\[[\w.]+\]\n(?:\s+\w+ = .*\n?)+)+)", re.MULTILINE), _lines),
    ("select", re.compile(r"`\[convert\] (select_tf_ops = true)`"), _select),
)


def follow(given: Given, message: str) -> str | None:
    """Do what a message advises, if that is known; returns what it is."""
    for name, words, act in ADVICE:
        match = words.search(message)
        if match and name not in given.followed:
            act(given, match)
            given.followed.append(name)
            return name
    return None


# --- runs --------------------------------------------------------------------------------------------------------


def run(
    command: str, model: Path, folder: Path, run_one: Callable[[dict[str, Any]], Any], task: dict[str, Any]
) -> Result:
    """One run: a command on a model file, again with what its messages advise, until it works or advises no more.

    Args:
        command: inspect, check, build or profile.
        model: the file, or the folder of a SavedModel; of profile, a .tflite.
        folder: for what is written.
        run_one: does what :func:`do` does, here or in another process.
        task: ``target``, and of a build ``data``, and ``samples``: an .npz as :func:`save_truth` writes it.
    """
    given, said = Given(), ""
    for _ in range(STEPS):
        outcome = Outcome(**run_one({"do": "command", "arguments": _arguments(command, model, folder, given, task)}))
        wrong = flaw(outcome, _CODES - ({1} if command in ("inspect", "profile") else set()))
        if wrong:
            return Result(wrong, outcome.err[-6000:], given.followed)
        message = message_of(outcome)
        if outcome.code in (0, 1):
            wrong = _wrong(command, model, folder, outcome, given, run_one, task)
            return Result(wrong, "", given.followed) if wrong else Result("worked", "", given.followed)
        if message == said:
            return Result("advice that changes nothing", message, given.followed)
        said = message
        if follow(given, message) is None:
            return Result("refused", message, given.followed)
    return Result("advice without end", said, given.followed)


def _arguments(command: str, model: Path, folder: Path, given: Given, task: dict[str, Any]) -> list[str]:
    if command == "inspect":
        return ["inspect", str(model), "--json", *given.options]
    if command == "check":
        return ["check", str(model), "--target", task["target"], "--json", *given.options]
    if command == "profile":
        return ["profile", str(model), "--target", task["target"], "--json"]
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe_of(given.recipe))
    return [
        *("build", str(model), "--target", task["target"], "--data", task["data"], "--recipe", str(recipe)),
        *("--out", str(folder / "run"), "--json", *given.options),
    ]


def recipe_of(lines: Sequence[str]) -> str:
    """A recipe for int8 without training, with lines that messages advised; the last of a key counts."""
    sections: dict[str, dict[str, str]] = {"[calibration]": {"samples": "8"}}
    section = ""
    for line in lines:
        if line.startswith("["):
            section = line.split("#")[0].strip()
        else:
            key, _, value = line.partition("=")
            sections.setdefault(section, {})[key.strip()] = value.strip()
    text = ['extends = ["int8"]']
    for name, keys in sections.items():
        text += [name, *(f"{key} = {value}" for key, value in keys.items())]
    return "\n".join(text) + "\n"


def _wrong(
    command: str,
    model: Path,
    folder: Path,
    outcome: Outcome,
    given: Given,
    run_one: Callable[[dict[str, Any]], Any],
    task: dict[str, Any],
) -> str | None:
    """What is wrong with a result."""
    try:
        document = json.loads(outcome.out)
    except ValueError:
        return f"standard output is no JSON: {outcome.out[:300]}"
    if command == "inspect" and task.get("samples"):
        return run_one(
            {"do": "compare model", "model": str(model), "options": given.options, "samples": task["samples"]}
        )
    if command == "build" and task.get("samples"):
        first = next((row for row in document["variants"] if row["name"].endswith("float32")), None)
        if first is not None:
            file = folder / "run" / first["file"]
            return run_one({"do": "compare file", "model": str(file), "samples": task["samples"]})
    return None


# --- what a process that runs commands does ----------------------------------------------------------------------


def do(order: dict[str, Any]) -> Any:
    """Run a command, or compare with what Keras computed; orders and answers are values of JSON."""
    if order["do"] == "command":
        return dataclasses.asdict(run_command(order["arguments"]))
    with np.load(order["samples"], allow_pickle=True) as held:
        inputs = {str(name): held[f"x{i}"] for i, name in enumerate(held["names"])}
        expected = [held[f"y{i}"] for i in range(len(held.files)) if f"y{i}" in held.files]
        half, rounds = bool(held["half"]), bool(held["rounds"])
    if order["do"] == "compare file" and rounds:
        return None  # the float file is without the rounding that Keras computed
    with contextlib.redirect_stderr(io.StringIO()), as_found():
        compare = _compare_model if order["do"] == "compare model" else _compare_file
        try:
            return compare(order, inputs, expected, half)
        except Exception:
            return f"comparing raised: {traceback.format_exc()[-3000:]}"


def save_truth(path: Path, inputs: dict[str, np.ndarray], outputs: Sequence[np.ndarray], traits: Sequence[str]) -> None:
    """Samples, and what Keras makes of them; whether with less than 24 bits, or with rounding, the traits say."""
    arrays = {f"x{i}": value for i, value in enumerate(inputs.values())}
    arrays |= {f"y{i}": value.astype("float64") for i, value in enumerate(outputs)}  # files hold no bfloat16
    np.savez(
        path, names=np.array(list(inputs)), half=not _HALF.isdisjoint(traits), rounds="quantized" in traits, **arrays
    )


def _compare_model(
    order: dict[str, Any], inputs: dict[str, np.ndarray], expected: list[np.ndarray], half: bool
) -> str | None:
    import tensorflow as tf

    from edgeprune.context import Trust
    from edgeprune.models.load import open_model
    from edgeprune.models.sizes import parse

    options = order["options"]
    custom = options[options.index("--custom-objects") + 1] if "--custom-objects" in options else None
    trust = Trust.of("--trust-model" in options, custom)
    shapes = parse([options[i + 1] for i, word in enumerate(options) if word == "--input-shape"])
    opened = open_model(order["model"], trust=trust.given, custom_objects=dict(trust.custom_objects))
    model = opened.rounded or opened.model  # what training for int8 rounds is rounded in what Keras computed, too
    del shapes  # the model is compared with its sizes open: the samples have their own
    if len(model.inputs) != len(inputs):
        return f"{len(model.inputs)} inputs, not {len(inputs)}"
    given = _in_order(inputs, model.input_names)
    if any(value.dtype == object for value in given) or any(map(_differs, given, model.inputs)):
        return None  # what is behind a lookup takes other inputs
    values = [tf.constant(value) for value in given]
    values = [tf.cast(value, tensor.dtype) for value, tensor in zip(values, model.inputs, strict=True)]
    found = model(tf.nest.pack_sequence_as(model._nested_inputs, values), training=False)
    return _difference(expected, tf.nest.flatten(found), _HALF_TOLERANCE if half else _MODEL_TOLERANCE)


def _compare_file(
    order: dict[str, Any], inputs: dict[str, np.ndarray], expected: list[np.ndarray], half: bool
) -> str | None:
    from edgeprune.runtime.interpreter import INTERPRETER

    found = INTERPRETER.call(outputs_of, order["model"], inputs)
    if found is None:
        return None
    return _difference(expected, found, _HALF_TOLERANCE if half else _FILE_TOLERANCE)


def outputs_of(path: str, inputs: dict[str, np.ndarray]) -> list[np.ndarray] | None:
    """Outputs of a .tflite in the order of the signature's names; None where it takes other inputs."""
    from edgeprune.runtime.interpreter import find_runtime

    interpreter = find_runtime().interpreter(path)
    signature = interpreter._get_full_signature_list()["serving_default"]
    details = {detail["index"]: detail for detail in interpreter.get_input_details()}
    if len(details) != len(inputs):
        return None
    ordered = _in_order(inputs, list(signature["inputs"])) if len(inputs) > 1 else list(inputs.values())
    indices = [signature["inputs"][n] for n in inputs] if set(inputs) == set(signature["inputs"]) else [*details]
    if len(ordered) != len(indices) or any(value.dtype == object for value in ordered):
        return None
    results: list[list[np.ndarray]] = []
    for sample in range(len(ordered[0])):
        for index, value in zip(indices, inputs.values(), strict=True):
            if tuple(details[index]["shape"][1:]) != value.shape[1:]:
                return None
            interpreter.set_tensor(index, value[sample : sample + 1].astype(details[index]["dtype"]))
        interpreter.reset_all_variables()  # a fused LSTM would begin where the last sample ended
        interpreter.invoke()
        results.append([interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()])
    return [np.concatenate(parts) for parts in zip(*results, strict=True)]


def _differs(value: np.ndarray, tensor: Any) -> bool:
    sizes = zip(value.shape[1:], tensor.shape[1:], strict=True) if value.ndim == len(tensor.shape) else [(0, 1)]
    return any(own not in (None, size) for size, own in sizes)


def _in_order(inputs: dict[str, np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
    return [inputs[name] for name in names] if set(inputs) == set(names) else list(inputs.values())


def _difference(expected: list[np.ndarray], found: Sequence[Any], allowed: float) -> str | None:
    from edgeprune.models.verify import largest_difference

    arrays = [np.asarray(value) for value in found]
    if len(arrays) != len(expected):
        return f"{len(arrays)} outputs, not {len(expected)}"
    if len(arrays) > 1:  # a file has them in an order of its own
        rest = list(arrays)
        arrays = []
        for value in expected:
            fits = [other for other in rest if other.shape == value.shape] or rest[:1]
            best = min(fits, key=lambda other: largest_difference([value], [other]))
            rest = [other for other in rest if other is not best]
            arrays.append(best)
    with np.errstate(all="ignore"):
        worst = largest_difference([np.asarray(value, np.float64) for value in expected], arrays)
    return None if worst <= allowed else f"outputs differ by {worst:.1e} of the largest"
