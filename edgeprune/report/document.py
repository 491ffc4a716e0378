"""report.json: everything that a build found out, put together. The schema is in :mod:`edgeprune.report.schema`."""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgeprune import plan as plans
from edgeprune import selection
from edgeprune._tensorflow import WITHOUT_ONEDNN
from edgeprune._version import __version__
from edgeprune.artifact import Artifact, Facts, MetricFacts, OnDeviceFacts
from edgeprune.context import versions
from edgeprune.files import JsonObject, sha256_file
from edgeprune.report.reading import SCHEMA_VERSION

if TYPE_CHECKING:
    from edgeprune.context import BuildContext
    from edgeprune.pipeline import Run
    from edgeprune.plan import Board, Plan, Variant
    from edgeprune.tasks.task import Task

CRASHED = (
    "TensorFlow crashed during this build, which went on without oneDNN's kernels: another build, without the crash, "
    "would give slightly different weights."
)
OPERATOR_KEYS = (
    "index", "name", "output_name", "output_shape", "dtype", "macs", "weight_bytes", "weight_sparsity", "estimated_ms",
    "reads", "on_accelerator",
)  # fmt: skip
PROFILE_KEYS = ("sha256", "bytes", "gzip_bytes", "zstd_bytes", "params", "nonzero_params", "macs")


def assemble(
    plan: Plan,
    run: Run,
    context: BuildContext,
    files: dict[str, str],
    limits: selection.Limits,
    name: str,
    command: str | None,
    pick: str | None = None,
) -> JsonObject:
    """The report of a finished build.

    Args:
        files: path of each variant's .tflite, relative to the run folder.
        limits: the gates.
        name: the model's name.
        pick: the variant that was chosen already; None: the balanced one.
    """
    from edgeprune.data.tables.table import in_words

    data, task = context.required()
    here = limits.on(context.target)
    source = run.artifacts[plan.source].facts
    reference = run.artifacts[plan.variants[0].last].facts["evaluation"]["test"]["value"]
    variants = [_variant(v, run, files[v.name], reference, task) for v in plan.variants]
    variants[0]["baseline"] = True
    own = plan.boards[0].own if plan.boards else [v["name"] for v in variants]
    candidates = [v for v in variants if v["name"] in own]
    picks = selection.choose(candidates, here, task)
    picked = next(v for v in variants if v["name"] == (pick or picks["balanced"]))
    boards = {board.target.name: _on_board(board, plan, run, files, reference, task) for board in plan.boards}
    for variant in variants if boards else ():
        known = {name: there[variant["name"]] for name, there in boards.items() if variant["name"] in there}
        variant["targets"] = {name: _facts_there(entry) for name, entry in known.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "edgeprune_version": __version__,
        "command": command,
        "seed": context.seed,
        "deterministic": context.deterministic,
        "recipe": " + ".join(recipe.name for recipe in context.recipes),
        "model": {
            "name": name,
            "source": str(context.source or "demo"),
            **source["model"],
            **source.get("sizes", {}),
            **_on_host(source),
            **({"imported": source["imported"]} if "imported" in source else {}),
        },
        "target": context.target.model_dump(mode="json"),
        "data": {
            "source": data.source,
            "train": data.train.size,
            "validation": data.validation.size,
            "test": data.test.size,
            **({"table": in_words(data.preprocessing["table"])} if "table" in data.preprocessing else {}),
        },
        "metric": {"name": task.metric, "higher_is_better": task.higher_is_better, "points": task.points},
        "task": task.to_json(),
        "variants": variants,
        "picks": picks,
        "pick": picked["name"],
        "max_drop": dataclasses.asdict(limits.drop),
        "gates": selection.check_gates(picked, here, task, reference),
        **(
            {"targets": [_judged(board, boards[board.target.name], limits, reference, task) for board in plan.boards]}
            if boards
            else {}
        ),
        "stages": [vars(record) for record in run.records],
        "training": [
            {"name": step.name, "epochs": run.artifacts[step.name].facts["training"]}
            for step in plan.steps
            if step.ends_method and "training" in run.artifacts[step.name].facts
        ],
        "pruning": [
            {"name": name, **facts}
            for name in dict.fromkeys(variant.model for variant in plan.variants)
            if (facts := _pruning(run.artifacts[name].facts))
        ],
        "warnings": [
            *(f"{note[:1].upper()}{note[1:]}." for note in data.notes),
            *run.artifacts[plans.BASELINE].facts["baseline"]["warnings"],
            *seen_validation(variants[0], task),
            *_unwatched_drops(variants[0], picked, limits, task),
            *([CRASHED] if WITHOUT_ONEDNN in os.environ else []),
        ],
        "environment": environment(),
    }


