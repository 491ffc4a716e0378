"""How long does the refit of a large pruned model take, and in how much memory?

    python benchmarks/refit_speed.py [--images 512] [--macs 0.7] [MODEL ...] >> benchmarks/results/reconstruct.md

Architectures of keras.applications with random weights at 224 pixels lose channels by their norms until that share of
the MACs is left, and are refitted on that many random images by ``edgeprune.reconstruct``. Seconds of the refit alone;
CPU seconds are the sum over both cores and tell more on a busy machine. The memory is the peak of the process.
"""

import argparse
import os
import platform
import resource
import shlex
import subprocess
import sys
import time


def measure(name: str, images: int, macs: float) -> str:
    import numpy as np

    from edgeprune import prune_filters, reconstruct
    from edgeprune._tensorflow import import_tf

    import_tf()
    import tf_keras

    model = getattr(tf_keras.applications, name)(weights=None)
    pruned = prune_filters(model, max_macs=macs, criterion="l2")
    size = model.input_shape[1:]
    inputs = np.random.default_rng(0).uniform(-1, 1, (images, *size)).astype("float32")
    began, used = time.monotonic(), _cpu()
    reconstruct(model, pruned, inputs)
    seconds, cpu = time.monotonic() - began, _cpu() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return f"| {name} | {images} | {macs:.0%} | {seconds:.0f} | {cpu:.0f} | {peak:.1f} |"


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["MobileNetV2", "ResNet50"])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--macs", type=float, default=0.7)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(measure(options.one, options.images, options.macs))
        return
    print(
        f"\n`{shlex.join(['python', *sys.argv])}` on {platform.system()} {platform.machine()}, {os.cpu_count()} cores."
    )
    print(
        "\n| model | images | MACs left | seconds | CPU seconds | peak memory (GB) |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for name in options.models:  # each in a process of its own: the peak of memory is that model's
        own = ["--one", name, "--images", str(options.images), "--macs", str(options.macs)]
        subprocess.run([sys.executable, __file__, *own], check=True)


if __name__ == "__main__":
    main()
