"""What a search hands over: the fronts, search.json, trials.csv and report.html."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune._version import __version__
from edgeprune.files import JsonObject, output_errors, write_bytes, write_json
from edgeprune.recipe.config import Recipe
from edgeprune.searching.goal import Goal

if TYPE_CHECKING:
    from edgeprune.searching.study import Record, Study


@dataclasses.dataclass(frozen=True)
class Trial:
    """A file that a trial built, with its figures.

    Attributes:
        number: of the trial, counted from 0 for each target.
        rung: how far it was trained: ``reconstructed``, ``few epochs`` or ``full``.
        recipe: what a build of the file takes.
        value: the metric on validation data.
        drop: how much worse than the unpruned float32 file: in points of a fraction, else in the metric's unit.
        latency_ms: estimated for the target; None: nothing is known about its speed.
        bytes, gzip_bytes: of the file.
        test_value, test_drop: the same on test data; None: it is not of the front.
    """

    target: str
    number: int
    rung: str
    recipe: Recipe
    value: float
    drop: float
    latency_ms: float | None
    bytes: int
    gzip_bytes: int
    test_value: float | None = None
    test_drop: float | None = None


@dataclasses.dataclass(frozen=True)
class Front:
    """The files for one target that no other one beats in all objectives.

    Attributes:
        trials: from the smallest to the largest.
        best: the one handed over, chosen on validation data; None: the search was ended before there was one.
        met: whether it meets the goal: on test data, where that was read.
        message: whether, and if not by how much it misses which limit.
        folder: the run folder of the best file.
    """

    target: str
    trials: tuple[Trial, ...]
    best: Trial | None
    met: bool
    message: str
    folder: Path

    @staticmethod
    def of(target: str, goal: Goal, front: Sequence[Found], best: Found | None, folder: Path) -> Front:
        met, message = verdict(goal, best)
        return Front(
            target, tuple(map(report_of, front)), None if best is None else report_of(best), met, message, folder
        )


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The fronts of a search by target, and its run folder."""

    fronts: dict[str, Front]
    folder: Path

    @property
    def front(self) -> Front:
        """The front of the first target."""
        return next(iter(self.fronts.values()))

    @property
    def met(self) -> bool:
        """Whether the goal is met for every target."""
        return all(front.met for front in self.fronts.values())


@dataclasses.dataclass(frozen=True)
class Found:
    """A file while the search runs. ``gates``: of the one handed over, as in report.json."""

    target: str
    trial: int
    rung: str
    recipe: Recipe
    figures: Mapping[str, Any]
    test: Mapping[str, float] | None = None
    gates: Sequence[Mapping[str, Any]] | None = None

    def is_same(self, other: Found) -> bool:
        return (self.trial, self.rung) == (other.trial, other.rung)


def report_of(file: Found) -> Trial:
    figures = file.figures
    return Trial(
        file.target, file.trial, file.rung, file.recipe,
        *(figures[key] for key in ("value", "drop", "latency_ms", "bytes", "gzip_bytes")),
        *((file.test["value"], file.test["drop"]) if file.test else (None, None)),
    )  # fmt: skip


def verdict(goal: Goal, best: Found | None) -> tuple[bool, str]:
    """Whether the goal is met, and a sentence about it. Of a file that was tested, its gates decide."""
    if best is None:
        return False, "No trial has ended well yet."
    who = f"trial {best.trial} ({best.rung})"
    if best.gates is not None:
        rows, split = [(gate["name"], gate["value"], gate["limit"]) for gate in best.gates], "test"
    else:
        set_ = dataclasses.asdict(goal.limits)
        rows = [
            (gate, best.figures[key], most) for gate, (key, most) in goal.bounds().items() if set_[gate] is not None
        ]
        split = "validation"
    if not rows:
        return True, f"No limit was set; the pick is {who}."
    missed = [row for row in rows if not row[1] <= row[2]]
    kept = [_kept(goal, *row) for row in rows if row not in missed]
    if not missed:
        return True, f"The goal is met by {who}: {', '.join(kept)}, on {split} data."
    text = " and ".join(_missed(goal, *row) for row in missed)
    rest = f"; it keeps {', '.join(kept)}" if kept else ""
    return False, f"The goal is not met. Nearest is {who}: {text}, on {split} data{rest}."