def _on_board(
    board: Board, plan: Plan, run: Run, files: dict[str, str], reference: float, task: Task
) -> dict[str, JsonObject]:
    """Every variant as it is on one of several targets, by name."""
    first = board is plan.boards[0]
    there = {}
    for variant in plan.variants:
        if variant.name in board.last:
            moved = dataclasses.replace(
                variant, last=board.last[variant.name], on_device=variant.on_device if first else None
            )
            name = None if first else board.target.name
            there[variant.name] = _variant(moved, run, files[variant.name], reference, task, name)
    there[board.own[0]]["baseline"] = True  # the first is the unpruned float32 file, as this target takes it
    return there


def _facts_there(variant: JsonObject) -> JsonObject:
    """What of a variant depends on the board."""
    warnings = list(dict.fromkeys(variant["warnings"]))
    return {
        "latency": {"estimated": variant["latency"]["estimated"], "unknown": variant["latency"]["unknown"]},
        **{key: variant[key] for key in ("memory", "placement", "delegates", "compiled", "micro")},
        "warnings": warnings,
    }


def _judged(
    board: Board, there: dict[str, JsonObject], limits: selection.Limits, reference: float, task: Task
) -> JsonObject:
    """The picks and the gates of one of several targets."""
    own, limits = [there[name] for name in board.own if name in there], limits.on(board.target)
    picks = selection.choose(own, limits, task)
    picked = there[picks["balanced"]]
    return {
        "name": board.target.name,
        "title": board.target.title,
        "variants": [variant["name"] for variant in own],
        "picks": picks,
        "pick": picked["name"],
        "gates": selection.check_gates(picked, limits, task, reference),
    }


def _pruning(facts: Facts) -> JsonObject:
    """What the report says of the pruning of a model beside its figures."""
    kept = {key: value for key, value in facts.items() if key in ("layers", "sparsify", "lottery")}
    if "filters" not in facts:
        return kept
    chosen = facts["filters"]
    channels = [{key: row[key] for key in ("name", "layers", "original", "gone", "frozen")} for row in chosen["groups"]]
    return {**kept, "criterion": chosen["criterion"], "channels": channels, "allocation": chosen["allocation"]}


def _on_host(facts: Facts) -> JsonObject:
    return {"on_host": facts["front"]} if "front" in facts else {}


def _metrics(test: MetricFacts, task: Task) -> JsonObject:
    """Every metric of a variant, by name."""
    return {
        metric.name: {
            "value": test["metrics"][metric.name],
            "samples": test["samples"],
            "split": test["split"],
            "higher_is_better": metric.higher_is_better,
            "points": metric.points,
        }
        for metric in task.metrics
        if metric.name in test["metrics"]
    }


def seen_validation(baseline: JsonObject, task: Task) -> list[str]:
    """A warning if the unpruned model is better on the validation data than on test data by more than chance explains.

    It has then been trained with them, most likely. Chance: four standard errors of a difference of two fractions, each
    with the variance of a yes or no per sample, which is the most that a mean of values in 0 to 1 can have. Less than
    two points, which is what a pick may lose, are not worth a warning.
    """
    validation, test = baseline["validation"], baseline["metric"]
    if test["split"] != "test" or not (task.higher_is_better and task.points == 100):
        return []
    counts = (validation["samples"], test["samples"])
    mean = (validation["value"] * counts[0] + test["value"] * counts[1]) / sum(counts)
    error = math.sqrt(max(mean * (1 - mean), 0) * sum(1 / count for count in counts))
    if selection.drop_points(task, validation["value"], test["value"]) <= max(400 * error, 2.0):
        return []
    return [
        f"{task.metric} of the unpruned model is {validation['value']:.4g} on validation and {test['value']:.4g} on "
        "test data: most likely, it was trained with the validation samples. What pruning loses there is then more "
        "than it loses on new samples, and the pick too careful. Give samples that the model has not seen: a folder "
        "validation/ beside train/, or the second of three splits that a function returns."
    ]


def _unwatched_drops(baseline: JsonObject, pick: JsonObject, limits: selection.Limits, task: Task) -> list[str]:
    """A warning for every other output whose first metric lost more than the pick's own may."""
    rule = selection.DEFAULT_MAX_DROP if limits.max_drop is None or limits.drop.part is None else limits.drop
    warnings = []
    for output in task.outputs:
        first = next(iter(output.metrics), None)
        if first is None or first in task.watched or output is task.primary:
            continue
        before, after = (variant["validation"]["metrics"][first.name] for variant in (baseline, pick))
        if not rule.allows(first, before, after):
            warnings.append(
                f"{first.name} of the pick went from {before:.4g} to {after:.4g} on validation, more than "
                f"{rule.words(first)}. Picks and gates go by {task.metric}; [task] primary chooses another."
            )
    return warnings


