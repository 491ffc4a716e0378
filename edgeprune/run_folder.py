"""What a build leaves where its user finds it: files, the report and its pages, pictures, scripts, the manifest."""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import itertools
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgeprune import plan as planning
from edgeprune import stages
from edgeprune.context import BuildContext
from edgeprune.errors import EdgepruneError, MissingError, UsageError
from edgeprune.files import JsonObject, copy_file, output_errors, sha256_file, write_bytes, write_json
from edgeprune.pipeline import Run
from edgeprune.selection import Limits
from edgeprune.target import Target

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tf_keras

    from edgeprune.report.regression import Earlier
    from edgeprune.tasks.task import Task

DEMO = "demo"
KERAS3_SUFFIX = ".keras3.keras"
# What lies directly in a run folder, and is written, replaced or removed there by each command on a model NAME.
Command = Literal["build", "search", "sensitivity"]
_PLACES: Mapping[Command, tuple[str, ...]] = {
    "build": (
        "stages", "variants", "models", "samples", "micro", "micro-*", "recipe.toml", "recipe-*.toml", "labels.txt",
        "report.*", "summary.md", "manifest.json", "*.tflite.gz", "*-text.json", "*-text.keras", "*-table.json",
        "NAME.tflite", "NAME-*.tflite",
    ),
    "search": ("stages", "best", "search.json", "search.journal", "trials.csv", "report.html"),
    "sensitivity": ("points.jsonl", "sensitivity.*", "recipe.toml"),
}  # fmt: skip
# Of a folder of data: what says that only folders of certain names are read, and their names.
_LAYOUTS = ("train", "images", "train.csv", "train.parquet")
_READ = ("train", "val", "valid", "validation", "test", "images", "masks", "labels", "annotations")


@dataclasses.dataclass(frozen=True)
class Extras:
    """What a build does besides: see :func:`build`."""

    export_keras3: bool = False
    compress: bool = False
    junit: Path | None = None
    earlier: Earlier | None = None


def check_folder(folder: Path, name: str, inputs: Mapping[str, object], command: Command = "build") -> None:
    """Make sure that nothing but what edgeprune made gets lost in a run folder. Before anything is written.

    Args:
        name: what files of the model are called.
        inputs: what it is and what the user gave: a file or folder, or anything else, which has no place.
        command: which one will write there.

    Raises:
        UsageError: the folder is not from an earlier run, and has files where a run replaces them; or what the run is
            to read lies at such a place; or what a run writes would be read as data.
    """
    _check_outside(folder, inputs.get("data"))
    names = [pattern.replace("NAME", glob.escape(name)) for pattern in _PLACES[command]]
    made = is_run_folder(folder)
    fix = "choose another folder with --out, such as one that is not there yet."
    for what, given in inputs.items():
        place = _place_in(folder, given)
        if place is None or not any(fnmatch.fnmatchcase(place, pattern) for pattern in names):
            continue
        if made and what == "recipe":  # an earlier run wrote it there, and this one writes it again
            continue
        raise UsageError(
            f"The {what} {given} lies in the run folder {folder}, where {place} is replaced.",
            expected="a run folder that holds nothing but what runs write.",
            fix=fix,
        )
    if made or not folder.is_dir():
        return
    there = sorted({path.name for pattern in names for path in folder.glob(pattern)})
    if there:
        more = f" and {len(there) - 5} more" if len(there) > 5 else ""
        raise UsageError(
            f"The folder {folder} is not from an earlier {command}, and holds what this one "
            f"would replace or remove: {', '.join(there[:5])}{more}.",
            expected="a folder that is new, or has none of these.",
            fix=fix,
        )


