"""What an executor runs: functions that build one rung of a trial, look at test data for the front, or write ``best/``.

Each takes a :class:`Setup`, and what it returns is JSON: the functions can run in any process that reaches the folder
of stages. The model and the data are opened once per process.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune import plan as planning
from edgeprune.context import BuildContext, Trust
from edgeprune.errors import EdgepruneError
from edgeprune.files import JsonObject
from edgeprune.pipeline import Exchange, Run, Stage
from edgeprune.progress import Progress
from edgeprune.recipe.config import Mode, Recipe
from edgeprune.selection import Limits
from edgeprune.target import Target

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.artifact import Artifact
    from edgeprune.data.source import DataSource
    from edgeprune.models.sizes import InputShapes
    from edgeprune.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Setup:
    """What all trials of a search have in common.

    Attributes:
        model: a path, a model object, or None for the demo.
        base: the recipe that the trials vary, for its data and task.
        stages: the folder where all of them keep their stages.
        exchange: where stages come from that are not in the folder (:class:`edgeprune.pipeline.Run`).
    """

    model: Any
    data: DataSource
    base: Recipe
    targets: tuple[Target, ...]
    stages: Path
    limits: Limits
    seed: int
    deterministic: bool = False
    trust_model: bool = False
    custom_objects: str | Path | None = None
    input_shape: InputShapes | None = None
    exchange: Exchange = dataclasses.field(default=contextlib.nullcontext, compare=False)


@dataclasses.dataclass(frozen=True)
class _Opened:
    """The model and the data, for every target, and the steps that led to them."""

    setup: Setup
    contexts: dict[str, BuildContext]
    source: str
    run: Run
    heard: _Heard


class _Heard(Progress):
    """Keeps what is said while the model and the data are opened; trials say the same things again and again."""

    def __init__(self) -> None:
        self._notes: list[str] = []
        self._is_opening = True

    def note(self, text: str) -> None:
        if self._is_opening:
            self._notes.append(text)

    def end_of_opening(self, warnings: Sequence[str]) -> list[str]:
        """What was said, and the warnings of stages that were reused, which say nothing; each once."""
        self._is_opening = False
        return list(dict.fromkeys([*self._notes, *warnings]))


_opened: _Opened | None = None

# So many are modules: TensorFlow's alone are more, those of a model are a tenth.
_MANY_OBJECTS = 200_000


def open_setup(setup: Setup) -> JsonObject:
    """Open the model and the data, and judge the model as it came.

    Returns:
        ``metric`` (name, higher_is_better, points); ``data``: sizes of the splits and a ``fingerprint``; ``model``;
        ``inputs``: what all figures depend on, and ``boards``, by target, what those for one target do;
        ``blocks``, ``filters``: whether there are any that can go; ``weight_only``: whether formats of weights alone
        can be made; ``notes``: what a build would have said of all that; ``reference``: by target, the figures of the
        unpruned float32 file; ``least_latency``: by target, the least share of the int8 file's latency that removing
        filters can leave, in steps of 5 %, or None.

    Raises:
        EdgepruneError: what was given cannot be opened, as for a build.
    """
    from edgeprune.convert.weight_only import quantizer_version
    from edgeprune.prune.channels.analyse import analyse
    from edgeprune.sources import source_hash

    opened = _open(setup, anew=True)
    context = next(iter(opened.contexts.values()))
    data, task = context.required()
    source = opened.run.artifacts[opened.source]
    model = context.read(source)
    graph = analyse(model)
    float32 = Recipe(name="reference", data=setup.base.data, task=setup.base.task, detection=setup.base.detection)
    reference = {target.name: build_rung(setup, target.name, float32.model_dump()) for target in setup.targets}
    alone = _context(opened, setup.targets[0].name, float32.model_dump())
    baseline = _run(_plan(alone, opened, planning.JUDGED), opened, alone).artifacts[planning.BASELINE]
    return {
        "metric": {"name": task.metric, "higher_is_better": task.higher_is_better, "points": task.points},
        "data": {
            "source": data.source,
            "train": data.train.size,
            "validation": data.validation.size,
            "test": data.test.size,
        },
        "inputs": {
            **{key: context.inputs[key] for key in ("model", "data", "task", "input_shape", "trust", "runtime")},
            "quantizer": quantizer_version(),
            "versions": dict(context.versions),
            "code": source_hash(__name__),
        },
        "boards": {target.name: dict(opened.contexts[target.name].boards[target.name]) for target in setup.targets},
        "model": source.facts["model"],
        "blocks": any(group.block and not group.frozen for group in graph.groups),
        "filters": any(not group.frozen for group in graph.groups),
        "weight_only": bool(quantizer_version()),
        "least_latency": {target.name: _least_latency(model, target) for target in setup.targets},
        "reference": reference,
        "notes": opened.heard.end_of_opening(baseline.facts["baseline"]["warnings"]),
    }


def identity(setup: Setup) -> JsonObject:
    """What has to be the same wherever trials of a search are built, by what it is in words."""
    from edgeprune.sources import source_hash

    context = next(iter(_open(setup).contexts.values()))
    return {
        "the model": context.inputs["model"],
        "the data": context.inputs["data"],
        "versions of packages": dict(context.versions),
        "the code of edgeprune": source_hash(__name__),
    }


def _least_latency(model: tf_keras.Model, target: Target) -> float | None:
    """None where the target has no coefficients of latency, or filters make too little of it.

    A compiler is not asked: it would compile a dozen files for every trial that limits a latency.
    """
    from edgeprune.tradeoff import channel_costs

    if target.latency is None:
        return None
    try:
        rows = channel_costs(model, target, "int8")["budgets"]
    except EdgepruneError:  # a file that does not follow the channels
        return None
    return min((row["latency"] for row in rows), default=None)


def build_rung(setup: Setup, target: str, recipe: JsonObject) -> JsonObject:
    """Build one file of a recipe, and judge it on validation data.

    Args:
        target: the name of one of the setup's.
        recipe: as :meth:`Recipe.model_dump` gives it; of several number formats, see :func:`built_mode`.

    Returns:
        ``figures`` of the file, ``unknown``: why it has no latency, if it has none, ``stages`` that were run or reused,
        with their seconds, and ``rss_bytes``, the memory of this process.

    Raises:
        EdgepruneError: a stage failed.
    """
    opened = _open(setup)
    context = _context(opened, target, recipe)
    plan = _plan(context, opened, planning.JUDGED)
    run = _run(plan, opened, context)
    artifact = run.artifacts[_judged(plan).last]
    made = _figures(artifact, artifact.facts["validated"]["value"], context)
    if not all(record.reused for record in run.records):
        _forget()
    return {
        "figures": made,
        "unknown": artifact.facts["profile"]["latency"]["unknown"],
        "stages": [dataclasses.asdict(one) for one in run.records],
        "rss_bytes": _rss(),
    }


def test_file(setup: Setup, target: str, recipe: JsonObject) -> JsonObject:
    """What a file of the front makes of the test data, which nothing before has read.

    Returns:
        ``value``, ``drop`` against the unpruned float32 file on test, ``samples``, ``stages``.
    """
    opened = _open(setup)
    context = _context(opened, target, recipe)
    plan = _plan(context, opened, planning.TESTED)
    run = _run(plan, opened, context)
    _, task = context.required()
    files = plan.variants[0], _judged(plan)
    reference, found = (run.artifacts[variant.last].facts["evaluation"]["test"] for variant in files)
    _forget()
    return {
        "value": found["value"],
        "drop": task.drop(reference["value"], found["value"]),
        "samples": found["samples"],
        "stages": [dataclasses.asdict(one) for one in run.records],
    }


def write_best(setup: Setup, target: str, recipe: JsonObject, folder: str, command: str | None) -> JsonObject:
    """Write the complete run folder of a recipe; returns its report."""
    from edgeprune.files import locked
    from edgeprune.run_folder import write_run

    opened = _open(setup)
    context = _context(opened, target, recipe)
    plan = _plan(context, opened, planning.MEASURED)
    run = _run(plan, opened, context)
    with locked(Path(folder)):
        limits = setup.limits.on(context.target)
        return write_run(context, run, plan, Path(folder), limits, command, pick=_judged(plan).name)


def _open(setup: Setup, anew: bool = False) -> _Opened:
    """The model and the data of a setup, opened by the first call in this process.

    Args:
        anew: for another search: the same object, or the same file, may hold something else by now.
    """
    global _opened
    if _opened is not None and not anew and (_opened.setup is setup or _same(_opened.setup, setup)):
        return _opened
    from edgeprune.builder import build_context, open_source

    source = Path(setup.model) if isinstance(setup.model, str) else setup.model
    trust = Trust.of(setup.trust_model, setup.custom_objects)
    first, *others = setup.targets
    base = setup.base.model_copy(update={"search": {}})
    heard = _Heard()
    begun = build_context(source, (base,), first, setup.seed, setup.deterministic, trust, heard, others=others)
    run = Run(setup.stages, shared=True, exchange=setup.exchange)
    context, start = open_source(begun, run, setup.data, setup.limits, setup.input_shape)
    contexts = {target.name: context.at(target) for target in setup.targets}
    _opened = _Opened(setup, contexts, start, run, heard)
    return _opened


def _same(one: Setup, other: Setup) -> bool:
    """Whether two setups are equal; objects in memory are the same only if they are one object."""
    pairs = (
        (getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(Setup) if field.compare
    )
    return all(a is b or (isinstance(a, _PLAIN) and isinstance(b, _PLAIN) and _equal(a, b)) for a, b in pairs)


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except ValueError:  # arrays within, which are the same only if they are one
        return False


_PLAIN = (str, Path, int, float, bool, type(None), tuple, dict, Recipe, Limits)


def _context(opened: _Opened, target: str, recipe: JsonObject) -> BuildContext:
    """The surroundings of a trial: those of the search, with its recipe and fresh random numbers."""
    from edgeprune.train.determinism import start

    context = opened.contexts[target]
    made = Recipe.model_validate(recipe)
    update: dict[str, Any] = {"task": context.recipe.task}
    update["quantize"] = made.quantize.model_copy(update={"modes": (built_mode(made),)})
    start(context.seed, context.deterministic)
    return dataclasses.replace(context, recipes=(made.model_copy(update=update),))


def built_mode(recipe: Recipe) -> Mode:
    """The format of a trial's file: of several, the one that limits are meant for, else the first but float32."""
    main = planning.main_mode(recipe)
    others = (mode for mode in recipe.quantize.modes if mode != planning.REFERENCE)
    return main if main != planning.REFERENCE else next(others, main)


