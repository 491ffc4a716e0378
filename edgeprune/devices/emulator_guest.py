#!/usr/bin/env python3
"""Runs .tflite files on the emulated board, with marks around single inferences for the plugin that counts.

Lies beside ``runner.py`` there, and prints JSON as that does. A mark is a system call without effect, which
``emulator_plugin.c`` knows by its argument.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys

import runner

MARK = 0x6502


def counted(work, mark=os.access):
    mark("", MARK)
    work()
    mark("", MARK)


def count(work, warmup):
    """Mark ``warmup`` + 1 runs of ``work``, of which the last is the one that counts."""
    for _ in range(warmup + 1):
        counted(work)


def load(runtime, path, delegate):
    try:
        return runner.make_interpreter(runtime[2], delegate, 1, model_path=path)
    except (ValueError, RuntimeError) as error:
        raise runner.RunnerError(runner.MODEL, f"{runtime[1]} refuses the file: {str(error).strip()}") from error


def checksum(interpreter):
    digest = hashlib.sha256()
    for detail in interpreter.get_output_details():
        digest.update(runner.np.ascontiguousarray(interpreter.get_tensor(detail["index"])).tobytes())
    return digest.hexdigest()


def measure(job):
    runtime = runner.installed_runtime()
    count(lambda: None, job["warmup"])  # what the marks themselves cost
    results, arrays = [], {}
    for number, path in enumerate(job["models"]):
        interpreter = load(runtime, path, job["delegate"])
        runner.set_random_inputs(interpreter)
        # Not ``interpreter.invoke``: that is Python, which becomes quicker in the course of its first calls.
        try:
            count(interpreter._interpreter.Invoke, job["warmup"])
        except (ValueError, RuntimeError) as error:
            raise runner.RunnerError(runner.MODEL, f"{runtime[1]} cannot run the file: {str(error).strip()}") from error
        kernels = runner.kernels_of(interpreter, job["delegate"])
        results.append({"runtime": runtime[1], "kernels": kernels, "outputs_sha256": checksum(interpreter)})
        if job["samples"]:
            with runner.np.load(job["samples"], allow_pickle=False) as archive:
                inputs = [archive[f"x{i}"] for i in range(len(archive.files))]
            for index, values in enumerate(runner.run_samples(interpreter, inputs)):
                arrays[f"y{number}_{index}"] = values
    runner.np.savez(job["outputs"], **arrays)
    return {"results": results}


def main():
    gc.disable()
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    try:
        document = measure(job)
    except runner.RunnerError as error:
        document = {"error": str(error), "code": error.code}
    print(json.dumps(document))
    return document.get("code", 0)


if __name__ == "__main__":
    sys.exit(main())
