"""The study: which trials there were, and what came of them, in Optuna's journal on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import statistics
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeprune.errors import MissingError, RecipeError, UsageError
from edgeprune.files import JsonObject, output_errors, sha256_json
from edgeprune.recipe.config import Recipe
from edgeprune.searching.goal import OBJECTIVES, Goal
from edgeprune.searching.ladder import RUNGS, Climb, Rung, epochs_of, ladder
from edgeprune.searching.space import BUDGETS, Space, between, budget_of

if TYPE_CHECKING:
    from types import ModuleType

    import optuna

Sampler = Literal["tpe", "nsga2", "random"]
# Random trials that the sampler learns from before it takes over.
STARTUP = 10
# After so many repetitions in a row, what was not tried is looked for.
STUCK = 3
JOURNAL = "search.journal"


def import_optuna() -> ModuleType:
    """Optuna, without its log.

    Raises:
        MissingError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingError(
            "A search needs Optuna, which is not installed.", fix="pip install 'edgeprune[search]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("optuna").propagate = False
    return optuna


def _storage(path: Path) -> optuna.storages.JournalStorage:
    """Optuna's journal in a file that this process alone writes: its folder is locked.

    Optuna's own lock is a symbolic link, which a process that is killed leaves behind, and the next one waits for. A
    line that such a process did not write to its end goes.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Held(JournalFileOpenLock):
        def acquire(self) -> bool:
            return True

        def release(self) -> None:
            pass

    if path.is_file():
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=Held(str(path))))


@dataclasses.dataclass
class Record:
    """A trial: its recipe, and the file of each rung that it reached.

    Attributes:
        number: counted from 0, of all trials for one target.
        rungs: name of the rung → its figures (:func:`edgeprune.searching.trials.build_rung`, with the drop) and the
            seconds it took.
        state: running, complete (it reached its top), stopped (it could not reach the front any more), failed, or
            repeated (another trial builds the same).
        reason: why it was stopped or failed; of which trial it is a repetition.
        is_left_over: an earlier start began it, and it goes on.
    """

    number: int
    params: dict[str, Any]
    recipe: Recipe | None
    rungs: dict[str, JsonObject]
    state: str = "running"
    reason: str = ""
    is_left_over: bool = False

    @functools.cached_property
    def steps(self) -> list[tuple[Rung, Recipe]]:
        return ladder(self.recipe) if self.recipe else []

    @functools.cached_property
    def built(self) -> str:
        """Equal for trials that build the same."""
        return sha256_json([recipe.model_dump(mode="json", exclude={"name"}) for _, recipe in self.steps])

    @property
    def left(self) -> dict[Rung, Recipe]:
        """The rungs above those that were taken, from below, and what is built there; none: it is at its top."""
        taken = [place for place, (rung, _) in enumerate(self.steps) if rung.name in self.rungs]
        return dict(self.steps[max(taken, default=-1) + 1 :])

    @functools.cached_property
    def apart_from_limits(self) -> str:
        """Equal for trials that nothing but the limits of their filters tells apart."""
        assert self.recipe
        table = self.recipe.model_dump(mode="json", exclude={"name"})
        if table["filters"]:
            table["filters"] = {key: value for key, value in table["filters"].items() if key not in BUDGETS}
        return sha256_json(table)

    def climb(self) -> Climb | None:
        """What the trial gained, if it reached its top."""
        if self.state != "complete" or not self.rungs:
            return None
        drops = {name: made["figures"]["drop"] for name, made in self.rungs.items()}
        return Climb(drops, drops[self.top])

    @property
    def top(self) -> str:
        """The highest rung that was reached."""
        return [rung.name for rung in RUNGS if rung.name in self.rungs][-1]


class Study:
    """The trials for one target.

    Args:
        folder: of the journal; studies of several targets, and of other goals, share it.
        inputs: what the trials depend on beside their values: a study of other inputs is another one.
    """

    def __init__(
        self,
        folder: Path,
        target: str,
        space: Space,
        goal: Goal,
        seed: int,
        sampler: Sampler,
        inputs: Mapping[str, Any],
    ):
        self.target, self.space, self.goal = target, space, goal
        self._seed, self._sampler = seed, sampler
        self._optuna = import_optuna()
        key = sha256_json(
            {
                **inputs,
                "space": space.to_json(),
                "base": space.base,
                "objectives": goal.objectives,
                "limits": dataclasses.asdict(goal.limits),
                "reference": goal.reference,
                "seed": seed,
                "sampler": sampler,
            }
        )
        self._journal = folder / JOURNAL
        with self._quiet():
            self._study = self._open(f"{target}-{key[:16]}")
            for values in space.first:
                self._study.enqueue_trial(values, skip_if_exists=True)
        names = self._optuna.get_all_study_names(self._study._storage)
        # Studies for the same target whose trials say nothing about this one.
        self.others = sum(name.rpartition("-")[0] == target for name in names) - 1
        self._live: dict[int, optuna.trial.Trial] = {}
        self.records: list[Record] = []
        self._failed: set[int] = set()  # since this start
        self._restore()

    def _open(self, name: str) -> optuna.study.Study:
        try:
            return self._optuna.create_study(
                storage=_storage(self._journal),
                study_name=name,
                directions=["minimize"] * len(self.goal.objectives),
                load_if_exists=True,
            )
        except (ValueError, LookupError, TypeError, AssertionError) as error:  # whatever Optuna trips over
            raise UsageError(
                f"The journal of the search, {self._journal}, is damaged: {type(error).__name__}, {error}.",
                expected="the file as an earlier search left it.",
                fix="move it away: the search begins anew, and takes what earlier trials built from stages/.",
            ) from error

    def ask(self) -> Record:
        """A new trial: one that was planned, else one that Optuna suggests. It may have failed already."""
        with self._quiet():
            self._plan()
            self._study.sampler = self._asked_sampler(len(self.records))
            return self._begin(self._study.ask())

    def _plan(self) -> None:
        """Put what is to be tried next before what Optuna would suggest, if it was not yet."""
        if self._study.get_trials(deepcopy=False, states=[self._optuna.trial.TrialState.WAITING]):
            return
        planned = self._study.user_attrs.get("planned", [])
        values = next((values for values in (*self._nearer(), *self.space.then) if values not in planned), None)
        if values:
            self._study.enqueue_trial(values, skip_if_exists=True)
            self._study.set_user_attr("planned", [*planned, values])

    def _nearer(self) -> list[dict[str, Any]]:
        """All of the training with the budget between the largest that misses the drop of the goal and the next one
        that was begun: step by step, the fastest file that keeps it. Where none misses it, below the least."""
        thorough, key = self.space.thorough, budget_of(self.space.varies)
        if not thorough or key is None:
            return []
        begun: dict[float, dict[str, Any]] = {}
        missed: dict[float, bool] = {}
        for record in self.records:
            params = record.params
            # One that was stopped has a figure from before its training, which says nothing of the goal.
            if record.state not in ("running", "complete") or key not in params:
                continue
            if any(params.get(name, value) != value for name, value in thorough.items()):
                continue
            begun.setdefault(params[key], params)
            if record.state == "complete":
                missed[params[key]] = self.goal.excess(record.rungs[record.top]["figures"])["max_drop"] > 0
        if not missed:
            return []
        tight = max((value for value, is_missed in missed.items() if is_missed), default=None)
        wide = min((value for value in begun if tight is None or value > tight), default=None)
        middle = between(self.space.varies[key], tight, wide)
        if middle is None:
            return []
        planned = {**thorough, key: middle}
        if wide is not None and (parameters := begun[wide].get("filters.max_params")):
            planned["filters.max_params"] = parameters
        return [planned]

    def note(self, record: Record, rung: str, made: JsonObject) -> None:
        """Keep what came of a rung."""
        figures = {**made["figures"], "drop": self.goal.drop(made["figures"]["value"])}
        record.rungs[rung] = {**made, "figures": figures}
        with self._quiet():
            self._live[record.number].set_user_attr(f"rung:{rung}", record.rungs[rung])

    def end(self, record: Record, state: str, reason: str = "") -> None:
        """Tell Optuna how a trial ended."""
        record.state, record.reason = state, reason
        if state == "failed":
            self._failed.add(record.number)
        trial = self._live.pop(record.number)
        with self._quiet():
            trial.set_user_attr("state", state)
            trial.set_user_attr("reason", reason)
            # Not the one that was asked, perhaps: brute force ends Optuna's own loop, and there is none.
            self._study.sampler = self._make_sampler(len(self.records))
            if not record.rungs or state == "failed":
                self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
                return
            figures = record.rungs[record.top]["figures"]
            for gate, excess in self.goal.excess(figures).items():
                trial.set_constraint(gate, excess)
            self._study.tell(trial, list(self.goal.costs(figures)))

    def twin(self, record: Record) -> Record | None:
        """An earlier trial that other limits led to the same file: nothing else tells it from this one so far."""
        top = record.top
        for one in self.records:
            if one.number < record.number and one.recipe and one.state != "failed" and top in one.rungs:
                same = one.rungs[top]["figures"] == record.rungs[top]["figures"]
                if same and one.apart_from_limits == record.apart_from_limits:
                    return one
        return None

    def importances(self) -> dict[str, float]:
        """How much each key mattered for reaching the front, by Optuna's PED-ANOVA; nothing before ten trials."""
        ended = [record for record in self.records if record.state in ("complete", "stopped")]
        if len(ended) < STARTUP:
            return {}
        with self._quiet(), contextlib.suppress(ValueError, RuntimeError, ZeroDivisionError):
            return dict(self._optuna.importance.get_param_importances(self._study))
        return {}

    @contextlib.contextmanager
    def _quiet(self) -> Any:
        """Around what Optuna does: without its warnings, and with errors of the disk in words."""
        with warnings.catch_warnings(), output_errors(self._journal):
            warnings.simplefilter("ignore")
            yield

    def _asked_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """The sampler that suggests a trial: where the usual one only repeats itself, one that does not."""
        last = self.records[max(number - STUCK, 0) : number]
        if len(last) < STUCK or any(record.state != "repeated" for record in last):
            return self._make_sampler(number)
        samplers, seed = self._optuna.samplers, self._seed_of(number)
        return samplers.BruteForceSampler(seed) if self.space.is_finite else samplers.RandomSampler(seed)

    def _seed_of(self, number: int) -> int:
        """Of a trial, by its number alone, so that it makes no difference whether the search was interrupted before."""
        return (self._seed * 1_000_003 + number) % 2**32

    def _make_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        samplers, seed = self._optuna.samplers, self._seed_of(number)
        if self._sampler == "tpe":
            return samplers.TPESampler(seed=seed, n_startup_trials=STARTUP)
        return samplers.NSGAIISampler(seed=seed) if self._sampler == "nsga2" else samplers.RandomSampler(seed=seed)

    def _begin(self, trial: optuna.trial.Trial) -> Record:
        self._live[trial.number] = trial
        try:
            recipe: Recipe | None = self.space.recipe(trial, f"trial{trial.number}")
            error = None
        except RecipeError as caught:
            recipe, error = None, caught
        record = Record(trial.number, dict(trial.params), recipe, {})
        self.records.append(record)
        if same := self._same(record):
            record.rungs = dict(same.rungs)
            self.end(record, "repeated", f"as trial {same.number}")
        elif error is not None:
            self.end(record, "failed", error.what)
        return record

    def _same(self, record: Record) -> Record | None:
        """An ended trial that builds the same. One that failed fails again, unless it was in an earlier start: what was
        wrong then may have been mended since."""
        ended = (one for one in self.records if one.state in ("complete", "stopped") or one.number in self._failed)
        if record.recipe is None:
            return next((one for one in ended if one.recipe is None and one.params == record.params), None)
        return next((one for one in ended if one.recipe is not None and one.built == record.built), None)

    def _restore(self) -> None:
        """The records of what the journal holds. Trials that were under way go on."""
        states = self._optuna.trial.TrialState
        for frozen in self._study.get_trials(deepcopy=False):
            if frozen.state == states.WAITING:
                continue
            trial = self._optuna.trial.Trial(self._study, frozen._trial_id)
            attrs = frozen.user_attrs
            rungs = {name[5:]: value for name, value in attrs.items() if name.startswith("rung:")}
            if frozen.state == states.RUNNING:
                with self._quiet():
                    self._study.sampler = self._asked_sampler(len(self.records))
                    record = self._begin(trial)
                if record.state == "running":
                    record.rungs, record.is_left_over = rungs, True
                continue
            try:
                recipe = self.space.recipe(self._optuna.trial.FixedTrial(frozen.params), f"trial{frozen.number}")
            except RecipeError:
                recipe = None
            record = Record(frozen.number, dict(frozen.params), recipe, rungs)
            record.state, record.reason = attrs.get("state", "failed"), attrs.get("reason", "")
            self.records.append(record)
        by_number = {record.number: record for record in self.records}
        for record in self.records:
            if record.state == "repeated":
                record.rungs = by_number[int(record.reason.split()[-1])].rungs

    @property
    def climbs(self) -> list[Climb]:
        """Of the trials that reached their top."""
        return [climb for record in self.records if (climb := record.climb())]

    def expected(self, recipe: Recipe) -> float | None:
        """The seconds that a rung takes by what others took per epoch; None: it trains nothing, or none did yet."""
        rates = [
            made["seconds"] / epochs
            for record in self.records
            for rung, built in record.steps
            if (made := record.rungs.get(rung.name)) and (epochs := epochs_of(built))
        ]
        epochs = epochs_of(recipe)
        return epochs * statistics.median(rates) if epochs and rates else None

    @property
    def unfinished(self) -> list[Record]:
        """Trials that an earlier search left under way."""
        return [record for record in self.records if record.state == "running"]

    @property
    def counted(self) -> int:
        """Trials that count: repetitions cost nothing."""
        return sum(record.state != "repeated" for record in self.records)

    @property
    def titles(self) -> list[str]:
        return [OBJECTIVES[name].title for name in self.goal.objectives]
