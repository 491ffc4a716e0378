"""Do instruction counts of the emulated Cortex-A72 make latency estimates of a Raspberry Pi 4 better?

    python benchmarks/instructions_latency.py --table published.csv --cache FOLDER
        > benchmarks/results/instructions_latency.md

Counts one inference of the files that were published for the Pi 4 with the built-in kernels (tflite-runtime 2.14.0) and
four threads, of MobileNetV1 the one of full width and size, and without EfficientNet-Lite4, whose count takes long;
predicts each architecture from the others: by the latency model, by counts alone, and by the model corrected by
counts. FOLDER keeps files and counts.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from latency_accuracy import Lab, rank_correlation
from latency_data import Point, groups, load, samples
from latency_models import tflite_file

from edgeprune.hardware.latency.fit import family_weights, predict
from edgeprune.target import load_target

RIDGE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    lab = Lab(load(options.table, options.cache))
    one = lab.find("rpi4", "builtin")
    points = [p for p in lab.of(one) if p.threads == 4 and _is_counted(p)]
    counts = np.log([_instructions(_file(point, options), options.cache) for point in points])
    data, families = samples(points, load_target("rpi4"), "builtin"), groups(points)
    errors: dict[str, np.ndarray] = {
        name: np.zeros(len(points)) for name in ("latency model", "counts alone", "model corrected by counts")
    }
    measured = np.log(data.seconds)
    for family in np.unique(families):
        out = families == family
        model = np.log(predict(data, lab.solve("rpi4", "builtin", family)))
        weights = family_weights(np.array([f"{p.family} {p.dtype}" for p in points]))[~out]
        alone = _line(counts[~out], measured[~out], weights)
        excess = counts - model
        correction = _line(excess[~out], (measured - model)[~out], weights)
        errors["latency model"][out] = (model - measured)[out]
        errors["counts alone"][out] = (np.polyval(alone, counts) - measured)[out]
        errors["model corrected by counts"][out] = (model + np.polyval(correction, excess) - measured)[out]
    _print(points, families, measured, errors)


def _is_counted(point: Point) -> bool:
    if point.family == "MobileNetV1":
        return (point.model, point.input) == ("MobileNetV1_1.0", "224x224x3")
    return point.model != "EfficientNet-Lite4"


def _file(point: Point, options: argparse.Namespace) -> Path:
    with options.table.open(encoding="utf-8") as file:
        wanted = (point.device, point.model, point.input, point.dtype)
        for row in csv.DictReader(file):
            if (row["device"], row["model"], row["input"], row["dtype"]) == wanted:
                return tflite_file(row, options.cache)
    raise LookupError(wanted)


def _instructions(path: Path, cache: Path) -> int:
    known = cache / f"{path.stem}.instructions"
    if not known.is_file():
        command = [sys.executable, "-m", "edgeprune", "bench", str(path), "--device", "emulator"]
        command += ["--runtime", "tflite-runtime", "--delegate", "builtin", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        known.write_text(str(json.loads(done.stdout)["results"][0]["instructions"]))
    return int(known.read_text())


def _line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Slope and intercept by weighted least squares."""
    design = np.stack([x, np.ones_like(x)], axis=1) * weights[:, None]
    return np.linalg.solve(design.T @ design + RIDGE * np.eye(2), design.T @ (y * weights))


def _print(points: list[Point], families: np.ndarray, measured: np.ndarray, errors: dict[str, np.ndarray]) -> None:
    command = "python benchmarks/instructions_latency.py --table published.csv --cache FOLDER"
    print(f"# Instructions and latency\n\n`{command}`\n")
    print(f"{len(points)} files on a Raspberry Pi 4, built-in kernels; each architecture predicted from the others.\n")
    names = list(np.unique(families))
    print(f"| predicted by | median error | rank correlation | {' | '.join(names)} |\n{'|---' * (len(names) + 3)}|")
    for name, found in errors.items():
        error = np.abs(np.expm1(found))
        cells = [f"{np.median(error):.1%}", f"{rank_correlation(np.exp(measured), np.exp(measured + found)):.3f}"]
        print(f"| {name} | {' | '.join(cells + [f'{np.median(error[families == n]):.1%}' for n in names])} |")


if __name__ == "__main__":
    main()
