"""``edgeprune sensitivity``: prune each group of filters alone at several rates, and measure what that costs."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune._version import __version__
from edgeprune.context import Trust, versions
from edgeprune.errors import ModelError, RecipeError, UsageError
from edgeprune.files import JsonObject, locked, output_errors, sha256_json, write_bytes, write_json
from edgeprune.progress import Progress
from edgeprune.prune.choice.sensitivity import RATES
from edgeprune.recipe.config import FiltersConfig, Recipe
from edgeprune.recipe.patterns import exactly
from edgeprune.run_folder import check_folder
from edgeprune.selection import MaxDrop, within

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.data import Data, Split
    from edgeprune.data.source import DataSource
    from edgeprune.models.load import Opened
    from edgeprune.models.sizes import InputShapes
    from edgeprune.prune.channels.graph import Graph, Group
    from edgeprune.prune.choice.criteria import Scores
    from edgeprune.prune.choice.sensitivity import Curves, Orders
    from edgeprune.tasks.task import Task

SAMPLES = 1024
# How much the metric may drop when one group alone is pruned at its tolerated rate.
TOLERATED = MaxDrop(1.0, part=0.02)
# The budget of the recommended rates where the recipe has none.
DEFAULT_FILTERS = FiltersConfig(max_macs=0.5)


def analyse_sensitivity(
    model: str | Path,
    *,
    data: DataSource,
    recipe: str | Path | Recipe | None = None,
    rates: Sequence[float] = RATES,
    criterion: str | None = None,
    samples: int = SAMPLES,
    out: str | Path | None = None,
    seed: int = 0,
    trust_model: bool = False,
    custom_objects: str | Path | None = None,
    input_shape: InputShapes | None = None,
    progress: Progress | None = None,
) -> JsonObject:
    """Prune each group of filters alone at several rates, without training, and evaluate on validation samples.

    Args:
        model: a model file or folder.
        data: folder, .npz, ``module:function``, function, arrays, or "demo".
        recipe: whose ``[data]``, ``[task]`` and ``[filters] criterion`` count; as for a build.
        rates: fractions of a group's filters, in (0, 1).
        criterion: which filters of a group go first; None: the recipe's, else taylor.
        samples: of the validation data; all of it if it has fewer.
        trust_model, custom_objects, input_shape: as for a build.
        out: the folder for results, in which an interrupted run continues; None: ``runs/MODEL-sensitivity``.

    Returns:
        The document in sensitivity.json.

    Raises:
        EdgepruneError: with what happened, what was expected, and what to do.
    """
    from edgeprune.models.hash import model_hash
    from edgeprune.models.load import open_model
    from edgeprune.recipe.load import resolve_recipe
    from edgeprune.report.sensitivity import write_views
    from edgeprune.train.determinism import start

    if not rates or not all(0 < rate < 1 for rate in rates):
        raise UsageError(f"The rates are {list(rates)}.", expected="at least one, each in (0, 1).")
    resolved, path = resolve_recipe(recipe), Path(model)
    chosen = criterion or (resolved.filters or DEFAULT_FILTERS).criterion
    folder = Path(out) if out else Path("runs") / f"{path.stem}-sensitivity"
    given = {"model": model, "data": data, "recipe": recipe, "file of layer classes": custom_objects}
    check_folder(folder, path.stem, given, "sensitivity")
    start(seed, False)
    source = {"name": path.stem, "source": str(model), "sha256": model_hash(path)}
    trust = Trust.of(trust_model, custom_objects)
    loaded = open_model(model, trust=trust.given, custom_objects=dict(trust.custom_objects), input_shape=input_shape)
    with locked(folder):
        sized, opened, task = _open(loaded, data, resolved, seed, trust, input_shape)
        request = _Request(source, resolved, chosen, tuple(sorted(rates)), samples, seed)
        document = _analyse(sized, opened, task, request, folder, progress or Progress())
        with output_errors(folder):
            write_json(folder / "sensitivity.json", document)
            write_views(document, folder)
            if document["reachable"]:
                write_bytes(folder / "recipe.toml", _recipe(document).encode())
            else:  # one of an earlier run, under another budget, would be taken for this run's
                (folder / "recipe.toml").unlink(missing_ok=True)
    return document


@dataclasses.dataclass(frozen=True)
class _Request:
    source: JsonObject
    recipe: Recipe
    criterion: str
    rates: tuple[float, ...]
    samples: int
    seed: int

    @property
    def filters(self) -> FiltersConfig:
        return self.recipe.filters or DEFAULT_FILTERS

    @property
    def budget(self) -> dict[str, float]:
        """The one limit of the recipe, or the default one."""
        given = {key: getattr(self.filters, key) for key in ("rate", "max_params", "max_macs")}
        return {key: value for key, value in given.items() if value is not None}

    def key(self, data: Data) -> str:
        """Hash of what a measured point depends on. Rates are no part of it: a run with more of them adds points."""
        from edgeprune.tasks.detection import detection_inputs

        return sha256_json(
            {
                "model": self.source["sha256"],
                "data": data.fingerprint,
                "task": self.recipe.task.model_dump(mode="json"),
                "detection": self.recipe.detection and detection_inputs(self.recipe.detection),
                "criterion": self.criterion,
                "samples": self.samples,
                "seed": self.seed,
                "versions": versions(),
            }
        )


def _open(
    opened: Opened, source: DataSource, recipe: Recipe, seed: int, trust: Trust, input_shape: InputShapes | None
) -> tuple[tf_keras.Model, Data, Task]:
    """The model with fixed sizes, the data, and what it is measured by."""
    from edgeprune.convert.recurrent import refuse_state
    from edgeprune.data import data_errors, load_data
    from edgeprune.data.sizes import settle
    from edgeprune.models.finite import require_finite
    from edgeprune.models.sizes import with_sizes
    from edgeprune.tasks.resolve import resolve_task

    require_finite(opened.model)
    spec, _ = settle(opened.model, input_shape, opened.front)
    with data_errors():
        data = load_data(source, recipe.data, spec, seed=seed)
    model = with_sizes(opened.model, data.train.spec.shapes)
    refuse_state(model)
    task = resolve_task(model, recipe.task, data, opened.compiled, dict(trust.custom_objects), recipe.detection)
    return model, task.prepare(data), task


def _analyse(
    model: tf_keras.Model, data: Data, task: Task, request: _Request, folder: Path, progress: Progress
) -> JsonObject:
    from edgeprune.calibration import representative_indices
    from edgeprune.prune.channels.analyse import analyse
    from edgeprune.prune.choice.sensitivity import Journal, measure

    graph = analyse(model)
    if all(group.frozen for group in graph.groups):
        raise ModelError(
            "Nothing can be pruned from the model.", fix="`edgeprune inspect` says why each group is frozen."
        )
    indices = representative_indices(data.validation, request.samples, "stratified", request.seed)
    sample = data.validation.subset(indices)
    journal = Journal(folder / "points.jsonl", request.key(data))
    curves, order = measure(
        graph, lambda: _scores(graph, data, task, request), sample, task, journal, request.rates, progress=progress
    )
    return _document(graph, curves, _recommended(graph, curves, order, request), sample, data, task, request)


def _scores(graph: Graph, data: Data, task: Task, request: _Request) -> Scores:
    """The importance of every channel, from training samples where the criterion looks at data."""
    from edgeprune.calibration import representative_indices
    from edgeprune.prune.choice.criteria import CRITERIA, Evidence

    if request.criterion not in CRITERIA:
        raise RecipeError(f"There is no criterion {request.criterion!r}.", expected=f"one of: {', '.join(CRITERIA)}.")
    indices = representative_indices(data.train, request.samples, "stratified", request.seed)
    batches = data.train.subset(indices).batches(32, shuffle_seed=request.seed)
    return CRITERIA[request.criterion].score(graph, Evidence(lambda: batches, task, request.seed))


def _recommended(graph: Graph, curves: Curves, order: Orders, request: _Request) -> dict[str, float] | RecipeError:
    """The rate of each group by the allocation "sensitivity" under the recipe's budget; or why there is none."""
    from edgeprune.prune.choice.allocation import allocate
    from edgeprune.prune.choice.budget import Budget, Constraints

    filters = request.filters
    constraints = Constraints(filters.min_channels, protect=filters.protect, layer_rates=filters.layer_rates)
    scores: Scores = {group.name: np.zeros(group.size) for group in graph.groups}
    for name, units in order.items():
        scores[name][units] = np.arange(len(units))
    try:
        keep = allocate(graph, scores, Budget(**request.budget), "sensitivity", constraints, curves=curves).keep
    except RecipeError as error:  # the curves are worth having all the same
        return error
    return {group.name: float(1 - keep[group.units].mean()) for group in graph.groups}


