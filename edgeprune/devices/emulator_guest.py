#!/usr/bin/env python3
"""Run .tflite files on the emulated board, with marks around single inferences for the plugin that counts instructions.

It is copied to the board together with ``runner.py`` and prints JSON in the same form. A mark is a system call without
effect, which ``emulator_plugin.c`` and ``emulator_trace.c`` recognize by its argument.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeprune.runtime import runner
    from edgeprune.runtime.api import Interpreter
else:
    import runner

MARK = 0x6502
# Marks of emulator_trace.c, which says what they mean.
OPERATOR, WARM, START, STOP = range(MARK + 1, MARK + 5)
FACCESSAT = 48


def counted(work: Callable[[], None], mark: Callable[[str, int], bool] = os.access) -> None:
    """Run ``work`` between two marks."""
    mark("", MARK)
    work()
    mark("", MARK)


def count(work: Callable[[], None], warmup: int) -> None:
    """Mark ``warmup`` + 1 runs of ``work``, of which the last is the one that counts."""
    for _ in range(warmup + 1):
        counted(work)


def load(runtime: runner.Installed, path: str, delegate: str) -> Interpreter:
    """An interpreter of a file, on one thread."""
    try:
        return runner.make_interpreter(runtime.module, delegate, 1, model_path=path)
    except (ValueError, RuntimeError) as error:
        raise runner.RunnerError(
            runner.MODEL, f"{runtime.version} cannot load the file: {str(error).strip()}"
        ) from error


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run every file of a job (models, warmup, delegate, samples, outputs) with its runs marked; one result each."""
    runtime = runner.installed_runtime()
    assert runtime is not None  # setup has installed one
    count(lambda: None, job["warmup"])  # the cost of the marks themselves
    results: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for number, path in enumerate(job["models"]):
        interpreter = load(runtime, path, job["delegate"])
        runner.set_random_inputs(interpreter)
        # Not ``interpreter.invoke``: that is Python code, and Python speeds code up during its first calls.
        try:
            count(interpreter._interpreter.Invoke, job["warmup"])
        except (ValueError, RuntimeError) as error:
            raise runner.RunnerError(
                runner.MODEL, f"{runtime.version} cannot run the file: {str(error).strip()}"
            ) from error
        kernels = runner.kernels_of(interpreter, job["delegate"])
        checksum = runner.checksum(interpreter)
        results.append({"runtime": runtime.version, "kernels": kernels, "outputs_sha256": checksum})
        if job["samples"]:
            with runner.np.load(job["samples"], allow_pickle=False) as archive:
                inputs = [archive[f"x{i}"] for i in range(len(archive.files))]
            for index, values in enumerate(runner.run_samples(interpreter, inputs)):
                arrays[f"y{number}_{index}"] = values
    runner.np.savez(job["outputs"], **arrays)
    return {"results": results}


def tell_operator(number: int, address: int, size: int) -> None:
    """The mark that an operator stores a result of ``size`` bytes at an address; its numbers have 64 bits."""
    import ctypes

    words = [ctypes.c_uint64(word) for word in (FACCESSAT, number, OPERATOR, address, size)]
    ctypes.CDLL(None).syscall(*words[:2], b"", *words[2:])


def trace(job: dict[str, Any]) -> dict[str, Any]:
    """Run the one file of a job (models, warmup, delegate, results) with the marks of ``emulator_trace.c``.

    ``results`` has the tensors that each operator writes and the file returns, in the order of the operators; it is
    empty when nothing is to be told apart.
    """
    runtime = runner.installed_runtime()
    assert runtime is not None  # setup has installed one
    interpreter = load(runtime, job["models"][0], job["delegate"])
    runner.set_random_inputs(interpreter)
    invoke = interpreter._interpreter.Invoke
    try:
        for _ in range(job["warmup"]):
            invoke()
    except (ValueError, RuntimeError) as error:
        raise runner.RunnerError(
            runner.MODEL, f"{runtime.version} cannot run the file: {str(error).strip()}"
        ) from error
    places = set()
    for number, tensors in enumerate(job["results"]):
        for view in (interpreter.tensor(index)() for index in tensors):
            place = view.__array_interface__["data"][0]
            # An operator that only renames its input, such as RESHAPE, has the same place, and stores nothing.
            if view.nbytes and place not in places:
                places.add(place)
                tell_operator(number, place, view.nbytes)
    mark = os.access
    mark("", WARM)
    invoke()
    mark("", START)
    invoke()
    mark("", STOP)
    return {"results": [{"runtime": runtime.version, "kernels": runner.kernels_of(interpreter, job["delegate"])}]}


def main() -> int:
    gc.disable()
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    try:
        document = trace(job) if "results" in job else measure(job)
    except runner.RunnerError as error:
        document = {"error": str(error), "code": error.code}
    print(json.dumps(document))
    return int(document.get("code", 0))


if __name__ == "__main__":
    sys.exit(main())
