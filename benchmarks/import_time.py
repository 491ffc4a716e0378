"""How long the cheap commands take, and which of the heavy packages they import.

python benchmarks/import_time.py
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time

COMMANDS = [["--help"], ["targets", "list"], ["doctor"], ["build", "--help"]]
HEAVY = ("tensorflow", "tf_keras", "matplotlib", "pydantic", "rich", "numpy")
RUNS = 7


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(f"{platform.system()}, Python {platform.python_version()}, {os.cpu_count()} cores, median of {RUNS} runs")
    empty = _seconds([sys.executable, "-c", "pass"])
    print(f"python -c pass: {empty:.3f} s")
    for command in COMMANDS:
        seconds = _seconds([sys.executable, "-m", "edgeprune", *command])
        print(
            f"edgeprune {' '.join(command)}: {seconds:.3f} s; imports {', '.join(_heavy(command)) or 'nothing heavy'}"
        )


def _seconds(command: list[str]) -> float:
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _heavy(command: list[str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "edgeprune", *command], check=True, capture_output=True, text=True
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    return [name for name in HEAVY if name in imported]


if __name__ == "__main__":
    main()