def _document(
    graph: Graph,
    curves: Curves,
    recommended: dict[str, float] | RecipeError,
    sample: Split,
    data: Data,
    task: Task,
    request: _Request,
) -> JsonObject:
    from edgeprune.prune.choice.budget import unit_savings

    everything = np.ones(len(graph.units), bool)
    saves = {
        "macs": unit_savings(graph, graph.groups, "macs"),
        "params": unit_savings(graph, graph.groups, "params"),
    }
    return {
        "schema_version": 1,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "edgeprune_version": __version__,
        "model": {
            **request.source,
            "params": graph.count_params(everything),
            "macs": round(graph.count_macs(everything)),
        },
        "data": {"source": data.source, "split": "validation", "samples": sample.size},
        "metric": {"name": task.metric, "higher_is_better": task.higher_is_better, "points": task.points},
        "criterion": request.criterion,
        "seed": request.seed,
        "rates": list(request.rates),
        "allowed_drop": TOLERATED.limit(task, curves.baseline.metric),
        "baseline": {"metric": curves.baseline.metric, "loss": curves.baseline.loss},
        "budget": request.budget,
        "reachable": not isinstance(recommended, RecipeError),
        "recommendation": getattr(recommended, "what", "the least predicted loss under the budget"),
        "groups": [_group(group, curves, task, saves, recommended) for group in graph.groups],
    }


