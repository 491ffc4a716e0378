"""Which artifacts run under which runtime, and whether they compute the same there.

python benchmarks/runtimes.py PYTHON FILE.tflite...        PYTHON: of an environment with tflite-runtime 2.14.0

The environment: ``python3.11 -m venv OLD && OLD/bin/pip install tflite-runtime==2.14.0 'numpy<2' 'tflite>=2.18'``.
The files: what a build leaves in ``OUT/variants``. Each runs on the same 20 random inputs in both runtimes, with the
kernels that the runtime chooses (XNNPACK) and with its built-in ones. A file that loads is not yet one that computes
the same, so the outputs are compared with those of the first runtime's built-in kernels: the largest difference, in
rounding steps of a quantized output, else absolute.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
KERNELS = ("builtin", "default")
RUNNER = """
import json, sys
import numpy as np
from edgeprune.runtime.interpreter import find_runtime
from edgeprune.errors import EdgepruneError
runtime = find_runtime(sys.argv[1])
for model, outputs, kernels in zip(sys.argv[2::3], sys.argv[3::3], sys.argv[4::3]):
    result = {"runtime": runtime.version, "error": None, "unit": ""}
    try:
        interpreter = runtime.interpreter(model, kernels=kernels)
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
        if np.issubdtype(interpreter.get_output_details()[0]["dtype"], np.integer):
            result["unit"] = " steps"
    except (EdgepruneError, RuntimeError, ValueError) as error:
        result["error"] = " ".join(str(error).split())[:160]
    print(json.dumps(result))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python")
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args()
    files = options.files
    with tempfile.TemporaryDirectory() as folder:
        new = run(sys.executable, "ai-edge-litert", files, Path(folder) / "new")
        before = run(options.python, "tflite-runtime", files, Path(folder) / "old")
    columns = [f"{rows[0]['runtime']}, {kernels}" for rows in (new, before) for kernels in KERNELS]
    print(f"| file | {' | '.join(columns)} |")
    print(f"|{'---|' * (len(columns) + 1)}")
    for number, file in enumerate(files):
        cells = [rows[number * len(KERNELS) + place] for rows in (new, before) for place in range(len(KERNELS))]
        print(f"| {file.stem} | {' | '.join(verdict(cell, cells[0]) for cell in cells)} |")


def run(python: str, runtime: str, files: list[Path], folder: Path) -> list[dict]:
    """One process per runtime; one result per file and kind of kernels, with its outputs."""
    import numpy as np

    folder.mkdir()
    jobs = [(file, kernels) for file in files for kernels in KERNELS]
    outputs = [folder / f"{number}.npy" for number in range(len(jobs))]
    arguments = [(file.resolve(), path, kernels) for (file, kernels), path in zip(jobs, outputs, strict=True)]
    command = [python, "-c", RUNNER, runtime, *(str(part) for job in arguments for part in job)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    if done.returncode:
        sys.exit(done.stderr)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    found = [np.load(path) if path.is_file() else None for path in outputs]
    return [{**result, "outputs": values} for result, values in zip(results, found, strict=True)]


def verdict(cell: dict, reference: dict) -> str:
    """Whether it runs, and how far from the reference."""
    if cell["error"]:
        return cell["error"]
    if cell is reference or reference["error"]:
        return "runs"
    difference = abs(cell["outputs"] - reference["outputs"]).max()
    return f"runs, {difference:.2g}{cell['unit']} apart"


if __name__ == "__main__":
    main()