def _check_outside(folder: Path, data: object) -> None:
    """Refuse a run folder among folders that are read as classes: its pictures would be samples of the next run."""
    if not isinstance(data, str | Path) or not Path(data).is_dir():
        return
    root = Path(data).resolve()
    if not folder.resolve().is_relative_to(root):
        return
    inner = folder.resolve().relative_to(root).parts
    is_laid_out = any((root / name).exists() for name in _LAYOUTS)
    if any(part.startswith(".") for part in inner) or (is_laid_out and inner and inner[0] not in _READ):
        return
    raise UsageError(
        f"The run folder {folder} lies in the folder of the data, {data}: what is written there would be read as data.",
        expected="a run folder outside of it.",
        fix="choose another folder with --out.",
    )


def is_run_folder(folder: Path) -> bool:
    """Whether edgeprune has written there."""
    journals = any((folder / name).is_file() for name in ("search.journal", "points.jsonl"))
    return journals or any(folder.glob("stages/*/key.json")) or any(map(_is_ours, folder.glob("*.json")))


def _is_ours(document: Path) -> bool:
    """Whether a JSON file is a report of edgeprune, which may be all that is kept of a run."""
    if document.name not in ("report.json", "search.json", "sensitivity.json"):
        return False
    try:
        return "edgeprune_version" in json.loads(document.read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _place_in(folder: Path, given: object) -> str | None:
    """The name directly in a folder under which a file lies there; None: it does not, or is no file."""
    if not isinstance(given, str | Path):
        return None
    try:
        inner = Path(given).resolve().relative_to(folder.resolve())
        return inner.parts[0] if inner.parts and Path(given).exists() else None
    except (OSError, ValueError):
        return None


def write_run(
    context: BuildContext,
    run: Run,
    plan: planning.Plan,
    folder: Path,
    limits: Limits,
    command: str | None,
    extras: Extras = Extras(),
    pick: str | None = None,
) -> JsonObject:
    """Fill the run folder with what the steps of a plan made; returns the report.

    Args:
        pick: the variant that was chosen already; None: the balanced one.

    Raises:
        EdgepruneError: as :func:`build`, once everything else is written.
    """
    from edgeprune.report import write_views
    from edgeprune.report.document import assemble
    from edgeprune.report.junit import write_junit

    missing = _missing(plan, run)
    plan = plan.without(run.failed)
    name = name_of(context.source)
    files = _export(plan, run, context, folder, name)
    broken: EdgepruneError | None = _measure_on_device(plan, run, context)
    broken = broken or next(iter(missing.values()), None)
    report = assemble(plan, run, context, files, limits, name, command, pick)
    report["missing"] = [{"name": n, "what": error.what, "fix": error.fix} for n, error in missing.items()]
    _compare_answers(context, run, plan, report, folder)
    if extras.earlier:
        report["regression"] = extras.earlier.compare(report)
    _write_picks(context, run, plan, report, folder, name)
    if extras.compress:
        _compress(folder)
    with output_errors(folder):
        write_json(folder / "report.json", report)
        write_views(report, folder)
    if extras.junit:
        write_junit(report, extras.junit)
    if extras.export_keras3:
        broken = broken or _export_keras3(folder, context)
    _write_manifest(context, run, plan, folder, command)
    if broken:
        broken.add_note(f"The report in {folder} has everything else.")
        raise broken
    return report


def _missing(plan: planning.Plan, run: Run) -> dict[str, EdgepruneError]:
    """Variants that could not be made → why; of several targets, with those on which there is no such file."""
    missing = {variant.name: error for variant in plan.variants if (error := run.failed.get(variant.last))}
    for board in plan.boards[1:]:
        for name, step in board.last.items():
            if name not in missing and (error := run.failed.get(step)):
                missing[f"{name} on {board.target.name}"] = error
    return missing


def _measure_on_device(plan: planning.Plan, run: Run, context: BuildContext) -> MissingError | None:
    """Measure the variants on the build's device; returns what ended it before the last one.

    The report is written all the same: hours of training are not lost to an error about their last figure.
    """
    try:
        run.execute(plan.on_device, context)
    except MissingError as error:
        return error
    return None


def name_of(source: Path | tf_keras.Model | keras.Model | None) -> str:
    """What files are named after: the model's file, or the name of an object, which may hold anything."""
    if source is None:
        return DEMO
    if isinstance(source, Path):
        return source.stem
    return re.sub(r"[^\w.-]+", "_", source.name).strip("._") or "model"


def _export(plan: planning.Plan, run: Run, context: BuildContext, folder: Path, name: str) -> dict[str, str]:
    """Copy what the stages made to where the user finds it; returns the path of each variant's file."""
    from edgeprune.report.document import compiled_file

    files = {}
    wanted = set()
    for variant in plan.variants:
        files[variant.name] = f"variants/{name}-{variant.name}.tflite"
        copy_file(run.artifacts[variant.last].files["tflite"], folder / files[variant.name])
        model = folder / "models" / f"{name}-{variant.model}.keras"
        copy_file(run.artifacts[variant.model].files["model"], model)
        wanted |= {folder / files[variant.name], model}
        lasts = {None: variant.last} | {board.target.name: board.last.get(variant.name) for board in plan.boards[1:]}
        for (board, last), role in itertools.product(lasts.items(), ("compiled", "micro")):
            if last and (made := run.artifacts[last].files.get(role)):
                exported = folder / compiled_file(files[variant.name], made, board)
                copy_file(made, exported)
                wanted.add(exported)
    # What an earlier build left in places that belong to builds would be taken for results of this one.
    ours = ("variants/*.tflite*", "models/*.keras", "*.tflite.gz", "*-text.json", "*-text.keras", "*-table.json")
    picks = {path for path in folder.glob("*.tflite") if path.name.startswith(f"{name}-")}  # for further targets
    for stale in ({path for pattern in ours for path in folder.glob(pattern)} | picks | _earlier(folder)) - wanted:
        stale.unlink(missing_ok=True)
    data, _ = context.required()
    if data.class_names:
        write_bytes(folder / "labels.txt", ("\n".join(data.class_names) + "\n").encode())
    for stale in folder.glob("recipe*.toml"):
        stale.unlink()
    for stale in (folder / "micro", *folder.glob("micro-*")):
        shutil.rmtree(stale, ignore_errors=True)
    for recipe in context.recipes:
        own = "recipe.toml" if len(context.recipes) == 1 else f"recipe-{recipe.name}.toml"
        write_bytes(folder / own, recipe.to_toml().encode())
    return files


def _earlier(folder: Path) -> set[Path]:
    """What an earlier build left under its model's name, which may be another, or beside the pick."""
    from edgeprune.snippets import snippet_paths

    try:
        name = json.loads((folder / "report.json").read_text("utf-8"))["model"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()  # there was none
    files = folder.glob("*.tflite")
    picks = {path for path in files if path.stem == name or path.name.startswith((f"{name}-", f"{name}_"))}
    return {*picks, *snippet_paths(folder / f"{name}.tflite"), folder / "labels.txt"}


def _export_keras3(folder: Path, context: BuildContext) -> EdgepruneError | None:
    """Every model in ``models/`` once more, for Keras 3; returns what ended it before the last."""
    from edgeprune.models.export import export_keras3
    from edgeprune.models.load import reload_model

    for path in sorted(folder.glob("models/*.keras")):
        context.progress.note(f"exporting {path.name} for Keras 3")
        try:
            export_keras3(reload_model(path, trust=context.trust.given), path.with_suffix(KERAS3_SUFFIX))
        except EdgepruneError as error:
            return error
    return None


def _write_picks(
    context: BuildContext, run: Run, plan: planning.Plan, report: JsonObject, folder: Path, name: str
) -> None:
    """The pick under the model's own name, and those for further targets with the target's behind it."""
    _write_pick(context, run, plan, report, folder, name, context.target, report["pick"])
    for board, entry in zip(plan.boards[1:], report.get("targets", ())[1:], strict=True):
        own = f"{name}-{board.target.name}"
        _write_pick(context, run, plan, report, folder, own, board.target, entry["pick"])


def _write_pick(
    context: BuildContext,
    run: Run,
    plan: planning.Plan,
    report: JsonObject,
    folder: Path,
    name: str,
    target: Target,
    chosen: str,
) -> None:
    """The pick for a target as ``name``, and beside it code that runs it."""
    from edgeprune.report.document import compiled_file
    from edgeprune.snippets import write_snippets
    from edgeprune.snippets.micro import write_sources
    from edgeprune.tasks.detection import DetectionTask

    data, task = context.required()
    pick = next(variant for variant in report["variants"] if variant["name"] == chosen)
    copy_file(folder / pick["file"], folder / f"{name}.tflite")
    facts = pick["targets"][target.name] if pick.get("targets") else pick
    if compiled := facts["compiled"]:
        copy_file(folder / compiled["file"], folder / compiled_file(f"{name}.tflite", compiled["file"]))
    variant = next(variant for variant in plan.variants if variant.name == chosen)
    artifact = run.artifacts[variant.model]
    model = context.read(artifact)  # training may have renamed outputs
    names = model.input_names, model.output_names
    head = task.head if isinstance(task, DetectionTask) else None
    classes = data.class_names if task.row_classes or head else None
    front = artifact.files.get(stages.FRONT)
    mask = _mask_facts(data.class_names, task)
    if made := facts["micro"]:
        last = next((board.last[chosen] for board in plan.boards if board.target == target), variant.last)
        sources = folder / ("micro" if target == context.target else f"micro-{target.name}")
        measured = run.artifacts[last].facts["micro"]
        write_sources(sources, name, folder / made["file"], measured, None if head else classes)
    write_snippets(folder / f"{name}.tflite", target, data.preprocessing, *names, classes, front, mask, head)


def _mask_facts(class_names: Sequence[str] | None, task: Task) -> JsonObject | None:
    """What a script needs to write masks; nothing for a model without classes of pixels, or with over 256."""
    output, classes = task.outputs[0], task.outputs[0].classes or 0
    if len(task.outputs) > 1 or output.kind != "segmentation" or classes > 256:
        return None
    names = list(class_names or [f"class {number}" for number in range(classes)])
    return {"names": names, "threshold": 0.0 if output.is_logits else 0.5}


def _compare_answers(context: BuildContext, run: Run, plan: planning.Plan, report: JsonObject, folder: Path) -> None:
    """Where the pick answers otherwise than the baseline, with pictures of the samples."""
    import numpy as np

    from edgeprune.data.sound.folder import SoundStore
    from edgeprune.evaluate.answers import Answers, masks_of
    from edgeprune.report.outcomes import describe_samples, outcomes, positions
    from edgeprune.tasks.detection import DetectionTask

    shutil.rmtree(folder / "samples", ignore_errors=True)  # of an earlier build
    data, task = context.required()
    last = {variant.name: variant.last for variant in plan.variants}
    entries = {variant["name"]: variant for variant in report["variants"]}
    names = next(name for name in entries if entries[name]["baseline"]), report["pick"]
    baseline, pick = (Answers.load(run.artifacts[last[name]].files["answers"]) for name in names)
    found = outcomes(baseline, baseline if names[0] == names[1] else pick, data.class_names, task.primary.name)
    entries[names[0]]["outcomes"] = found["baseline"]
    entries[names[1]]["outcomes"] = found["pick"]
    report["flipped"], report["class_names"] = found["flipped"], found["class_names"]
    if found["flipped"] and found["flipped"]["samples"]:
        indices = positions(found["flipped"])
        x, y, *_ = next(iter(task.judged(data.test).batches(len(indices), indices=indices)))
        inputs = [np.asarray(part) for part in (x if isinstance(x, tuple) else [x])]
        masks: dict[str, np.ndarray] = {}
        boxes: dict[str, list[np.ndarray]] = {}
        if isinstance(task, DetectionTask) or (found["flipped"]["kind"] == "segmentation" and len(task.outputs) == 1):
            answers = _answers_of(context, run, plan, names, inputs)
            if isinstance(task, DetectionTask):
                boxes = {"labels": task.labelled(y), **{name: task.boxes(outputs) for name, outputs in answers.items()}}
                found["flipped"]["boxes"] = list(boxes)
            else:
                output, truth = task.outputs[0], np.asarray(y)
                masks = {"labels": masks_of(output, truth, None)}
                masks |= {name: masks_of(output, truth, outputs[0]) for name, outputs in answers.items()}
                found["flipped"]["masks"] = list(masks)
        spectrograms = None
        if isinstance(data.test.store, SoundStore):
            spectrograms = np.array([data.test.store.spectrogram(int(i)) for i in data.test.index[indices]])
            found["flipped"]["spectrograms"] = data.test.store.heard
        describe_samples(found["flipped"], inputs, folder, list(masks.values()), list(boxes.values()), spectrograms)


def _answers_of(
    context: BuildContext, run: Run, plan: planning.Plan, names: tuple[str, str], inputs: list[np.ndarray]
) -> dict[str, list[np.ndarray]]:
    """The outputs for some samples: of the baseline, of the pick's model in float where that is another one, of the
    pick."""
    import numpy as np
    import tensorflow as tf

    from edgeprune.runtime.interpreter import find_runtime
    from edgeprune.runtime.session import Session

    variants = {variant.name: variant for variant in plan.variants}
    base, pick = (variants[name] for name in names)
    model = context.read(run.artifacts[pick.model])

    def of_file(variant: planning.Variant) -> list[np.ndarray]:
        own = context.read(run.artifacts[variant.model])
        made = run.artifacts[variant.last]
        runtime = find_runtime("tensorflow" if made.facts["conversion"]["select_operators"] else None)
        session = Session(made.files["tflite"], own.input_names, own.output_names, runtime=runtime)
        try:
            return session.run(inputs)
        finally:
            session.close()

    answers = {base.name: of_file(base)}
    if base.model != pick.model:
        made = model(inputs[0] if len(inputs) == 1 else inputs, training=False)
        answers[f"{pick.model} in float"] = [np.asarray(output) for output in tf.nest.flatten(made)]
    answers[pick.name] = of_file(pick)
    return answers


def _compress(folder: Path) -> None:
    """Every .tflite once more, as gzip makes it at level 9, with no time stamp."""
    import gzip

    for path in [*folder.glob("*.tflite"), *folder.glob("variants/*.tflite")]:
        write_bytes(path.with_name(path.name + ".gz"), gzip.compress(path.read_bytes(), compresslevel=9, mtime=0))


def _write_manifest(context: BuildContext, run: Run, plan: planning.Plan, folder: Path, command: str | None) -> None:
    from edgeprune.report.document import environment

    data, _ = context.required()
    skipped = {"manifest.json", ".lock"}
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in skipped and path.relative_to(folder).parts[0] != "stages"
    ]
    promise = (
        "the same command on the same machine gives the same .tflite and .keras files, byte for byte"
        if context.deterministic
        else "not promised: built without --deterministic"
    )
    write_json(
        folder / "manifest.json",
        {
            "command": command or " ".join(sys.argv),
            "seed": context.seed,
            "deterministic": context.deterministic,
            "reproducibility": promise,
            "inputs": dict(context.inputs),
            **({"targets": [b.target.model_dump(mode="json") for b in plan.boards]} if plan.boards else {}),
            "preprocessing": data.preprocessing,
            "calibration": {
                variant.name: run.artifacts[variant.last].facts["calibration"]["indices"]
                for variant in plan.variants
                if "calibration" in run.artifacts[variant.last].facts
            },
            "environment": environment(),
            "files": {
                str(path.relative_to(folder)): {"sha256": sha256_file(path), "bytes": path.stat().st_size}
                for path in files
            },
        },
    )
