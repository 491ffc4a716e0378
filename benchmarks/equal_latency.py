"""Accuracy at equal estimated latency: a limit of milliseconds against a limit of multiply-accumulates.

    python benchmarks/equal_latency.py MODEL DATA OUT --recipe RECIPE [--macs 85%,75%,60%] [--seeds 1,2,3]
        [--target rpi4] >> benchmarks/results/optimum.md

For each share of the MACs, RECIPE is built with ``[filters] max_macs``; the latency that its int8 file is estimated at
is then the limit of a second build, ``[filters] max_latency``. Both figures are those of the int8 files on test. An
interrupted benchmark continues where it was. DATA is as ``reconstruct.py`` takes it.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

from reconstruct import halves

COLUMNS = (
    "MACs limited to", "seed", "ms", "MACs left", "accuracy", "by latency: ms", "MACs left", "accuracy", "gain"
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--macs", default="85%,75%,60%")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--target", default="rpi4")
    options = parser.parse_args()

    print(
        f"\n`{shlex.join(['python', *sys.argv])}` on {platform.system()} {platform.machine()}, {os.cpu_count()} cores."
    )
    print(f"\n| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|", flush=True)
    for share in options.macs.split(","):
        gains = []
        for seed in map(int, options.seeds.split(",")):
            by_macs = built({"max_macs": share}, seed, options)
            limit = by_macs.latency.estimated.median_ms
            by_latency = built({"max_latency": limit}, seed, options)
            gains.append(by_latency.metric.value - by_macs.metric.value)
            cells = [share, str(seed), *row(by_macs), *row(by_latency), f"{100 * gains[-1]:+.2f}"]
            print(f"| {' | '.join(cells)} |", flush=True)
        print(f"| {share} | mean | | | | | | | {100 * statistics.mean(gains):+.2f} |", flush=True)


def built(limit: dict[str, Any], seed: int, options: argparse.Namespace) -> Any:
    """The pruned int8 variant of a build under ``limit``."""
    from edgeprune import Recipe, build
    from edgeprune.recipe.load import load_recipe

    (kind, amount), = limit.items()  # fmt: skip
    labelled = Path(options.data, "labels.csv").is_file()
    data = halves(Path(options.data), seed) if labelled else options.data
    table = load_recipe(options.recipe).model_dump()
    table["filters"] |= {"max_macs": None, "max_params": None, "rate": None, **limit}
    recipe = Recipe.model_validate({**table, "name": kind})
    out = options.out / f"seed{seed}-{kind}-{amount}"
    report = build(options.model, target=options.target, data=data, recipe=recipe, out=out, seed=seed)
    (variant,) = (one for one in report.variants if one.macs < report.model.macs and one.name.endswith("int8"))
    return variant


def row(variant: Any) -> list[str]:
    return [f"{variant.latency.estimated.median_ms:.3f}", f"{variant.macs:,}", f"{variant.metric.value:.2%}"]


if __name__ == "__main__":
    main()
