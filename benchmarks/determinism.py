"""What ``--deterministic`` costs: the demo built with and without it, in turn.

python benchmarks/determinism.py [RUNS]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile

TRAINING = ("model", "magnitude")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", type=int, default=3)
    ratios = []
    for _ in range(parser.parse_args().runs):
        plain, deterministic = _training_seconds(), _training_seconds("--deterministic")
        ratios.append(deterministic / plain)
        print(f"training: {plain:.1f} s, with --deterministic {deterministic:.1f} s, ratio {ratios[-1]:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}")


def _training_seconds(*options: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "edgeprune", "build", "--target", "rpi4", "--json", "--out", "run", *options]
        done = subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return sum(stage["seconds"] for stage in json.loads(done.stdout)["stages"] if stage["name"] in TRAINING)


if __name__ == "__main__":
    main()