def _group(
    group: Group,
    curves: Curves,
    task: Task,
    saves: dict[str, dict[str, float]],
    recommended: dict[str, float] | RecipeError,
) -> JsonObject:
    baseline = curves.baseline.metric
    points = [
        {
            "rate": point.removed / group.size,
            "removed": point.removed,
            "metric": point.metric,
            "drop_points": task.drop(baseline, point.metric),
            "loss": point.loss,
        }
        for point in curves.of(group)[1:]
    ]
    return {
        "name": group.name,
        "channels": group.size,
        "layers": list(group.layers),
        "frozen": group.frozen,
        **{f"saves_{what}_per_channel": costs[group.name] for what, costs in saves.items()},
        "tolerated_rate": tolerated_rate(points, TOLERATED.limit(task, baseline)) if points else None,
        "recommended_rate": recommended[group.name] if points and isinstance(recommended, dict) else None,
        "points": points,
    }


def tolerated_rate(points: Sequence[JsonObject], allowed: float) -> float:
    """The largest rate at which the drop is at most ``allowed``, rounded down to a hundredth.

    Between points the drop is interpolated linearly, and it counts as never falling with the rate; beyond the last
    point nothing is assumed.
    """
    drops = np.nan_to_num([0.0, *(point["drop_points"] for point in points)], nan=np.inf)
    known = list(zip([0.0, *(p["rate"] for p in points)], np.maximum.accumulate(drops).tolist(), strict=True))
    rate = known[-1][0]
    for (low, before), (high, after) in itertools.pairwise(known):
        if not within(after, allowed):
            rate = low + (high - low) * (allowed - before) / (after - before)
            break
    return int(100 * rate + 1e-9) / 100


def _recipe(document: JsonObject) -> str:
    """The recommended rates as a recipe that others can extend."""
    import tomli_w

    rated = {group["name"]: group for group in document["groups"] if group["recommended_rate"] is not None}
    removed = sum(group["recommended_rate"] * group["channels"] for group in rated.values())
    filters = {
        "rate": min(max(round(removed / sum(group["channels"] for group in rated.values()), 4), 0.0001), 0.9999),
        "allocation": "uniform",
        "criterion": document["criterion"],
        "layer_rates": {exactly(name): round(group["recommended_rate"], 6) for name, group in rated.items()},
    }
    return tomli_w.dumps({"description": "Rates of each group by measured sensitivity.", "filters": filters})
