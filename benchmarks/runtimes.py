"""Which artifacts run under which runtime, and whether they compute the same there.

python benchmarks/runtimes.py PYTHON FILE.tflite...        PYTHON: of an environment with tflite-runtime 2.14.0

The environment: ``python3.11 -m venv OLD && OLD/bin/pip install tflite-runtime==2.14.0 'numpy<2' 'tflite>=2.18'``.
The files: what a build leaves in ``OUT/variants``. Each runs on the same 20 random inputs in both runtimes, with the
kernels that the runtime chooses. A file that loads is not yet one that computes the same, so the outputs are compared:
the largest difference in rounding steps of a quantized output, or absolute.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNNER = """
import json, sys
import numpy as np
from edgeprune.devices.runtime import find_runtime
from edgeprune.errors import EdgepruneError
runtime = find_runtime(sys.argv[1])
for model, outputs in zip(sys.argv[2::2], sys.argv[3::2]):
    result = {"runtime": runtime.version, "file": model, "error": None}
    try:
        interpreter = runtime.interpreter(model)
        details, found = interpreter.get_input_details(), []
        generator = np.random.default_rng(0)
        for _ in range(20):
            for detail in details:
                values = generator.random(detail["shape"])
                if np.issubdtype(detail["dtype"], np.integer):
                    values = np.round(values * 255) + np.iinfo(detail["dtype"]).min
                interpreter.set_tensor(detail["index"], values.astype(detail["dtype"]))
            interpreter.invoke()
            found += [interpreter.get_tensor(end["index"]).ravel() for end in interpreter.get_output_details()]
        np.save(outputs, np.concatenate(found).astype("float64"))
        result["steps"] = bool(np.issubdtype(interpreter.get_output_details()[0]["dtype"], np.integer))
    except (EdgepruneError, RuntimeError, ValueError) as error:
        result["error"] = " ".join(str(error).split())[:160]
    print(json.dumps(result))
"""


def main() -> None:
    old, files = sys.argv[1], [Path(name) for name in sys.argv[2:]]
    with tempfile.TemporaryDirectory() as folder:
        here = run(sys.executable, "ai-edge-litert", files, Path(folder) / "new")
        there = run(old, "tflite-runtime", files, Path(folder) / "old")
        print(f"| file | {here[0]['runtime']} | {there[0]['runtime']} | largest difference of outputs |")
        print("|---|---|---|---|")
        for number, (file, new, before) in enumerate(zip(files, here, there, strict=True)):
            difference = compare(Path(folder), number) if not (new["error"] or before["error"]) else "–"
            unit = " steps" if new.get("steps") and difference != "–" else ""
            print(f"| {file.stem} | {verdict(new)} | {verdict(before)} | {difference}{unit} |")


def run(python: str, runtime: str, files: list[Path], folder: Path) -> list[dict]:
    """One process per runtime; one result per file."""
    folder.mkdir()
    pairs = [str(part) for number, file in enumerate(files) for part in (file.resolve(), folder / f"{number}.npy")]
    command = [python, "-c", RUNNER, runtime, *pairs]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    if done.returncode:
        sys.exit(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(folder: Path, number: int) -> str:
    import numpy as np

    new, old = (np.load(folder / name / f"{number}.npy") for name in ("new", "old"))
    return f"{np.abs(new - old).max():.3g}"


def verdict(result: dict) -> str:
    return "runs" if result["error"] is None else result["error"]


if __name__ == "__main__":
    main()
