"""How far are estimates for a board off that was fitted to 5, 10, 20 or 40 measurements?

python benchmarks/fit_size.py --table published.csv --cache FOLDER

For each published board with enough files, some are chosen, the coefficients are fitted to them as `edgeprune targets
fit` does, and the others are predicted. Files are chosen at random, or as `--next` proposes them after three random
ones. Writes benchmarks/results/fit_size.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from latency_accuracy import ROOT, Fit, Lab, board_of
from latency_data import load, samples

from edgeprune.hardware.latency.fit import Samples, covariance, fit, most_informative, predict

RESULTS = ROOT / "benchmarks" / "results" / "fit_size.md"
SIZES = (0, 5, 10, 20, 40)
BOARDS = (("rpi4", "builtin"), ("pixel3", "builtin"), ("sweeps of one Edge TPU", "edgetpu"))
BEGIN = 3  # random files before the first proposal
GOAL = (20, 0.10)


def at_random(data: Samples, one: Fit, start: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(len(data.seconds))[:size]


def as_proposed(data: Samples, one: Fit, start: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Five at a time, each time after a fit to what there is."""
    chosen = list(rng.permutation(len(data.seconds))[: min(BEGIN, size)])
    while len(chosen) < size:
        known = data.take(np.array(chosen))
        theta = fit(known, start, one.each, one.common)
        left = np.setdiff1d(np.arange(len(data.seconds)), chosen)
        more = min(5, size - len(chosen))
        spread = covariance(known, theta, one.each, one.common)
        chosen += list(left[most_informative(data.take(left), theta, spread, more)])
    return np.array(chosen, int)


WAYS: tuple[tuple[str, Callable[..., np.ndarray]], ...] = (("at random", at_random), ("as proposed", as_proposed))


def errors(
    data: Samples, one: Fit, start: np.ndarray, size: int, repeats: int, choose: Callable[..., np.ndarray]
) -> list[float]:
    """Median relative error on the files that were not chosen, of each repeat."""
    found = []
    for seed in range(repeats):
        chosen = choose(data, one, start, size, np.random.default_rng(seed))
        theta = fit(data.take(chosen), start, one.each, one.common)
        rest = data.take(np.setdiff1d(np.arange(len(data.seconds)), chosen))
        found.append(float(np.median(np.abs(predict(rest, theta) / rest.seconds - 1))))
    return found


def rows(lab: Lab, repeats: int) -> list[str]:
    lines = ["| board | files | chosen | " + " | ".join(str(size) for size in SIZES) + " |"]
    lines.append("|---" * (3 + len(SIZES)) + "|")
    for name, kernels in BOARDS:
        one = lab.find(name, kernels)
        points = lab.of(one)
        data, start = samples(points, board_of(name), kernels), one.start(lab, None)
        for way, choose in WAYS:
            cells = []
            for size in SIZES:
                if size >= len(points):
                    cells.append("–")
                    continue
                found = errors(data, one, start, size, repeats, choose)
                cells.append(f"{np.median(found):.1%} ({np.quantile(found, 0.9):.1%})")
            lines.append(f"| {name}, {kernels} | {len(points)} | {way} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=ROOT.parent / "shared" / "data" / "latency" / "published.csv")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the .tflite files")
    parser.add_argument("--repeats", type=int, default=20, help="random choices per number of files")
    options = parser.parse_args()
    size, goal = GOAL
    lines = [
        "# Error against the number of measurements", "",
        "`python benchmarks/fit_size.py --cache FOLDER`", "",
        "Median relative error on the files of a board that were not measured, by a fit to so many that were: median "
        f"of {options.repeats} choices, and in brackets what nine of ten choices stay below. 0: what the fit "
        "starts from (hardware facts; for pixel3 the Raspberry Pi 4 by hardware facts). At random, or as `edgeprune "
        f"targets fit --next` proposes, five at a time after {BEGIN} random ones. Goal: {goal:.0%} with {size} "
        "measurements.", "",
        *rows(Lab(load(options.table, options.cache)), options.repeats), "",
        "Published files of a board are of few architectures, and mostly of one (MobileNetV1 in 16 sizes), which "
        "helps: a new architecture is as far off as `latency.md` says. The files of `edgeprune targets kit` were "
        "measured on no board.", "",
    ]  # fmt: skip
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
