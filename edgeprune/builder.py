"""One build: a model, data, a recipe and a target in; .tflite files and a report about them out."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from edgeprune import plan as planning
from edgeprune import stages
from edgeprune._tensorflow import import_tf
from edgeprune.context import BuildContext, Trust
from edgeprune.convert.converter import CONVERTER
from edgeprune.devices.variants import Connection, OnDevice
from edgeprune.errors import OutputError, RecipeError, UsageError
from edgeprune.files import JsonObject, locked, output_errors, require_writable
from edgeprune.hardware.compilers import compiler_version
from edgeprune.models.formats import is_tflite_file
from edgeprune.pipeline import Run
from edgeprune.plan_targets import plan_for
from edgeprune.progress import Progress
from edgeprune.recipe.config import Recipe, TaskConfig
from edgeprune.recipe.load import Recipes, resolve_recipes
from edgeprune.run_folder import DEMO, Extras, check_folder, name_of, write_run
from edgeprune.selection import Limits, MaxDrop
from edgeprune.target import OneOrMore, Target, load_targets
from edgeprune.train.machines import together

if TYPE_CHECKING:
    import keras
    import tf_keras

    from edgeprune.data.source import DataSource
    from edgeprune.models.sizes import InputShapes
    from edgeprune.report.regression import Baseline, Earlier
    from edgeprune.report.schema import Report
    from edgeprune.tasks.task import Task

    Source: TypeAlias = Path | tf_keras.Model | keras.Model | None  # a model as a build keeps it; None: the demo


def build(
    model: str | Path | tf_keras.Model | keras.Model | None = None,
    *,
    target: OneOrMore = "rpi4",
    data: DataSource | None = None,
    recipe: Recipes = None,
    out: str | Path | None = None,
    limits: Limits | None = None,
    baseline: str | Path | Baseline | None = None,
    seed: int = 0,
    deterministic: bool = False,
    fresh: bool = False,
    trust_model: bool = False,
    custom_objects: str | Path | None = None,
    export_keras3: bool = False,
    verify: bool | None = None,
    compress: bool = False,
    junit: str | Path | None = None,
    device: str | OnDevice | None = None,
    input_shape: InputShapes | None = None,
    progress: Progress | None = None,
    command: str | None = None,
) -> Report:
    """Build every variant that a recipe asks for, measure each, and write the run folder.

    Args:
        model: a model file or folder or a model object of tf_keras or Keras 3, as
            :func:`edgeprune.models.load.load_model` takes it; None for the demo.
        target: the board: its name, its TOML file, or a :class:`~edgeprune.target.Target`; or several, which share
            every stage that does not depend on one; "all": those that come with edgeprune. Where the report speaks of
            one target, and has no column for each, it is the first.
        data: the samples, each of the shape of the model's input without the batch: a folder of class folders, an .npz,
            ``module:function``, a function, arrays, a dataset, or "demo"; see
            :func:`edgeprune.data.load.load_data`. None: the demo's, for the demo only.
        recipe: name, TOML file or object, or several of them; None: ``edgeprune.toml`` in the working folder, else
            ``magnitude-int8`` and ``filters30-int8``.
        out: the run folder; None: ``runs/MODEL-TARGET``.
        limits: the gates, for each target, in points, bytes and milliseconds; one that is not met raises nothing: see
            ``report.gates``. Those of flash and RAM are the board's where nothing else is said.
        baseline: an earlier report.json or its run folder; what got worse is in ``report.regression``, and raises
            nothing either: ``report.passed`` says whether gates and comparison were passed.
        seed: every random choice derives from it.
        deterministic: same seed, same machine, same bytes; slower.
        fresh: forget what an earlier run finished.
        trust_model: run code that the model file brings along.
        custom_objects: a Python file that defines layer classes of the model; needs ``trust_model``.
        export_keras3: write every model in ``models/`` as a Keras 3 file, too, verified equal.
        verify: compare models whose filters were removed with the masked original; None: as the recipe says.
        compress: write every .tflite once more as .tflite.gz.
        junit: an XML file for CI to write: a test case per variant, gate, and figure compared with ``baseline``.
        device: where every variant for the first target is measured, too: ``host``, ``ssh://…``, ``adb://…`` or
            ``emulator``.
        input_shape: sizes for inputs of open size, as :func:`edgeprune.models.load.load_model` takes them; None: those
            of the data, or ``[data] size``.
        progress: hears what is going on.
        command: how the build was started, for the report.

    Returns:
        The report, as in report.json: ``report.variants[0].metric.value`` or ``report["variants"][0]``. The .tflite
        files are at ``out / variant.file``.

    Raises:
        UsageError: a model without data, an earlier report that cannot be compared with, or options that do not go
            together.
        RecipeError, TargetError, ModelError, DataError: what was given cannot be read, or does not fit.
        ConversionError: a variant cannot be made; the report of the others has been written, unless it is the one that
            all are compared with.
        VerificationError: a promise was not kept: a pruned model does not equal its oracle, or zeros were lost.
        MissingError: a tool, a device or a runtime is missing. Where the device went away while the variants were
            measured, or a model cannot be exported, the report has been written all the same.
        OutputError: the run folder cannot be written to.
    """
    targets = load_targets(target)
    resolved = _with_verify(resolve_recipes(recipe), verify)
    limits = limits or Limits()
    limits.check(targets)
    for one, board in itertools.product(resolved, targets):
        planning.file_limits(one, board)  # what cannot be limited is refused before anything is trained
    for board in targets:
        compiler_version(board)  # and a compiler that is missing is said
    source = _source(model)
    data = source_of_data(model, data)
    earlier = read_baseline(baseline, resolved)
    if junit:
        _check_junit(Path(junit))
    where = OnDevice(device) if isinstance(device, str) else device
    if where:
        where.check()
    folder = Path(out) if out else default_folder(model, targets)
    given = {"model": model, "data": data, "file of layer classes": custom_objects}
    for asked in recipe if isinstance(recipe, list | tuple) else [recipe]:
        check_folder(folder, name_of(source), {**given, "recipe": asked})
    import_tf()
    CONVERTER.start()
    strategies = [recipe.finetune.strategy for recipe in resolved]
    heard = progress or Progress()
    with locked(folder), together(strategies, heard):
        if fresh:
            shutil.rmtree(folder / "stages", ignore_errors=True)
        trust = Trust.of(trust_model, custom_objects)
        first, *others = targets
        context = build_context(source, resolved, first, seed, deterministic, trust, heard, where, others)
        extras = Extras(export_keras3, compress, Path(junit) if junit else None, earlier)
        with context.connection or contextlib.nullcontext():
            report = _build(context, targets, data, folder, limits, command, extras, input_shape)
    from edgeprune.report.schema import parse

    return parse(report)


def source_of_data(model: object, data: DataSource | None) -> DataSource:
    """The data of a run: what was given, or the demo's.

    Raises:
        UsageError: a model without data, or data without a model, which the demo's would silently take the place of.
    """
    if model is not None and data is None:
        raise UsageError(
            "No data was given.",
            expected="--data with images in class folders, an .npz, or a function: every artifact is measured on it.",
        )
    if model is None and not (data is None or (isinstance(data, str) and data == DEMO)):
        raise UsageError(
            f"Data were given{f' ({data})' if isinstance(data, str | Path) else ''}, and no model to go with them.",
            expected="a model; without one, the demo is built, which has data of its own.",
            fix="name the model, or leave out --data for the demo.",
        )
    return DEMO if model is None or data is None else data


def _check_junit(path: Path) -> None:
    """Make sure that the XML file can be written in the end, before anything is trained.

    Raises:
        OutputError: it cannot.
    """
    try:
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        require_writable(path)
    except OutputError as error:
        raise OutputError(error.what, fix="name another file with --junit.") from error


def read_baseline(baseline: str | Path | Baseline | None, recipes: Sequence[Recipe]) -> Earlier | None:
    """The earlier report, with the tolerances of the recipes.

    Raises:
        UsageError: it cannot be read.
    """
    if baseline is None:
        return None
    from edgeprune.report.regression import Baseline

    given = Baseline(baseline) if isinstance(baseline, str | Path) else baseline
    return given.read(recipes[0].regression)


def default_folder(model: str | Path | tf_keras.Model | keras.Model | None, target: OneOrMore) -> Path:
    """Where a build goes if nobody says."""
    return Path("runs") / f"{source_name(model)}-{'+'.join(one.name for one in load_targets(target))}"


def source_name(model: str | Path | tf_keras.Model | keras.Model | None) -> str:
    """What the files of a model are named after."""
    return name_of(_source(model))


def _with_verify(recipes: tuple[Recipe, ...], verify: bool | None) -> tuple[Recipe, ...]:
    if verify is None:
        return recipes
    if not any(recipe.filters for recipe in recipes):
        raise UsageError(
            "--verify and --no-verify are about removed filters, and the recipe removes none.",
            expected="a recipe with [filters].",
            fix="leave the option out.",
        )
    return tuple(
        recipe.model_copy(update={"filters": recipe.filters and recipe.filters.model_copy(update={"verify": verify})})
        for recipe in recipes
    )


def _build(
    context: BuildContext,
    targets: Sequence[Target],
    data: DataSource,
    folder: Path,
    limits: Limits,
    command: str | None,
    extras: Extras,
    input_shape: InputShapes | None,
) -> JsonObject:
    from edgeprune.data import data_errors

    run = Run(folder / "stages")
    context, source = open_source(context, run, data, limits, input_shape)
    if extras.earlier:
        extras.earlier.require_comparable(context.target.name, context.required()[1])
    on_device = context.connection is not None
    plan = plan_for(context.recipes, targets, on_device=on_device, source=source)
    with data_errors():
        run.execute(plan.steps, context)
    return write_run(context, run, plan, folder, limits, command, extras)


def open_source(
    context: BuildContext, run: Run, data: DataSource, limits: Limits, input_shape: InputShapes | None
) -> tuple[BuildContext, str]:
    """Open the model and the data; returns the context with both, and the name of the step that plans start from.

    Raises:
        EdgepruneError: as :func:`build`.
    """
    from edgeprune.data import data_errors

    if isinstance(context.source, Path) and is_tflite_file(context.source):  # read at these sizes; others stay open
        context = dataclasses.replace(context, inputs={**context.inputs, "asked_shape": input_shape})
    run.execute([planning.source_step(context.source is None)], context)
    with data_errors():
        return _with_data(context, run, data, limits, input_shape)


def _source(model: str | Path | tf_keras.Model | keras.Model | None) -> Source:
    return Path(model) if isinstance(model, str | Path) else model


def build_context(
    source: Source,
    recipes: tuple[Recipe, ...],
    target: Target,
    seed: int,
    deterministic: bool,
    trust: Trust,
    progress: Progress,
    where: OnDevice | None = None,
    others: Sequence[Target] = (),
) -> BuildContext:
    """The surroundings of a build before its data are opened; seeds Python, NumPy and TensorFlow.

    Args:
        others: further targets of the build.
    """
    from edgeprune.convert.weight_only import quantizer_version
    from edgeprune.models.hash import model_hash
    from edgeprune.runtime.interpreter import find_runtime
    from edgeprune.train.determinism import start

    start(seed, deterministic)
    boards = {board.name: _board_inputs(board) for board in (target, *others)}
    inputs = {
        "model": None if source is None else model_hash(source),
        "seed": seed,
        "deterministic": deterministic,
        "trust": trust.fingerprint,
        "runtime": find_runtime().version,
        **boards[target.name],
        "quantizer": quantizer_version(),
        "device": where.key() if where else None,
        "asked_shape": None,
        "input_shape": None,  # once the data is known, of a model that leaves it open
        "task": recipes[0].task.model_dump(mode="json"),  # with the user's code once the data is known
    }
    connection = Connection(where) if where else None
    return BuildContext(source, recipes, target, seed, deterministic, trust, inputs, boards, progress, connection)


def _board_inputs(target: Target) -> dict[str, object]:
    """What the keys of stages may depend on that is another for each board."""
    from edgeprune.runtime.micro import installed_version

    return {
        "target": target.model_dump(mode="json"),
        "compiler": compiler_version(target),
        "micro": installed_version() if target.micro else None,
    }


def _with_data(
    context: BuildContext, run: Run, source: DataSource, limits: Limits, input_shape: InputShapes | None
) -> tuple[BuildContext, str]:
    """The context with data and task, and the name of the step that the plan starts from."""
    from edgeprune.convert.recurrent import preflight
    from edgeprune.data import load_data
    from edgeprune.data.sizes import settle
    from edgeprune.evaluate.file_task import File, check_order, check_ranges
    from edgeprune.models.compiled import Compiled, live_objects
    from edgeprune.models.finite import require_finite
    from edgeprune.models.front import load_front
    from edgeprune.tasks.detection import detection_inputs
    from edgeprune.tasks.resolve import resolve_task
    from edgeprune.tasks.stating import stated

    artifact = run.artifacts[planning.MODEL]
    start, is_open = planning.MODEL, stages.OPEN in artifact.files
    model = context.read(artifact, stages.OPEN if is_open else "model")
    front = artifact.files.get(stages.FRONT)
    on_host = load_front(front, trust=context.trust.given) if front else None
    spec, origin = settle(model, input_shape, on_host, context.recipe.data)
    file = File.of(context.source) if isinstance(context.source, Path) and "imported" in artifact.facts else None
    if file:
        spec = dataclasses.replace(spec, ordered=file.interface.inputs_ordered)
    data = load_data(source, context.recipe.data, spec, seed=context.seed)
    if file and context.recipe.task.kind != "teacher":
        check_order(file, data.targets)
    for note in (*data.said, *data.notes):
        context.progress.note(note)
    if is_open:
        start, shapes = planning.SIZED, {"shapes": data.train.spec.shapes, "origin": origin}
        context = dataclasses.replace(context, inputs={**context.inputs, "input_shape": shapes})
        run.execute([planning.sizes_step()], context)
        model = context.read(run.artifacts[start])
    require_finite(model)
    modes = tuple(dict.fromkeys(mode for recipe in context.recipes for mode in recipe.quantize.modes))
    if said := preflight(model, modes):
        context.progress.note(said)
    if "imported" in artifact.facts:
        check_ranges(data, artifact.facts["imported"]["input_ranges"])
    if "imported" in artifact.facts and context.recipe.task == TaskConfig() and data.targets == ():
        context.progress.note("a .tflite and data without labels: its own outputs are the goal")
        teacher = {"task": TaskConfig(kind="teacher")}
        context = dataclasses.replace(context, recipes=tuple(r.model_copy(update=teacher) for r in context.recipes))
    compiled = artifact.facts.get("compiled_with")
    in_memory = {} if context.source is None or isinstance(context.source, Path) else live_objects(context.source)
    task = resolve_task(
        model,
        context.recipe.task,
        data,
        Compiled.from_json(compiled) if compiled else None,
        {**in_memory, **context.trust.custom_objects},
        context.recipe.detection,
    )
    for recipe in context.recipes:
        check_limits(task, limits, recipe)
    # With what the model was compiled for in it, the recipe also measures the files, which do not know that.
    full = stated(task, context.recipe.task)
    recipes = tuple(recipe.model_copy(update={"task": full}) for recipe in context.recipes)
    head = detection_inputs(context.recipe.detection) if data.boxes and context.recipe.detection else None
    inputs = {**context.inputs, "data": data.fingerprint, "task": task_inputs(full, context.trust, head)}
    return dataclasses.replace(context, recipes=recipes, inputs=inputs, data=task.prepare(data), task=task), start


def task_inputs(config: TaskConfig, trust: Trust, head: JsonObject | None = None) -> JsonObject:
    """What a task depends on beside the model and the data: the recipe, and the code of functions that it names.

    Args:
        head: what a detector's outputs mean; None: it is none.
    """
    from edgeprune.code import load_function
    from edgeprune.data.function import source_hash

    document = {**config.model_dump(mode="json"), **({"detection": head} if head else {})}
    functions = sorted(term for term in _texts(document) if ":" in term)
    code = {name: source_hash(load_function(name, RecipeError)).hex() for name in functions}
    return {**document, "code": code, "objects": trust.fingerprint}


def _texts(document: Any) -> Iterator[str]:
    """The strings in a JSON value."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, list | dict):
        for item in document.values() if isinstance(document, dict) else document:
            yield from _texts(item)


def check_limits(task: Task, limits: Limits, recipe: Recipe) -> None:
    """Make sure that drops are given in a unit that the task's metric has, before anything is trained.

    Raises:
        UsageError: points of a metric that is no fraction.
    """
    limits.drop.limit(task, 1.0)
    used = {
        "mixed": recipe.mixed.max_drop if "mixed" in recipe.quantize.modes else None,
        "coded": recipe.coded.max_drop if recipe.coded else None,
    }
    for section, most in used.items():
        if most is not None:
            MaxDrop.parse(most).require_unit(task, f'max_drop = "1%" under [{section}] in the recipe')
