"""Is half of the latency that is asked for half of the latency that is had?

    python benchmarks/latency_budget.py MODEL.h5 [MODEL.h5 ...] --cache FOLDER [--count]
        [--pair TARGET/KERNELS ...] [--threads N] >> benchmarks/results/optimum.md

Each model loses channels by their norms, in multiples of the target's vector, until half of the estimated latency is
left, by ``[filters] max_latency = "50%"``, as float32 and as int8 with ranges that mean nothing; the pruned model is
converted, and its file estimated as ``edgeprune profile`` does. ``--count``: also count the instructions of one
inference of both files on the emulated Cortex-A72 (``edgeprune emulator setup``). FOLDER keeps the files.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgeprune._tensorflow import import_tf

PAIRS = ["rpi4/xnnpack", "rpi4/builtin", "pixel4/xnnpack", "coral-usb/edgetpu"]
# Kernels → runtime and delegate of the emulated board that run them.
RUNTIMES = {"xnnpack": ("ai-edge-litert", "default"), "builtin": ("tflite-runtime", "builtin")}
SHARE = "50%"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--pair", action="append")
    parser.add_argument("--threads", type=int, help="of the estimates; default: the target's")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    print(f"\n`{shlex.join(['python', *sys.argv])}`\n")
    columns = ("model", "format", "board", "kernels", "MACs", "program (ms)", "file (ms)", "latency", "instructions")
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|", flush=True)
    import_tf()
    for path in options.models:
        for mode in ("float32", "int8"):
            for row in rows(path, mode, options):
                print(f"| {' | '.join(row)} |", flush=True)


def rows(path: Path, mode: Any, options: argparse.Namespace) -> Any:
    import numpy as np

    from edgeprune import load_model
    from edgeprune.errors import ConversionError, RecipeError
    from edgeprune.hardware.latency.estimate import predict
    from edgeprune.prune.channels import surgery
    from edgeprune.prune.channels.analyse import analyse
    from edgeprune.prune.choice import file_costs
    from edgeprune.prune.choice.allocation import allocate
    from edgeprune.prune.choice.budget import Budget, Constraints
    from edgeprune.prune.choice.criteria import CRITERIA, Evidence
    from edgeprune.prune.choice.file_shapes import FileShapes
    from edgeprune.target import load_target
    from edgeprune.tflite.flatbuffer import parse
    from edgeprune.tradeoff import converted

    graph = analyse(load_model(str(path)))
    scores = CRITERIA["l2"].score(graph, Evidence())
    shapes = FileShapes.of(graph, lambda model: converted(model, mode))
    whole = options.cache / f"{path.stem}-{mode}.tflite"
    whole.write_bytes(converted(graph.model, mode))
    for pair in options.pair or PAIRS:
        name, kernels = pair.split("/")
        target = load_target(name)
        if options.threads:
            target = target.model_copy(update={"threads": options.threads})
        constraints = Constraints(steps=target.channel_steps(mode), min_channels=2)
        try:
            limit = file_costs.latency(shapes, target, kernels).limited(SHARE)
            found = allocate(graph, scores, Budget(), "global", constraints, resources=[limit])
            content = converted(surgery.remove(graph, found.keep), mode)
        except (RecipeError, ConversionError) as error:
            why = "out of reach" if isinstance(error, RecipeError) else "refused by the runtime"
            yield [path.stem, mode, name, kernels, "–", "–", "–", why, "–"]
            continue
        file = options.cache / f"{path.stem}-{mode}-{name}-{kernels}.tflite"
        file.write_bytes(content)
        predicted = predict(parse(file.read_bytes()).subgraphs[0], target, kernels)
        milliseconds, _ = found.costs["latency"]
        macs = graph.count_macs(found.keep) / graph.count_macs(np.ones_like(found.keep))
        counted = "–"
        if options.count and name == "rpi4":
            counted = f"{instructions(file, kernels) / instructions(whole, kernels):.3f}"
        yield [
            path.stem, mode, name, kernels, f"{macs:.1%}", f"{milliseconds:.4f}", f"{predicted.estimate.median_ms:.4f}",
            f"{milliseconds / limit.whole:.3f}", counted,
        ]  # fmt: skip


def instructions(path: Path, kernels: str) -> int:
    runtime, delegate = RUNTIMES[kernels]
    command = [sys.executable, "-m", "edgeprune", "bench", str(path), "--device", "emulator", "--runtime", runtime]
    command += ["--delegate", delegate, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(json.loads(done.stdout)["results"][0]["instructions"])


if __name__ == "__main__":
    main()