def _amount(goal: Goal, gate: str, value: float) -> str:
    if gate == "max_drop":
        return f"{value:.2f} points" if goal.metric.points == 100 else f"{value:.4g}"
    return f"{value:.4g} ms" if gate == "max_latency" else f"{value:,.0f} bytes"


def _missed(goal: Goal, gate: str, value: float, limit: float) -> str:
    amounts = [_amount(goal, gate, number) for number in (value - limit, value, limit)]
    return f"{gate} is missed by {amounts[0]} ({amounts[1]}, at most {amounts[2]})"


def _kept(goal: Goal, gate: str, value: float, limit: float) -> str:
    return f"{gate} with {_amount(goal, gate, value)} of at most {_amount(goal, gate, limit)}"


def write_results(
    result: SearchResult, fronts: Sequence[tuple[Study, Sequence[Found]]], facts: JsonObject, about: JsonObject
) -> None:
    """Write search.json, trials.csv and report.html, each atomically.

    Raises:
        OutputError: the folder cannot be written to.
    """
    from edgeprune.report.search import render

    document = _document(result, fronts, facts, about)
    with output_errors(result.folder):
        write_json(result.folder / "search.json", document)
        write_bytes(result.folder / "trials.csv", _csv(document).encode())
        write_bytes(result.folder / "report.html", render(document).encode())


def _document(
    result: SearchResult, fronts: Sequence[tuple[Study, Sequence[Found]]], facts: JsonObject, about: JsonObject
) -> JsonObject:
    return {
        "schema_version": 1,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "edgeprune_version": __version__,
        **about,
        "model": {**about["model"], **facts["model"]},
        "data": facts["data"],
        "metric": facts["metric"],
        "targets": [_target(result.fronts[study.target], study, front, facts, result) for study, front in fronts],
    }


def _target(front: Front, study: Study, files: Sequence[Found], facts: JsonObject, result: SearchResult) -> JsonObject:
    return {
        "name": study.target,
        "objectives": list(study.goal.objectives),
        "limits": {gate: most for gate, (_, most) in study.goal.bounds().items()},
        "reference": facts["reference"][study.target]["figures"],
        "met": front.met,
        "message": front.message,
        "best": None
        if front.best is None
        else {
            "trial": front.best.number,
            "rung": front.best.rung,
            # Absent where the search was ended before its front was measured.
            "folder": str(front.folder.relative_to(result.folder)) if front.best.test_value is not None else None,
        },
        "front": [
            {"trial": file.trial, "rung": file.rung, **file.figures, "test": dict(file.test) if file.test else None}
            for file in files
        ],
        "importances": study.importances(),
        "space": study.space.to_json(),
        "trials": [_trial(record) for record in sorted(study.records, key=lambda record: record.number)],
    }


def _trial(record: Record) -> JsonObject:
    recipes = {rung.name: recipe for rung, recipe in record.steps}
    reached = recipes.get(record.top) if record.rungs else record.recipe
    return {
        "number": record.number,
        "state": record.state,
        "reason": record.reason,
        "params": record.params,
        "recipe": None if reached is None else reached.model_dump(mode="json", exclude_defaults=True),
        "rungs": {} if record.state == "repeated" else record.rungs,
    }


FIGURES = ("value", "drop", "latency_ms", "bytes", "gzip_bytes", "flash_bytes", "ram_bytes", "params", "macs")


def _csv(document: JsonObject) -> str:
    """A row per rung of each trial, and one for each trial that reached none."""
    keys = list(dict.fromkeys(key for target in document["targets"] for key in target["space"]))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["target", "trial", "state", "reason", "rung", "seconds", "front", *FIGURES, *keys])
    for target in document["targets"]:
        front = {(file["trial"], file["rung"]) for file in target["front"]}
        for trial in target["trials"]:
            params = [json.dumps(value) if isinstance(value, dict | list) else value for value in
                      (trial["params"].get(key, "") for key in keys)]  # fmt: skip
            for rung, made in (trial["rungs"] or {"": {}}).items():
                figures = made.get("figures", {})
                writer.writerow(
                    [
                        target["name"],
                        trial["number"],
                        trial["state"],
                        trial["reason"],
                        rung,
                        f"{made['seconds']:.2f}" if made else "",
                        int((trial["number"], rung) in front),
                        *(figures.get(key, "") for key in FIGURES),
                        *params,
                    ]
                )
    return out.getvalue()
