"""What is left of a model that is pruned and rounded without training and without labels, over several seeds.

    python benchmarks/reconstruct.py MODEL DATA OUT --recipe RECIPE [--recipe …] [--seeds 1,2,3]

One build per seed with all recipes; an interrupted benchmark continues where it was. Figures are those of the .tflite
files on test. Seconds are those of the stages that prune and round, of the slowest seed. DATA is as for `edgeprune
build`, or a folder with ``images`` and ``labels.csv`` (file, class): then a seed also decides which half of the images
the repair may look at, and the other half is the test; pixels are scaled to -1 to 1.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", action="append", required=True)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--target", default="rpi4")
    options = parser.parse_args()

    from edgeprune import build

    seeds = [int(seed) for seed in options.seeds.split(",")]
    reports = []
    for seed in seeds:
        data = halves(Path(options.data), seed) if Path(options.data, "labels.csv").is_file() else options.data
        out = options.out / f"seed{seed}"
        report = build(options.model, target=options.target, data=data, recipe=options.recipe, out=out, seed=seed)
        reports.append(report)
        print(f"seed {seed}: {len(report.variants)} variants", file=sys.stderr)
    command = shlex.join(["python", *sys.argv])
    print(f"`{command}` on {platform.system()} {platform.machine()}, {os.cpu_count()} cores.\n")
    print("| variant | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean | worst | parameters | seconds |")
    print("|---|" + "---|" * (len(seeds) + 4))
    for number, variant in enumerate(reports[0].variants):
        rows = [report.variants[number] for report in reports]
        values = [row.metric.value for row in rows if row.metric]
        cells = [*(f"{value:.2%}" for value in values), f"{statistics.mean(values):.2%}", f"{min(values):.2%}"]
        counts = [row.nonzero_params or 0 for row in rows]
        counted = f"{min(counts):,}" if len(set(counts)) == 1 else f"{min(counts):,} to {max(counts):,}"
        spent = max(seconds(report, variant.name) for report in reports)
        print(f"| {variant.name} | {' | '.join(cells)} | {counted} | {spent:.0f} |")


def seconds(report: Any, variant: str) -> float:
    """Of the stages that change the weights on the way to a variant."""
    chain = variant.rpartition("-float32")[0] or variant.rpartition("-int")[0]
    own = [stage for stage in report.stages if stage.name.split(".")[0] == (chain or "baseline")]
    changing = [stage for stage in own if not stage.name.endswith((".convert", ".profile", ".evaluate", ".latency"))]
    return sum(stage.seconds for stage in changing if stage.name != "baseline")


def halves(folder: Path, seed: int) -> dict[str, Any]:
    """Half of the images for the repair, a fifth of them as its validation; the other half is the test."""
    import numpy as np
    from PIL import Image

    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    pixels = np.stack([np.asarray(Image.open(folder / "images" / row["file"]).convert("RGB")) for row in rows])
    x, y = pixels.astype("float32") / 127.5 - 1, np.array([int(row["class"]) for row in rows])
    order = np.random.default_rng(seed).permutation(len(x))
    half, fifth = len(x) // 2, len(x) // 10
    parts = {"validation": order[:fifth], "train": order[fifth:half], "test": order[half:]}
    return {name: (x[some], y[some]) for name, some in parts.items()}


if __name__ == "__main__":
    main()
