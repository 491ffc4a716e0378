"""One search: a model, data, targets and a goal in; the front, and the file that meets the goal, out."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.builder import source_name, source_of_data
from edgeprune.durations import parse_duration
from edgeprune.errors import EdgepruneError, OutputError, UsageError
from edgeprune.files import JsonObject, locked
from edgeprune.progress import Progress
from edgeprune.recipe.config import Recipe
from edgeprune.recipe.load import WORKING_RECIPE, load_recipe
from edgeprune.report.schema import Metric
from edgeprune.run_folder import DEMO, check_folder
from edgeprune.searching import trials as functions
from edgeprune.searching.executors import Executor, InProcess, Job, Outcome, Processes
from edgeprune.searching.goal import Goal, objectives_of, parse_objectives
from edgeprune.searching.ladder import Rung, following, may_reach
from edgeprune.searching.results import Found, Front, SearchResult, Trial, report_of, write_results
from edgeprune.searching.space import Circumstances, base_recipe, space_of
from edgeprune.searching.status import file_in_words, progress_in_words, seconds_left
from edgeprune.searching.study import Record, Sampler, Study, import_optuna
from edgeprune.selection import Limits
from edgeprune.target import Target, load_targets

if TYPE_CHECKING:
    import keras
    import tf_keras

    from edgeprune.data.source import DataSource
    from edgeprune.models.sizes import InputShapes

DEFAULT_TRIALS = 50
# So many repetitions in a row say that the space holds nothing new.
EXHAUSTED = 30
# So many failures from the first trial on, none of them good, end a search: something is wrong with all of them.
HOPELESS = 10


def search(
    model: str | Path | tf_keras.Model | keras.Model | None = None,
    *,
    target: str | Path | Target | Sequence[str | Path | Target] = "rpi4",
    data: DataSource | None = None,
    recipe: str | Path | Recipe | None = None,
    out: str | Path | None = None,
    limits: Limits | None = None,
    objectives: str | Sequence[str] | None = None,
    trials: int | None = None,
    timeout: str | float | None = None,
    jobs: int | None = None,
    ray: str | None = None,
    seed: int = 0,
    sampler: Sampler = "tpe",
    deterministic: bool = False,
    trust_model: bool = False,
    custom_objects: str | Path | None = None,
    input_shape: InputShapes | None = None,
    callback: Callable[[Trial], None] | None = None,
    progress: Progress | None = None,
    command: str | None = None,
) -> SearchResult:
    """Find the recipes with the best accuracy, latency and size, and build the one that meets the goal.

    The same call with the same ``out`` goes on from what an earlier one finished, however that ended.

    Args:
        model: a model file or folder, or a model object; None: the demo. Objects, and data in memory, are searched in
            this process; everything else in processes of their own.
        target: a board, or several: each has its own front.
        data: as for :func:`edgeprune.build`. Test data are read for the front only.
        recipe: name, file or object: what is varied, and within what, if it has ``[search]``. None: ``edgeprune.toml``
            in the working folder, else a recipe that suits the target.
        out: the run folder; None: ``runs/MODEL-search``.
        limits: the goal: points, bytes, milliseconds.
        objectives: of ``accuracy``, ``latency``, ``size``, ``download``; None: the first three, latency only for a
            target whose latency can be estimated.
        trials: how many, for each target, those of earlier calls included; None: 50, or as many as ``timeout`` allows.
        timeout: seconds, or ``"90s"``, ``"40m"``, ``"2h"``: no trial goes on after it. The front is measured then.
        jobs: trials at a time; None: one, or as many as the Ray cluster has processors.
        ray: run trials on a Ray cluster: its address, ``"auto"`` on one of its machines, or ``"local"``.
        seed: every random choice derives from it.
        sampler: what Optuna suggests by: ``tpe``, ``nsga2``, or ``random``.
        deterministic: same seed, same machine, same bytes; slower.
        trust_model: as for :func:`edgeprune.build`.
        custom_objects: likewise.
        input_shape: likewise.
        callback: called with every trial that has ended, in the order in which they do.
        progress: hears what is going on.
        command: how the search was started, for the report.

    Returns:
        The fronts by target. search.json, trials.csv and report.html are in ``out``, the pick is in ``out / "best"``
        (``best/TARGET``, of several targets).

    Raises:
        UsageError: a model without data, or options that do not go together.
        EdgepruneError: what was given cannot be opened, as for a build; or the first trials all failed.
        MissingError: Optuna is not installed; or Ray, or the cluster cannot be reached.
        KeyboardInterrupt: as usual; the front so far has been written.
    """
    import_optuna()
    boards = load_targets(target)
    data = source_of_data(model, data)
    if (jobs is not None and jobs < 1) or (trials is not None and trials < 1):
        raise UsageError("The numbers of jobs and trials are at least 1.")
    movable = isinstance(model, str | Path | None) and isinstance(data, str | Path)
    if (ray or (jobs or 1) > 1) and not movable:
        raise UsageError(
            "Several jobs are several processes, which need the model and the data in files.",
            fix="save them, or leave out jobs and ray.",
        )
    (limits or Limits()).check(boards)
    base = _base(recipe)
    folder = Path(out) if out else Path("runs") / f"{source_name(model)}-search"
    given = {"model": model, "data": data, "recipe": recipe, "file of layer classes": custom_objects}
    check_folder(folder, source_name(model), given, "search")
    setup = functions.Setup(
        Path(model).absolute() if movable and isinstance(model, str | Path) else model,
        data,
        base or base_recipe(),
        boards,
        folder.absolute() / "stages",
        limits or Limits(),
        seed,
        deterministic,
        trust_model,
        custom_objects,
        input_shape,
    )
    seconds = parse_duration(timeout)
    asked = None if objectives is None else parse_objectives(objectives)
    for board in boards:  # what is not known of a board is said before anything is opened
        objectives_of(board, asked, setup.limits)
    progress = progress or Progress()

    def make_executor() -> Executor:
        if ray:
            from edgeprune.searching.cluster import RayCluster

            return RayCluster(ray, setup.stages, jobs, progress.note)
        return Processes(jobs or 1) if movable else InProcess()

    with locked(folder):
        running = _Search(
            setup,
            base,
            folder,
            asked,
            DEFAULT_TRIALS if trials is None and seconds is None else trials,
            seconds,
            make_executor,
            sampler,
            callback or (lambda trial: None),
            progress,
            command,
        )
        return running.run()


def _base(recipe: str | Path | Recipe | None) -> Recipe | None:
    if recipe is None:
        recipe = WORKING_RECIPE if WORKING_RECIPE.is_file() else None
    base = recipe if recipe is None or isinstance(recipe, Recipe) else load_recipe(recipe)
    if base and base.finetune.strategy == "multiworker":
        raise UsageError(
            '[finetune] strategy = "multiworker" shares each training among machines; a search shares its trials.',
            expected='strategy = "none" or "mirrored".',
            fix="leave strategy out, and give the cluster with --ray ADDRESS.",
        )
    return base


class _Search:
    """A search while it runs."""

    def __init__(
        self,
        setup: functions.Setup,
        base: Recipe | None,
        folder: Path,
        objectives: tuple[str, ...] | None,
        most: int | None,
        seconds: float | None,
        make_executor: Callable[[], Executor],
        sampler: Sampler,
        callback: Callable[[Trial], None],
        progress: Progress,
        command: str | None,
    ):
        self._setup, self._base, self._folder, self._objectives = setup, base, folder, objectives
        self._most, self._seconds, self._make_executor, self._sampler = most, seconds, make_executor, sampler
        self._callback, self._progress, self._command = callback, progress, command
        self._began = time.monotonic()
        self._numbers = itertools.count()
        self._studies: list[Study] = []
        self._exhausted: set[str] = set()
        # Targets with a trial that waits for the next start.
        self._waiting: set[str] = set()
        # Targets with a trial that failed since this start: what made all of them fail before may be mended by now.
        self._failing: set[str] = set()
        self._facts: JsonObject = {}

    def run(self) -> SearchResult:
        executor = self._make_executor()
        try:
            self._progress.note("opens the model and the data")
            self._facts = self._call(executor, functions.open_setup, self._setup, here=True)
            for note in self._facts["notes"]:
                self._progress.note(note)
            self._studies = [self._study(target) for target in self._setup.targets]
            executor = self._climb(executor)
        except BaseException as error:
            executor.close()
            # Whatever ended the trials, what they found is not lost; and what is wrong is said, not what came of it.
            with contextlib.suppress(EdgepruneError if isinstance(error, KeyboardInterrupt) else Exception):
                self._write_so_far()
            raise
        try:
            return self._end(executor)
        except KeyboardInterrupt:
            executor.close()
            self._write_so_far()
            raise
        finally:
            executor.close()

    def _write_so_far(self) -> None:
        if self._studies:
            self._write([self._front(study) for study in self._studies])

    def _end(self, executor: Executor) -> SearchResult:
        """Measure the fronts and write all of them, of a target without a file, too, before that is an error."""
        fronts, errors = [], []
        for study in self._studies:
            try:
                fronts.append(self._measured(study, executor))
            except EdgepruneError as error:
                fronts.append(self._front(study))
                errors.append(error)
        result = self._write(fronts)
        if errors:
            errors[0].add_note(f"What the trials found is in {self._folder}.")
            raise errors[0]
        return result

    # -- trials ---------------------------------------------------------------------------------------------------

    def _study(self, target: Target) -> Study:
        facts, limits = self._facts, self._setup.limits.on(target)
        objectives = objectives_of(target, self._objectives, limits)
        metric = Metric.model_validate(facts["metric"])
        goal = Goal(objectives, limits, metric, facts["reference"][target.name]["figures"]["value"])
        base = self._base or base_recipe()
        given = Circumstances(
            target, facts["blocks"], facts["filters"], facts["weight_only"],
            bool({"size", "flash"} & set(objectives)), "download" in objectives, base.finetune.epochs,
            facts["least_latency"][target.name],
        )  # fmt: skip
        space = space_of(self._base, given)
        if not base.search:
            empty = (
                f"[search] of the recipe {base.name} is empty" if "search" in base.model_fields_set else "no [search]"
            )
            self._progress.note(f"{target.name}: varies what suits it ({empty}): {', '.join(space.varies)}")
        inputs = {**facts["inputs"], **facts["boards"][target.name], "deterministic": self._setup.deterministic}
        study = Study(self._folder, target.name, space, goal, self._setup.seed, self._sampler, inputs)
        if study.others and not study.records:
            self._progress.note(
                f"{target.name}: trials begin anew, for those of earlier starts here had another goal, space, seed or "
                "data, or other versions of packages; what they built is reused"
            )
        return study

    def _climb(self, executor: Executor) -> Executor:
        """Run trials until all are done or the time is up; returns an executor that runs nothing."""
        under_way: dict[int, tuple[Study, Record, Rung, float]] = {}
        waiting = [(study, record) for study in self._studies for record in study.unfinished]
        turns = itertools.cycle(self._studies)
        while True:
            while len(under_way) < executor.jobs and not self._is_late():
                if (step := self._next(waiting, turns)) is None:
                    break
                study, record, rung = step
                number = next(self._numbers)
                arguments = (self._setup, study.target, record.left[rung].model_dump())
                executor.submit(Job(number, functions.build_rung, arguments))
                under_way[number] = study, record, rung, time.monotonic()
            if not under_way:
                return executor
            outcome = executor.next(self._left())
            if outcome is None:
                self._progress.note(f"the time is up; {len(under_way)} trials are left where they are")
                executor.close()
                return self._make_executor()
            study, record, rung, started = under_way.pop(outcome.number)
            if self._took(study, record, rung, outcome, time.monotonic() - started):
                waiting.insert(0, (study, record))

    def _next(self, waiting: list[tuple[Study, Record]], turns: Iterator[Study]) -> tuple[Study, Record, Rung] | None:
        """What to run now: a trial that goes on, else a new one, and its rung; None: there is none."""
        while waiting:
            study, record = waiting.pop(0)
            if self._goes_on(study, record) and (rung := self._rung(study, record)):
                return study, record, rung
        for study in itertools.islice(turns, len(self._studies)):
            while not (self._is_full(study) or study.target in self._exhausted or self._is_hopeless(study)):
                for _ in range(EXHAUSTED):
                    if (record := study.ask()).state != "repeated":
                        break
                else:
                    self._exhausted.add(study.target)
                    self._progress.note(f"{study.target}: the space holds nothing that was not tried")
                    break
                if record.state == "running":
                    if rung := self._rung(study, record):
                        return study, record, rung
                    break  # the next start goes on with it, and nothing that begins without training is asked for
                self._failed(study, record)
        return None

    def _rung(self, study: Study, record: Record) -> Rung | None:
        """The rung that a trial takes now; None: it would not end in time, and waits for the next start.

        What an earlier start left is gone on with: starts that are all shorter than a training get through it, too.
        """

        def fits(rung: Rung) -> bool:
            left, expected = self._left(), study.expected(record.left[rung])
            return record.is_left_over or left is None or expected is None or expected <= left

        rungs = list(record.left)
        rung = following(rungs, study.climbs, fits) if record.rungs else next(filter(fits, rungs[:1]), None)
        if rung is None and study.target not in self._waiting:
            self._waiting.add(study.target)
            self._progress.note(
                f"{study.target}: from now on, trials whose training would not end in time wait for the next start"
            )
        return rung

    def _is_full(self, study: Study) -> bool:
        return self._most is not None and study.counted >= self._most

    def _goes_on(self, study: Study, record: Record) -> bool:
        """Whether a trial goes on from where it is; if not, it is ended."""
        if not record.rungs:
            return True
        if not record.left:
            study.end(record, "complete")
        elif twin := study.twin(record):
            study.end(record, "stopped", f"its limits choose the same channels as those of trial {twin.number}")
        else:
            known = [file.figures for file in self._files(study) if file.trial != record.number]
            figures = record.rungs[record.top]["figures"]
            going, why = may_reach(record.top, figures, study.goal, known, study.climbs)
            if going:
                return True
            study.end(record, "stopped", why)
        self._callback(report_of(self._file(study, record, record.top)))
        return False

    def _took(self, study: Study, record: Record, rung: Rung, outcome: Outcome, seconds: float) -> bool:
        """Keep what came of a rung; returns whether the trial may have another one."""
        if reason := _fault(study.goal, outcome):
            study.end(record, "failed", reason)
            self._failed(study, record)
            return False
        study.note(record, rung.name, {**outcome.value, "seconds": seconds})
        words = file_in_words(study.goal, record.rungs[rung.name]["figures"])
        self._progress.note(f"{study.target}, trial {record.number}, {rung.name}: {words}; {self._state(study)}")
        return True

    def _failed(self, study: Study, record: Record) -> None:
        self._failing.add(study.target)
        self._progress.note(f"{study.target}, trial {record.number} failed: {record.reason}")

    def _is_hopeless(self, study: Study) -> bool:
        """Whether a target gets no more trials, since all failed from the first one on; others go on."""
        failed = sum(record.state == "failed" for record in study.records)
        return study.target in self._failing and failed >= HOPELESS and not any(one.rungs for one in study.records)

    # -- progress -------------------------------------------------------------------------------------------------

    def _left(self) -> float | None:
        return None if self._seconds is None else self._seconds - (time.monotonic() - self._began)

    def _is_late(self) -> bool:
        left = self._left()
        return left is not None and left <= 0

    def _state(self, study: Study) -> str:
        """How far the search is: trials, the best file so far, the time left."""
        done = sum(record.state not in ("running", "repeated") for record in study.records)
        best = study.goal.best(self._files(study), lambda file: file.figures)
        assert best is not None
        title = "best" if study.goal.met(best.figures) else "nearest to the goal"
        words = f"{title}: trial {best.trial}, {file_in_words(study.goal, best.figures)}"
        left = seconds_left(time.monotonic() - self._began, self._left(), done, self._most)
        return progress_in_words(done, self._most, words, left)

    # -- the end --------------------------------------------------------------------------------------------------

    def _file(self, study: Study, record: Record, rung: str) -> Found:
        recipe = next(recipe for step, recipe in record.steps if step.name == rung)
        return Found(study.target, record.number, rung, recipe, record.rungs[rung]["figures"])

    def _files(self, study: Study) -> list[Found]:
        """The file of every rung of every trial."""
        return [
            self._file(study, record, rung)
            for record in study.records
            if record.state != "repeated"
            for rung in record.rungs
        ]

    def _front(self, study: Study) -> tuple[Study, list[Found], Found | None]:
        files = self._files(study)
        best = study.goal.best(files, lambda file: file.figures)
        front = study.goal.front(files, lambda file: file.figures)
        if best is not None and best not in front:  # within a tenth of the smallest, or as good
            front.append(best)
        front.sort(key=lambda file: study.goal.costs(file.figures)[::-1])
        return study, front, best

    def _measured(self, study: Study, executor: Executor) -> tuple[Study, list[Found], Found | None]:
        """The front with its figures on test data, and the run folder of the best file."""
        study, front, best = self._front(study)
        if best is None:
            raise self._nothing(study)
        self._progress.note(f"{study.target}: measures the front of {len(front)} files on test data")
        tested = []
        for file in front:
            made = self._call(executor, functions.test_file, self._setup, study.target, file.recipe.model_dump())
            tested.append(dataclasses.replace(file, test={"value": made["value"], "drop": made["drop"]}))
        picked = tested[front.index(best)]
        where = str(self._best_folder(study).absolute())
        report = self._call(
            executor,
            functions.write_best,
            self._setup,
            study.target,
            best.recipe.model_dump(),
            where,
            self._command,
            here=True,
        )
        picked = dataclasses.replace(picked, gates=report["gates"])
        return study, [picked if file.is_same(picked) else file for file in tested], picked

    def _nothing(self, study: Study) -> EdgepruneError:
        """Why a target has no file at all."""
        failed = [record for record in study.records if record.state == "failed"]
        if self._is_hopeless(study):
            of = f" for {study.target}" if len(self._studies) > 1 else ""
            return EdgepruneError(
                f"The first {len(failed)} trials{of} failed, the last one with: {failed[-1].reason}",
                fix="build one recipe with `edgeprune build` to see what is wrong, or change [search]; a figure that "
                "is not known has to stay out of --objective and of the limits.",
            )
        if not failed:
            return EdgepruneError(
                f"No trial for {study.target} ended well.",
                fix="give the search more --timeout: it ended before the first trial did, and goes on from here.",
            )
        # Of trials of an earlier start, no reason stands above; and where none is left to run, time is no help.
        done = self._is_full(study) or study.target in self._exhausted
        return EdgepruneError(
            f"No trial for {study.target} ended well; the last of {len(failed)} failed with: {failed[-1].reason}",
            fix="change [search] or the rest of the recipe, or give more --trials."
            if done
            else "change the recipe, or give the search more --timeout: it goes on from here.",
        )

    def _best_folder(self, study: Study) -> Path:
        return self._folder / "best" / (study.target if len(self._studies) > 1 else "")

    def _write(self, fronts: list[tuple[Study, list[Found], Found | None]]) -> SearchResult:
        made = [
            Front.of(study.target, study.goal, front, best, self._best_folder(study)) for study, front, best in fronts
        ]
        result = SearchResult({front.target: front for front in made}, self._folder)
        write_results(
            result,
            [(study, front) for study, front, _ in fronts],
            self._facts,
            {
                "command": self._command,
                "seed": self._setup.seed,
                "sampler": self._sampler,
                "deterministic": self._setup.deterministic,
                "model": {"name": source_name(self._setup.model), "source": str(self._setup.model or DEMO)},
                "seconds": time.monotonic() - self._began,
            },
        )
        return result

    def _call(self, executor: Executor, function: Callable[..., Any], *arguments: Any, here: bool = False) -> Any:
        executor.submit(Job(next(self._numbers), function, arguments, here))
        outcome = executor.next()
        assert outcome is not None
        if outcome.error is not None:
            raise outcome.error
        return outcome.value


def _fault(goal: Goal, outcome: Outcome) -> str | None:
    """Why a rung is of no use; an error that is not edgeprune's own is raised."""
    if outcome.error is None:
        is_known = not goal.lacks_latency(outcome.value["figures"])
        return None if is_known else f"the latency of its file is not known: {outcome.value['unknown']}"
    if not isinstance(outcome.error, EdgepruneError) or isinstance(outcome.error, OutputError):
        raise outcome.error  # of a disk that is full, no trial is at fault: it goes on with the next start
    return outcome.error.what
