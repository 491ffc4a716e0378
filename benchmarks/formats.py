"""Every number format on one model: accuracy on test, bytes, bytes after gzip, and latency on this machine.

    python benchmarks/formats.py MODEL DATA OUT [--pruned MODEL.keras] [--epochs 2] [--seed 0]
        > benchmarks/results/formats.md

Methods that train do so for --epochs per training. --pruned: a model whose filters were removed and which was
fine-tuned already (``models/NAME-filters.keras`` of a run folder), to be quantized, too. An interrupted
benchmark continues where it was.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import builds

AFTER_TRAINING = ["float32", "float16", "dynamic", "int8", "int16x8", "int8-weights", "int4-weights", "mixed"]
# What trains → its recipe, apart from what all have in common.
TRAINED: dict[str, dict[str, Any]] = {
    "qat": {"qat": {}},
    "magnitude 50 %, int8": {"weights": {"sparsity": 0.5}},
    "pqat, 50 %": {"weights": {"sparsity": 0.5}, "qat": {}},
    "cluster, 16 values": {"cluster": {"n_clusters": 16}},
    "pcqat, 50 %, 16 values": {"weights": {"sparsity": 0.5}, "cluster": {"n_clusters": 16}, "qat": {}},
}
PRUNED = ("qat", "pqat, 50 %")
COLUMNS = [
    "file", "accuracy on test", "bytes", "after gzip", "of float32's", "zero weights", "latency: XNNPACK", "built-in",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--pruned")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("# Number formats\n")
    print(f"`{shlex.join(['python', *sys.argv])}` on {platform.system()}, {os.cpu_count()} cores.\n")
    print("Latency: median on this machine, one thread, ms. `–`: the kernels do not run the file.\n")
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    plain = _build(options, options.model, "after training", {"quantize": {"modes": AFTER_TRAINING}})
    base = plain["variants"][0]["gzip_bytes"]
    for variant in plain["variants"]:
        print(_row(variant["name"], variant, base), flush=True)
    for name, recipe in TRAINED.items():
        print(_row(name, _build(options, options.model, name, recipe)["variants"][-1], base), flush=True)
    if options.pruned:
        report = _build(options, options.pruned, "pruned", {})
        for variant in report["variants"]:
            print(_row(f"filters, {variant['name']}", variant, base), flush=True)
        for name in PRUNED:
            report = _build(options, options.pruned, f"pruned {name}", TRAINED[name])
            print(_row(f"filters, {name}", report["variants"][-1], base), flush=True)


def _build(options: argparse.Namespace, model: str, name: str, recipe: dict[str, Any]) -> dict[str, Any]:
    common = {"quantize": {"modes": ["int8"]}, "finetune": {"epochs": options.epochs, "batch_size": 64}}
    first = "pruned" if model == options.pruned else "after training"
    return builds.build(model, options.data, common | recipe, name, options.out, options.seed, first)


def _row(name: str, variant: dict[str, Any], base: int) -> str:
    times = [builds.latency_ms(variant, kernels) for kernels in ("xnnpack", "builtin")]
    cells = [
        name,
        f"{variant['metric']['value']:.2%}",
        f"{variant['bytes']:,}",
        f"{variant['gzip_bytes']:,}",
        f"{variant['gzip_bytes'] / base:.3f}",
        f"{variant['weight_sparsity']:.1%}",
        *("–" if ms is None else f"{ms:.3f}" for ms in times),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
