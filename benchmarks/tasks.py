"""The models of examples/, as recipes build them: the figures of every file beside those of Keras.

    python benchmarks/tasks.py DATA OUT [--seeds 3] [--only NAME ...] > benchmarks/results/tasks.md

DATA: the folder of the archives that the examples train on. For every seed, each example trains a model, and
``model.evaluate`` of tf_keras measures it on the test split, without edgeprune. The float32 file must have the same
figures. An interrupted benchmark continues where it was: models and builds are folders in OUT.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import platform
import runpy
import shlex
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import builds

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@dataclasses.dataclass(frozen=True)
class Task:
    """An example's script, its archive and arguments, what the build takes as data, the recipes beside `int8`, and the
    one that the script writes, which says how data are read and which all others extend."""

    script: str
    archive: str
    arguments: tuple[str, ...] = ()
    data: str = "data.npz"
    recipes: tuple[str, ...] = ("filters-int8",)
    reading: str | None = None


# Without training and without labels, at so many of the MACs.
BUDGETS = {f"oneshot-{100 - kept}": {"extends": ["oneshot"], "filters": {"max_macs": f"{kept}%"}} for kept in (70, 50)}
PRUNED = ("filters-int8", *BUDGETS)
TABLES = ("tables", "regression_tabular.tar.gz")
TASKS = {
    "keywords": Task("keywords", "audio_fsdd.tar.gz", data="data", recipes=PRUNED, reading="keywords.toml"),
    "sensor windows": Task("sensor_windows", "har_smartphone.tar.gz", recipes=PRUNED),
    "steering": Task("steering", "regression_steering.tar.gz", data="data.py:load"),
    "california housing": Task(*TABLES, ("--table", "california_housing"), recipes=("filters-int8", "mixed")),
    "air quality": Task(*TABLES, ("--table", "air_quality"), recipes=("filters-int8", "mixed")),
    "air quality, as CSV": Task(
        *TABLES, ("--table", "air_quality", "--csv"), data="data", recipes=PRUNED, reading="recipe.toml"
    ),
}
# Of one seed: figures by metric, of Keras and of each variant; and the variants.
Run = tuple[dict[str, dict[str, float]], dict[str, dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=TASKS, default=list(TASKS))
    options = parser.parse_args()
    # All before TensorFlow is imported here, which leaves settings behind that other processes would inherit.
    for name, seed in itertools.product(options.only, range(options.seeds)):
        folder = _folder(name, options, seed)
        if not (folder / "model.keras").exists():
            command = _training(TASKS[name], options.data.absolute(), folder.absolute(), seed)
            subprocess.run([sys.executable, *command], cwd=EXAMPLES.parent, check=True, stdout=sys.stderr)
    print("# Tasks\n")
    print(f"`{shlex.join(['python', *sys.argv])}` on {platform.system()}, {os.cpu_count()} cores.\n")
    print("All figures are those on the test split, `Keras` by `model.evaluate`. Each seed has a model of its own.")
    print("Why int8 ruins tables, and what to do about it: [examples](../../examples/README.md).")
    for name, document in BUDGETS.items():
        print(
            f'`{name}` is `extends = ["oneshot"]` with `max_macs = "{document["filters"]["max_macs"]}"` in `[filters]`.'
        )
    for name in options.only:
        task = TASKS[name]
        print(f"\n## {name[0].upper()}{name[1:]}\n\n```sh\npython {' '.join(_training(task, Path(), 'RUN', 'SEED'))}")
        for recipe in ("int8", *task.recipes):
            print(f"edgeprune build RUN/model.keras --data RUN/{task.data} --target rpi4 --recipe {recipe} --seed SEED")
        if task.reading:
            print(f"# each with what else is in RUN/{task.reading}")
        print("```\n", flush=True)
        _print([_run(name, options, seed) for seed in range(options.seeds)])


def _training(task: Task, data: Path, out: str | Path, seed: str | int) -> list[str]:
    script = Path("examples", task.script, "train.py")
    given = ["--data", data / task.archive, "--out", out, "--seed", seed, *task.arguments]
    return [str(part) for part in (script, *given)]


def _folder(name: str, options: argparse.Namespace, seed: int) -> Path:
    return options.out / builds.slug(name) / str(seed)


def _run(name: str, options: argparse.Namespace, seed: int) -> Run:
    task, folder = TASKS[name], _folder(name, options, seed)
    model = folder / "model.keras"
    reading = tomllib.loads((folder / task.reading).read_text("utf-8")) if task.reading else {}
    variants = {}
    for recipe in ("int8", *task.recipes):
        data = str(folder / task.data)
        document = {**reading, **BUDGETS.get(recipe, {"extends": [recipe]})}
        report = builds.build(model, data, document, recipe, folder, seed, first="int8")
        for variant in report["variants"]:
            own = variant["name"].replace("filters", recipe) if recipe in BUDGETS else variant["name"]
            variants[own] = variant
    names = variants["float32"]["metrics"]
    keras = _evaluate(task, model)
    figures = {"Keras": {metric: keras[metric.replace(".", "_")] for metric in names}}
    figures |= {file: {metric: v["metrics"][metric]["value"] for metric in names} for file, v in variants.items()}
    return figures, variants


def _evaluate(task: Task, model: Path) -> dict[str, float]:
    import numpy as np
    import tf_keras

    folder = model.parent
    if task.script == "keywords":
        x, y = runpy.run_path(str(EXAMPLES / "keywords" / "train.py"))["read"](folder / "data" / "test")
    elif task.reading:
        columns = {name: np.loadtxt(folder / "data" / f"{name}.csv", np.float32, delimiter=",", skiprows=1)
                   for name in ("train", "test")}  # fmt: skip
        mean, std = columns["train"][:, :-1].mean(0), columns["train"][:, :-1].std(0)
        x, y = (columns["test"][:, :-1] - mean) / std, columns["test"][:, -1:]
    elif (folder / "data.py").exists():
        x, y = runpy.run_path(str(folder / "data.py"))["load"]()["test"]
    else:
        arrays = np.load(folder / "data.npz")
        x, y = arrays["x_test"], arrays["y_test"]
    return tf_keras.models.load_model(model).evaluate(x, y, verbose=0, return_dict=True)


def _print(runs: list[Run]) -> None:
    """A table of figures by metric and seed, and one of sizes."""
    files = list(runs[0][1])
    columns = ["Keras", "float32", "difference", *files[1:]]
    print(f"| metric | seed | {' | '.join(columns)} |\n{'|---' * (2 + len(columns))}|")
    for metric, facts in runs[0][1]["float32"]["metrics"].items():
        by_file = {file: [figures[file][metric] for figures, _ in runs] for file in ("Keras", *files)}
        by_file["difference"] = [abs(a - b) for a, b in zip(by_file["Keras"], by_file["float32"], strict=True)]
        worst = min if facts["higher_is_better"] else max
        rows = {str(seed): {file: values[seed] for file, values in by_file.items()} for seed in range(len(runs))}
        rows["mean"] = {file: statistics.mean(values) for file, values in by_file.items()}
        rows["worst"] = {file: (max if file == "difference" else worst)(values) for file, values in by_file.items()}
        for label, row in rows.items():
            cells = (f"{row[c]:.0e}" if c == "difference" else _figure(row[c], facts["points"]) for c in columns)
            print(f"| {metric} | {label} | {' | '.join(cells)} |")
    print("\n| file, mean over the seeds | bytes | after gzip | MACs |\n|---|---|---|---|")
    for file in files:
        of_file = [variants[file] for _, variants in runs]
        sizes = (statistics.mean(variant[key] for variant in of_file) for key in ("bytes", "gzip_bytes", "macs"))
        print(f"| {file} | {' | '.join(f'{round(size):,}' for size in sizes)} |", flush=True)


def _figure(value: float, points: float) -> str:
    return f"{value:.2%}" if points == 100 else f"{value:.4f}"


if __name__ == "__main__":
    main()
