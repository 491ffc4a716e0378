"""How good the front of a search is, and when: the volume that it dominates over time, beside random search.

    python benchmarks/search_front.py MODEL DATA OUT --timeout 20m --seeds 1,2,3 --plot OUT/front.svg
        [--recipe RECIPE] [--beside FILE.tflite …]

Both samplers search the same space under the same goal, at the same time, each on one processor. The goal is to lose no
more than what the volume counts: under a stricter one, a search leaves the front beyond it alone. DATA has validation
samples that the model has not seen, or what is lost is overstated. The volume is that of all files so far: in points
lost on validation (up to 20), milliseconds and bytes (up to those of the unpruned float32 file), as a share of what can
be dominated. Time is what the rungs of the trials took, one after the other. Needs moocore and matplotlib.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

SAMPLERS = ("tpe", "random")
SEARCH = """
import sys
import edgeprune
model, data, out, timeout, sampler, seed, recipe, most = sys.argv[1:]
options = dict(target="rpi4", out=out, timeout=timeout, sampler=sampler, seed=int(seed), recipe=recipe or None)
edgeprune.search(model, data=data, limits=edgeprune.Limits(max_drop=float(most)), **options)
"""
# Points lost at which a file is worth nothing, and which the searches may lose.
MOST_LOST = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--timeout", default="20m")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--recipe", default="", help="what the searches start from; default: as edgeprune search")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--beside", type=Path, nargs="*", default=())
    arguments = parser.parse_args()
    curves: dict[str, list[list[tuple[float, float]]]] = {sampler: [] for sampler in SAMPLERS}
    print("| sampler | seed | different trials | files | volume after a third | two thirds | the end | pick on test |")
    print("|---|---|---|---|---|---|---|---|")
    for seed in arguments.seeds.split(","):
        folders = {sampler: arguments.out / f"{sampler}-{seed}" for sampler in SAMPLERS}
        running = [
            _search(arguments, folder, sampler, seed, core)
            for core, (sampler, folder) in enumerate(folders.items())
            if not (folder / "search.json").is_file()
        ]
        for process in running:
            process.wait()
        for sampler, folder in folders.items():
            (target,) = json.loads((folder / "search.json").read_text())["targets"]
            curve = _volumes(target)
            curves[sampler].append(curve)
            end = curve[-1][0]
            parts = [_at(curve, end * part) for part in (1 / 3, 2 / 3, 1)]
            trials = sum(trial["state"] != "repeated" for trial in target["trials"])
            cells = [sampler, seed, trials, len(curve), *(f"{part:.3f}" for part in parts), target["message"]]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)
    for sampler, found in curves.items():
        ends = [curve[-1][1] for curve in found]
        print(f"\n{sampler}: {statistics.mean(ends):.3f} at the end on average, {min(ends):.3f} at worst")
    if arguments.plot:
        _plot(curves, arguments.plot)
    if arguments.beside:
        _print_beside(arguments)


def _print_beside(arguments: argparse.Namespace) -> None:
    """What each search gains over files that were made by hand, where its front has one as fast and as small."""
    fronts = {
        (sampler, seed): json.loads((arguments.out / f"{sampler}-{seed}" / "search.json").read_text())["targets"][0]
        for seed in arguments.seeds.split(",")
        for sampler in SAMPLERS
    }
    columns = [f"{sampler} {seed}" for sampler, seed in fronts]
    print(f"\n| file | points lost | ms | bytes | {' | '.join(columns)} |\n{'|---' * (len(columns) + 4)}|")
    whole = next(
        (arguments.out / f"tpe-{arguments.seeds.split(',')[0]}" / "best" / "variants").glob("*-float32.tflite")
    )
    for path in arguments.beside:
        lost, milliseconds, nbytes = _figures(whole, path, arguments.data)
        gains = []
        for target in fronts.values():
            able = [
                one["test"]["drop"]
                for one in target["front"]
                if one["latency_ms"] <= milliseconds and one["bytes"] <= nbytes
            ]
            gains.append(f"{lost - min(able):+.2f}" if able else "none")
        name = f"{path.parents[1].name}/{path.name}"
        print(f"| {name} | {lost:.2f} | {milliseconds:.3f} | {nbytes:,} | {' | '.join(gains)} |", flush=True)


def _figures(whole: Path, path: Path, data: Path) -> tuple[float, float, int]:
    """Points lost on test data against the unpruned float32 file, estimated milliseconds on rpi4, bytes."""
    import edgeprune

    compared = edgeprune.compare(whole, path, "rpi4", data=str(data))
    if compared["accuracy"] is None:
        raise SystemExit(f"{data} has no labels.")
    (metric,) = compared["accuracy"]["metrics"].values()
    before, after = metric["values"]
    figures = compared["figures"]
    return (before - after) * metric["points"], figures["estimated_ms"]["b"], int(figures["bytes"]["b"])


def _search(arguments: argparse.Namespace, out: Path, sampler: str, seed: str, core: int) -> subprocess.Popen[bytes]:
    """A search in a process of its own, on one processor."""
    out.mkdir(parents=True, exist_ok=True)
    words = [arguments.model, arguments.data, out, arguments.timeout, sampler, seed, arguments.recipe, MOST_LOST]
    command = [sys.executable, "-c", SEARCH, *map(str, words)]
    cores = sorted(os.sched_getaffinity(0))
    with (out / "said.txt").open("a") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    os.sched_setaffinity(process.pid, {cores[core % len(cores)]})
    return process


def _volumes(target: dict) -> list[tuple[float, float]]:
    """After each file of a search: seconds, and the share of the volume that all until then dominate."""
    import moocore

    unpruned = target["reference"]
    seconds, points, curve = 0.0, [], []
    for trial in target["trials"]:
        for rung in trial["rungs"].values():
            seconds += rung["seconds"]
            made = rung["figures"]
            point = [made["drop"] / MOST_LOST, *(made[key] / unpruned[key] for key in ("latency_ms", "bytes"))]
            points.append(np.clip(point, 0, 1))
            curve.append((seconds, float(moocore.hypervolume(np.array(points), ref=[1, 1, 1]))))
    return curve


def _at(curve: list[tuple[float, float]], seconds: float) -> float:
    return max((volume for when, volume in curve if when <= seconds), default=0.0)


def _plot(curves: dict[str, list[list[tuple[float, float]]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for color, (sampler, found) in zip(("tab:blue", "tab:gray"), curves.items(), strict=True):
        for number, curve in enumerate(found):
            minutes, volumes = [when / 60 for when, _ in curve], [volume for _, volume in curve]
            axes.step(minutes, volumes, where="post", color=color, label=None if number else sampler)
    axes.set_xlabel("minutes of trials")
    axes.set_ylabel("dominated share of the volume")
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
