"""Every pruning method on one model: at equal size after compression, and at equal MACs.

    python benchmarks/methods.py MODEL DATA OUT [--epochs 4] [--seeds 1] [--train N] [--only NAME ...] > OUT.md

Each method fine-tunes for the same number of epochs in all, whatever it spends them on; the lottery trains twice from
the beginning. Figures are those of the int8 file of each build, on test. ``--train`` limits the training images.
An interrupted benchmark continues where it was: every method is a run folder in OUT.
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

import builds

FILTERS = {"max_macs": 0.5, "criterion": "taylor", "allocation": "global"}
HALF = {"sparsity": 0.5}


def methods(epochs: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Table heading → method → its recipe, apart from what all have in common."""
    return {
        "Half of the MACs": {
            "filters: Taylor, global, one shot": {"filters": FILTERS},
            "the same, distilled": {"filters": FILTERS, "distill": {"temperature": 2.0, "weight": 0.9}},
            "the same, two steps": {"filters": {**FILTERS, "steps": 2}, "finetune": {"epochs": epochs - 1}},
            "filters: refitted error, distilled": {
                "filters": {**FILTERS, "criterion": "reconstruct"},
                "distill": {"temperature": 2.0, "weight": 0.9},
            },
            "filters: L2, uniform": {"filters": {**FILTERS, "criterion": "l2", "allocation": "uniform"}},
            "filters: Taylor, by sensitivity": {"filters": {**FILTERS, "allocation": "sensitivity"}},
            "slimming: L1 on scales, then filters": {
                "sparsify": {"epochs": 1, "bn_l1": 1e-3},
                "filters": {**FILTERS, "criterion": "bn_scale"},
                "finetune": {"epochs": epochs - 1},
            },
            "group lasso, then filters by L2": {
                "sparsify": {"epochs": 1, "group_lasso": 1e-3, "bn_l1": 0.0},
                "filters": {**FILTERS, "criterion": "l2"},
                "finetune": {"epochs": epochs - 1},
            },
            "one block removed, then filters": {"layers": {"remove": 1}, "filters": FILTERS},
        },
        "Equal size after gzip: half of the weights zero, or 74 % of the parameters left": {
            "magnitude, per layer, gradual": {"weights": HALF},
            "the same, distilled": {"weights": HALF, "distill": {"temperature": 2.0, "weight": 0.9}},
            "magnitude, per layer, one shot": {"weights": {**HALF, "schedule": "one_shot"}},
            "magnitude, global": {"weights": {**HALF, "scope": "global"}},
            "magnitude, one cycle": {"weights": {**HALF, "schedule": "one_cycle"}},
            "Taylor, global": {"weights": {**HALF, "criterion": "taylor", "scope": "global"}},
            "movement, per layer": {"weights": {**HALF, "criterion": "movement"}},
            "movement, global": {"weights": {**HALF, "criterion": "movement", "scope": "global"}},
            "magnitude, 2:4": {"weights": {"granularity": "2:4"}},
            "magnitude, blocks of 1x4": {"weights": {**HALF, "granularity": "block:1x4"}},
            "magnitude, connections": {"weights": {**HALF, "granularity": "connection"}},
            "dynamic: RigL": {"weights": {**HALF, "regrow": "gradient", "schedule": "constant", "end": 0.75}},
            "dynamic: SET": {"weights": {**HALF, "regrow": "random", "schedule": "constant", "end": 0.75}},
            "L1 on weights, then magnitude": {
                "sparsify": {"epochs": 1, "weights_l1": 1e-5},
                "weights": HALF,
                "finetune": {"epochs": epochs - 1},
            },
            "gradual with regrowth": {"weights": {**HALF, "scope": "global", "regrow": "gradient", "end": 0.75}},
            "filters: Taylor, global, 74 % of the parameters": {"filters": {"max_params": 0.74}},
            "filters: L2, uniform, 74 % of the parameters": {
                "filters": {"max_params": 0.74, "criterion": "l2", "allocation": "uniform"},
            },
            "lottery ticket, rewound to epoch 1": {"weights": HALF, "lottery": {"epochs": epochs, "control": True}},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--train", type=int)
    parser.add_argument("--only", nargs="*", default=())
    options = parser.parse_args()
    if options.train:
        options.data = builds.smaller(options.model, options.data, options.train, options.out)
    print("# Methods\n")
    print(f"`{shlex.join(['python', *sys.argv])}` on {platform.system()}, {os.cpu_count()} cores.\n")
    images = f" on {options.train:,} training images" if options.train else ""
    print(
        f"{options.epochs} epochs of fine-tuning{images} for each method, {options.seeds} seed(s); figures of the int8"
    )
    print("file on the whole test split. The lottery trains from the beginning instead, twice.")
    unpruned = [_build(options, "unpruned", {}, seed) for seed in range(options.seeds)]
    for heading, table in methods(options.epochs).items():
        print(f"\n## {heading}\n")
        print(
            "| method | accuracy on test | bytes | after gzip | MACs (M) | zero weights | latency, built-in kernels |"
        )
        print("|---|---|---|---|---|---|---|")
        print(_row("unpruned", [report["variants"][-1] for report in unpruned]), flush=True)
        for name, recipe in table.items():
            if options.only and name not in options.only:
                continue
            reports = [_build(options, name, recipe, seed) for seed in range(options.seeds)]
            for number in range(2, len(reports[0]["variants"])):
                found = [report["variants"][number] for report in reports]
                label = name + (": control, other initial weights" if "control" in found[0]["name"] else "")
                print(_row(label, found), flush=True)


def _build(options: argparse.Namespace, name: str, recipe: dict[str, Any], seed: int) -> dict[str, Any]:
    common = {
        "finetune": {"epochs": options.epochs, "batch_size": 64, **recipe.get("finetune", {})},
        "quantize": {"modes": ["int8"]},
    }
    folder = options.out / str(seed)
    return builds.build(options.model, options.data, {**recipe, **common}, name, folder, seed, first="unpruned")


def _row(name: str, variants: list[dict[str, Any]]) -> str:
    values = [100 * v["metric"]["value"] for v in variants]
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    first = variants[0]
    cells = [
        name,
        f"{statistics.mean(values):.2f}%{spread}",
        f"{first['bytes']:,}",
        f"{round(statistics.mean(v['gzip_bytes'] for v in variants)):,}",
        f"{first['macs'] / 1e6:.2f}",
        f"{first['weight_sparsity']:.1%}",
        f"{builds.latency_ms(first, 'builtin'):.2f} ms",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
