"""How near to the best choice of widths does the solver come on large models, and in how much time and memory?

    python benchmarks/optimum.py [NAME ...] [--scores heavy|l2] [--target rpi4 --mode float32]

Half of the multiply-accumulates of architectures of keras.applications at their own sizes, channels in multiples of 8,
random weights; with ``--target``, half of the estimated latency. ``heavy``: made-up scores whose logarithms are normal,
as those of trained models nearly are. ``l2``: the norms of random filters, which are nearly equal, so that very many
choices are nearly as good: the worst case for a solver. Each architecture runs in a process of its own, for its memory.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from typing import Any

from edgeprune._tensorflow import import_tf
from edgeprune.target import ChannelSteps

NAMES = ["ResNet50", "EfficientNetB7", "DenseNet121", "NASNetMobile", "MobileNetV3Large", "ConvNeXtTiny"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--scores", choices=["heavy", "l2"], default="heavy")
    parser.add_argument("--target")
    parser.add_argument("--mode", choices=["float32", "int8"], default="float32")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(row(options.names[0], options), flush=True)
        return
    command = shlex.join(["python", *sys.argv])
    print(f"`{command}` on {platform.system()} {platform.machine()}, {os.cpu_count()} cores.\n")
    columns = ("architecture", "groups", "most widths", "kept", "loss", "gap", "solver (s)", "in all (s)", "peak (GB)")
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|", flush=True)
    for name in options.names:
        more = ["--target", options.target, "--mode", options.mode] if options.target else []
        subprocess.run([sys.executable, __file__, name, "--alone", "--scores", options.scores, *more], check=False)


def row(name: str, options: Any) -> str:
    import_tf()
    import numpy as np
    import tf_keras

    from edgeprune import load_model
    from edgeprune.prune.channels.analyse import analyse
    from edgeprune.prune.choice.allocation import allocate
    from edgeprune.prune.choice.budget import Budget, Constraints
    from edgeprune.prune.choice.criteria import CRITERIA, Evidence
    from edgeprune.prune.choice.program import relative_gap

    model = load_model(getattr(tf_keras.applications, name)(weights=None))
    graph = analyse(model)
    random = np.random.default_rng(0)
    if options.scores == "l2":
        scores = CRITERIA["l2"].score(graph, Evidence())
    else:
        scores = {group.name: np.exp(random.normal(size=group.size) + random.normal()) for group in graph.groups}
    constraints = Constraints(steps=ChannelSteps(8), min_channels=2)
    started = time.monotonic()
    if options.target:
        found = allocate(graph, scores, Budget(), "global", constraints, resources=[half_of_latency(graph, options)])
    else:
        found = allocate(graph, scores, Budget(max_macs=0.5), "global", constraints)
    seconds = time.monotonic() - started
    ((value, most),) = found.costs.values()
    gap = relative_gap(found.loss, found.bound)
    widths = found.widths or max(len(group.free) for group in graph.groups) // found.multiple
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"| {name} | {len(graph.groups)} | {widths} | {value / most / 2:.2%} | {found.loss:.4g} | {gap:.2%} | "
        f"{found.seconds:.1f} | {seconds:.1f} | {peak:.1f} |"
    )


def half_of_latency(graph: Any, options: Any) -> Any:
    from edgeprune.prune.choice import file_costs
    from edgeprune.prune.choice.file_shapes import FileShapes
    from edgeprune.target import load_target
    from edgeprune.tradeoff import converted

    shapes = FileShapes.of(graph, lambda model: converted(model, options.mode))
    return file_costs.latency(shapes, load_target(options.target)).limited("50%")


if __name__ == "__main__":
    main()
