"""Edge TPU placement, predicted from the file alone, against what the compiler did.

    python benchmarks/edgetpu_placement.py [FOLDER] > benchmarks/results/edgetpu_placement.md

FOLDER holds ``oracle.csv`` (what stood in the compiled file of each model) and ``models/``. An operator is
right when its place (Edge TPU or CPU) is that of the compiler; one that the rules cannot tell counts as wrong.
"""

import argparse
import csv
from collections import Counter
from pathlib import Path

DEFAULT = Path(__file__).parents[2] / "shared" / "data" / "coral"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT)
    folder = parser.parse_args().folder

    from edgeprune.hardware.edgetpu.summary import edgetpu_placement
    from edgeprune.tflite.flatbuffer import read

    operators = wrong = full_right = bytes_right = streamed_right = 0
    misses = []
    with (folder / "oracle.csv").open() as file:
        rows = list(csv.DictReader(file))
    print("# Edge TPU placement\n\n`python benchmarks/edgetpu_placement.py FOLDER`\n")
    print("| model | operators | wrong | uncertain | fully mapped | cached bytes | compiler | error | streamed |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        found = edgetpu_placement(read(folder / row["file"]).subgraphs[0])
        missed = _missed(found, row)
        expected, full = int(row["onchip_param_bytes"]), row["mapped_fully"] == "True"
        error = found.cached_param_bytes / expected - 1 if expected else float(found.cached_param_bytes != 0)
        operators, wrong = operators + len(found.operators), wrong + missed
        full_right += found.fully_mapped == full
        bytes_right += abs(error) <= 0.05
        streamed = int(row["offchip_param_bytes"])
        streamed_right += abs(found.streamed_param_bytes - streamed) <= 0.05 * streamed
        name = Path(row["file"]).stem
        print(
            f"| {name} | {len(found.operators)} | {missed} | {found.uncertain_ops} | {found.fully_mapped} "
            f"| {found.cached_param_bytes:,} | {expected:,} | {error:+.2%} "
            f"| {found.streamed_param_bytes:,} / {streamed:,} |"
        )
        if missed or found.fully_mapped != full:
            left = _on_cpu(found)
            misses.append(
                f"{name}: predicted on the CPU {dict(left)}, compiler left {row['ops_left_on_cpu'] or 'none'}"
            )
        if abs(error) > 0.05:
            misses.append(f"{name}: cached bytes {error:+.1%}")
    files = len(rows)
    print(f"\noperators right: {operators - wrong} of {operators} ({1 - wrong / operators:.2%}; bar 97 %)")
    print(f"fully mapped right: {full_right} of {files} (bar 26 of 28)")
    print(f"cached bytes within 5 %: {bytes_right} of {files} (bar 27)")
    print(f"streamed bytes within 5 %: {streamed_right} of {files} (bar 27)")
    print("\n## Misses\n")
    print("\n".join(f"- {miss}" for miss in misses) or "none")


def _on_cpu(found) -> Counter:
    return Counter(op.name for op in found.operators if not op.on_accelerator)


def _missed(found, row) -> int:
    """Operators placed otherwise than the compiler did, compared by operator; in doubt counts as wrong."""
    actual: Counter = Counter()
    for part in filter(None, row["ops_left_on_cpu"].split(";")):
        name, count = part.rsplit(":", 1)
        actual[name.removeprefix("CUSTOM:")] += int(count)
    predicted = _on_cpu(found)
    differing = sum(((predicted - actual) + (actual - predicted)).values())
    return differing + sum(not op.certain for op in found.operators)


if __name__ == "__main__":
    main()
