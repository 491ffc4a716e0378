"""Measure with the runner, a Python script that is copied to the device with the model and prints lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgeprune.devices.protocol import Device, Job, broken_off
from edgeprune.errors import DeviceError, EdgepruneError, MissingError, ModelError, UsageError
from edgeprune.files import JsonObject
from edgeprune.runtime import runner
from edgeprune.workers import how_it_ended

TIMEOUT_S = 1800.0
WARMUP = 5
# Rounds also for a single file: when the connection is lost, the finished rounds are kept.
MIN_ROUNDS = 10
_SHELL_NOT_FOUND = (126, 127)  # POSIX: found but not a program, not found
_SHELL_SIGNAL, _SIGNALS = 128, 32  # POSIX: 128 + number of the signal that ended a program; how many there are
_INSTALL = (
    "install a runtime on it: python3 -m venv ~/env; ~/env/bin/pip install ai-edge-litert; and give that Python with "
    "--python PATH, such as /home/pi/env/bin/python."
)
_OUTPUTS = "outputs.npz"


def measure(device: Device, job: Job) -> list[JsonObject]:
    """Time files with the runner; see :data:`edgeprune.devices.protocol.Tool`.

    Returns:
        Also: init_ms, first_ms, p5_ms, min_ms, max_ms, mean_ms, std_ms, peak_bytes (of the whole process,
        Python included), before and after (governor, clock_hz, temperature_c, throttling; None where the machine does
        not tell), outputs_sha256 (on random input, the same everywhere), and ``outputs`` for a job with samples.

    Raises:
        UsageError: a delegate or a table of operators that the runner does not have.
        ModelError: the runtime there refuses a file.
        MissingError: no Python, runtime or delegate there.
        DeviceError: the device went away.
    """
    if job.delegate not in runner.DELEGATES:
        raise UsageError(
            f"{device.address} has no delegate {job.delegate!r}.", expected=f"one of: {', '.join(runner.DELEGATES)}."
        )
    if job.samples and job.delegate == "compiled":
        raise UsageError(
            "LiteRT's CompiledModel cannot forget what recurrent layers have seen, and so it is not given samples.",
            fix="leave out --data, or --delegate compiled: its kernels are those of the interpreter.",
        )
    if job.profile_operators:
        raise UsageError(
            f"{device.address} cannot give a table of operators.",
            expected="--operators only with --device adb://SERIAL or emulator.",
        )
    name = f"{device.address.partition('://')[0]}: {device.info().name}"
    arguments = [job.python or device.python, *_push(device, job)]
    try:
        done = device.run(arguments, timeout_s=TIMEOUT_S)
    except DeviceError as error:
        error.results = _unfinished(error.output, name)
        raise
    lines = list(_lines(done.stdout))
    if done.code or not lines or "results" not in lines[-1]:
        raise _failure(device, job, arguments[0], done.code, lines, done.stderr)
    results = [{"device": name, "complete": True, **result} for result in lines[-1]["results"]]
    if job.samples:
        try:
            _add_outputs(device, results, job.samples.parent)
        except DeviceError as error:
            error.results = broken_off(results)
            raise
    return results


def _push(device: Device, job: Job) -> list[str]:
    """Copy what is needed to the device; returns the arguments of Python there."""
    words = [device.push(Path(runner.__file__), "runner.py"), "--stdin", "--stream"]
    settings = {"threads": job.threads, "runs": job.runs, "rounds": max(job.rounds, MIN_ROUNDS), "warmup": WARMUP}
    for option, value in {**settings, "delegate": job.delegate}.items():
        words += [f"--{option}", str(value)]
    if job.samples:
        words += ["--samples", device.push(job.samples, "samples.npz"), "--outputs", _OUTPUTS]
    for number, file in enumerate(job.files):
        suffix = runner.EDGETPU_SUFFIX if file.name.endswith(runner.EDGETPU_SUFFIX) else ".tflite"
        words.append(device.push(file, f"model{number}{suffix}"))
    return words


def _lines(output: bytes) -> Iterator[JsonObject]:
    """The JSON objects among the lines of an output, whose last line may be incomplete."""
    for line in output.decode("utf-8", "replace").splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


def _unfinished(output: bytes, name: str) -> list[JsonObject]:
    """The results of the finished rounds of each file."""
    facts: dict[int, JsonObject] = {}
    rounds: dict[int, list[list[float]]] = {}
    for line in _lines(output):
        if line.get("event") == "loaded":
            facts[line["model"]] = line["facts"]
        elif line.get("event") == "round":
            rounds.setdefault(line["model"], []).append(line["times_ms"])
    return [
        {
            "device": name,
            "complete": False,
            **facts[model],
            **runner.summary(np.concatenate(times)),
            "rounds_ms": times,
            "model": model,
        }
        for model, times in sorted(rounds.items())
    ]


def _failure(device: Device, job: Job, python: str, code: int, lines: list[JsonObject], errors: str) -> EdgepruneError:
    if lines and "error" in lines[-1]:
        what = f"{device.address}: {lines[-1]['error']}."
        if lines[-1]["code"] == runner.MODEL:
            return ModelError(
                what, fix="run `edgeprune profile` on the file: it shows which release of a runtime it needs."
            )
        return MissingError(what, fix=_INSTALL)
    if code in _SHELL_NOT_FOUND:
        return MissingError(f"{device.address} has no {python}.", fix="give the path of Python on it with --python.")
    signal = -code if code < 0 else code - _SHELL_SIGNAL  # a shell between, as over SSH, adds
    if 0 < signal < _SIGNALS:
        files = " or ".join(file.name for file in job.files)
        what = f"{device.address}: the runtime there does not survive {files}: its process {how_it_ended(-signal)}."
        return ModelError(what, fix="run `edgeprune check` on the file: it looks for the operator.")
    said = "".join(c if c.isprintable() else " " for c in " ".join(errors.split())[-500:])
    if "No module named" in said:
        return MissingError(f"{device.address}: {said}.", fix=_INSTALL)
    return DeviceError(
        f"The runner on {device.address} ended with exit code {code}: {said or 'it printed nothing'}.",
        fix=f"copy {runner.__file__} to it, and run it by hand to see more.",
    )


def _add_outputs(device: Device, results: list[JsonObject], folder: Path) -> None:
    path = folder / _OUTPUTS
    device.pull(_OUTPUTS, path)
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    for number, result in enumerate(results):
        mine = [key for key in arrays if key.startswith(f"y{number}_")]
        result["outputs"] = [arrays[f"y{number}_{index}"] for index in range(len(mine))]
