"""Size, accuracy and latency of builds of MLPerf Tiny's ResNet8: a table of their reports.

    for recipe in benchmarks/resnet8/*.toml; do for seed in 0 1; do
      edgeprune build resnet8_cifar10_jpeg.h5 --data cifar10 --target rpi4 --recipe $recipe --seed $seed --out RUN
    done; done
    python benchmarks/resnet8.py RUN ... > benchmarks/results/resnet8.md

Latency: on the machine that built, relative to the unpruned file of the same format in the same build.
"""

import argparse
import json
from pathlib import Path

COLUMNS = [
    "recipe", "seed", "variant", "MACs", "parameters", "zero weights", "accuracy on test", "bytes", "after gzip",
    "of float32's", "latency: XNNPACK", "built-in",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    reports = [json.loads((folder / "report.json").read_text()) for folder in parser.parse_args().runs]
    machines = sorted({f"{r['environment']['cpu']}, {r['environment']['runtime']}" for r in reports})
    print("# ResNet8 on CIFAR-10\n\n`python benchmarks/resnet8.py RUN ...`, of builds as the script says, recipes in")
    print(f"[resnet8](../resnet8). {'; '.join(machines)}, one thread.\n")
    print("Latency is that of the unpruned file of the same format in the same build = 1.\n")
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for number, report in enumerate(reports):
        plain = {variant["name"]: variant for variant in report["variants"] if "-" not in variant["name"]}
        for variant in report["variants"]:
            if number == 0 or variant["name"] not in plain:
                print(_row(report, variant, plain))


def _row(report: dict, variant: dict, plain: dict[str, dict]) -> str:
    like, whole = plain[variant["name"].rpartition("-")[2]], plain["float32"]
    ours, theirs = _medians(variant), _medians(like)
    cells = [
        "–" if variant is like else report["recipe"],
        "–" if variant is like else report["seed"],
        variant["name"],
        f"{variant['macs'] / whole['macs']:.1%}",
        f"{variant['params']:,}",
        f"{variant['weight_sparsity']:.1%}",
        f"{variant['metric']['value']:.2%}",
        f"{variant['bytes']:,}",
        f"{variant['gzip_bytes']:,}",
        f"{variant['gzip_bytes'] / whole['gzip_bytes']:.3f}",
        *(f"{ours[kernels] / theirs[kernels]:.2f}" for kernels in ("xnnpack", "builtin")),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _medians(variant: dict) -> dict[str, float]:
    return {found["kernels"]: found["median_ms"] for found in variant["latency"]["measured"]}


if __name__ == "__main__":
    main()