def environment() -> dict[str, str]:
    """What the build ran on."""
    from edgeprune.devices.host import cpu_model
    from edgeprune.runtime.interpreter import find_runtime

    return {**versions(), "runtime": find_runtime().version, "platform": platform.platform(), "cpu": cpu_model()}


def _conversion_warnings(artifact: Artifact) -> list[str]:
    topics: tuple[Literal["conversion", "calibration", "mixed", "prepared", "coded"], ...]
    topics = ("conversion", "calibration", "mixed", "prepared", "coded")
    return [
        warning for topic in topics if topic in artifact.facts for warning in artifact.facts[topic].get("warnings", [])
    ]


def _activation_ranges(artifact: Artifact) -> JsonObject:
    ranges = artifact.facts.get("calibration", {}).get("ranges")
    return {"activation_ranges": ranges} if ranges else {}


def _variant(
    variant: Variant, run: Run, file: str, reference: float, task: Task, board: str | None = None
) -> JsonObject:
    artifact = run.artifacts[variant.last]
    on_device = _on_device(variant, run)
    profile, evaluation = dict(artifact.facts["profile"]), artifact.facts["evaluation"]
    test = evaluation["test"]
    return {
        "name": variant.name,
        "file": file,
        "series": variant.series,
        "rate": variant.rate,
        "control_of": variant.control_of,
        "baseline": False,
        **{key: profile[key] for key in PROFILE_KEYS},
        "metadata_bytes": artifact.facts["conversion"]["metadata_bytes"],
        "weight_sparsity": profile["weight_sparsity"],
        "metric": {key: value for key, value in test.items() if key != "metrics"},
        "metrics": _metrics(test, task),
        "drop_points": task.drop(reference, test["value"]),
        "validation": evaluation["validation"],
        "parity": evaluation["parity"],
        # What the device says comes first: it decides about the limit of latency.
        "latency": {**profile["latency"], "measured": [*on_device.get("measured", []), *artifact.facts["latency"]]},
        "operators": [{key: row[key] for key in OPERATOR_KEYS} for row in profile["operators"]],
        "memory": profile["memory"],
        "placement": profile["placement"],
        "delegates": profile["delegates"],
        "compiled": _compiled(artifact, file, board),
        "micro": _micro(artifact, file, board),
        "kernels": profile["kernels"],
        "sparse_path": profile["sparse_path"],
        **{key: value for key, value in artifact.facts.items() if key in ("mixed", "prepared", "coded")},
        **_activation_ranges(artifact),
        **({"instructions": on_device["instructions"]} if "instructions" in on_device else {}),
        "min_runtime": profile["min_runtime"],
        "warnings": [
            *artifact.facts.get("warnings", []),
            *profile["warnings"],
            *on_device.get("warnings", []),
            *_conversion_warnings(artifact),
        ],
    }


def _on_device(variant: Variant, run: Run) -> OnDeviceFacts:
    """What the device said about a variant: nothing where the build has none, or where it went away before."""
    measured = run.artifacts.get(variant.on_device) if variant.on_device else None
    return measured.facts.get("on_device", {}) if measured else {}


def _micro(artifact: Artifact, file: str, board: str | None) -> JsonObject | None:
    """The file of a variant for a microcontroller."""
    if "micro" not in artifact.files:
        return None
    path = artifact.files["micro"]
    return {
        "file": compiled_file(file, path, board),
        "sha256": sha256_file(path),
        **artifact.facts["micro"],
        "evaluated_by": artifact.facts["evaluation"]["runtime"],
    }


def compiled_file(file: str, compiled: str | Path, board: str | None = None) -> str:
    """What a vendor's compiler made of ``file``, which has the compiler's ending: ``_edgetpu.tflite``.

    Args:
        board: that it was compiled for, where that is not the first target of a build.
    """
    stem, ending = file.removesuffix(".tflite"), Path(compiled).name.rpartition("_")[2]
    return f"{stem}{'' if board is None or stem.endswith(f'@{board}') else f'@{board}'}_{ending}"


def _compiled(artifact: Artifact, file: str, board: str | None) -> JsonObject | None:
    """What the vendor's compiler made of a variant: its file, and its own estimate."""
    if "compiled" not in artifact.files:
        return None
    path, facts = artifact.files["compiled"], artifact.facts["compiled"]
    return {
        "file": compiled_file(file, path, board),
        "sha256": sha256_file(path),
        "bytes": path.stat().st_size,
        "compiler": facts["compiler"],
        "version": facts["version"],
        "performance": facts["performance"],
    }