def _judged(plan: planning.Plan) -> planning.Variant:
    """The file that a trial is about: the last one that does not stand for comparison only."""
    return next(variant for variant in reversed(plan.variants) if variant.control_of is None)


def _plan(context: BuildContext, opened: _Opened, measured: Sequence[Stage]) -> planning.Plan:
    return planning.make_plan(context.recipes, context.target, source=opened.source, measured=measured)


def _run(plan: planning.Plan, opened: _Opened, context: BuildContext) -> Run:
    """Run the steps of a plan, those of them that no trial has run before.

    Raises:
        EdgepruneError: the file that the plan is about cannot be made.
    """
    from edgeprune.data import data_errors

    known = opened.run
    run = Run(known.folder, dict(known.artifacts), dict(known.keys), shared=True, exchange=known.exchange)
    with data_errors():
        run.execute(plan.steps, context)
    if error := run.failed.get(_judged(plan).last):
        raise error
    return run


# Figures of files for microcontrollers.
ON_MICRO = ("flash_bytes", "ram_bytes")


def _figures(artifact: Artifact, value: float, context: BuildContext) -> JsonObject:
    profile = artifact.facts["profile"]
    estimated = profile["latency"].get("estimated")
    _, task = context.required()
    _known(task, value)
    return {
        "value": value,
        "latency_ms": estimated["median_ms"] if estimated else None,
        **{key: artifact.facts["micro"][key] for key in ON_MICRO if "micro" in artifact.facts},  # type: ignore[literal-required]
        **{key: profile[key] for key in ("bytes", "gzip_bytes", "params", "nonzero_params", "macs", "weight_sparsity")},
    }


def _known(task: Task, value: float) -> None:
    import math

    if not math.isfinite(value):
        raise EdgepruneError(f"The {task.metric} of the file is {value}: it answers with what is no number.")


def _forget() -> None:
    """Let go of what Keras keeps of models that nobody needs any more.

    Where much is there afterwards, it is modules that the first trials imported: they stay, and looking through them
    for garbage once more would take longer than anything else between two stages. So they are set aside, too, but only
    in a process of trials, where others are already (:func:`edgeprune.searching.executors.warm_up`): in the user's own,
    garbage among what was set aside would never be found.
    """
    import gc

    import tf_keras

    tf_keras.backend.clear_session()
    gc.collect()
    if gc.get_freeze_count() and len(gc.get_objects()) > _MANY_OBJECTS:
        gc.freeze()


def _rss() -> int:
    """Bytes of memory of this process; 0 where that cannot be read."""
    import os

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
