"""How much the loss rises when a group loses its least important channels, measured without training.

Each point zeroes some channels of one group and evaluates the model once (Li et al. 2017, arXiv:1608.08710, section
3.2, prune single layers in this way; here it is groups). One traced model serves all points: channels are zeroed by
assignment. Each point is saved as soon as it is measured, so that an interrupted measurement continues where it was.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.durations import duration
from edgeprune.files import output_errors, write_bytes
from edgeprune.progress import Progress
from edgeprune.prune.channels.graph import Graph, Group
from edgeprune.prune.channels.masking import Switchboard
from edgeprune.prune.choice.criteria import Scores
from edgeprune.tasks.task import evaluation_batch

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.data import Split
    from edgeprune.tasks.task import Task

RATES = (0.1, 0.3, 0.5, 0.7, 0.9)
# A sample up to this size is decoded once and kept; a larger one is read again for every point.
HELD_BYTES = 256 * 2**20

Orders = dict[str, list[int]]  # group name → its units that may go, by their numbers, the least important first


@dataclasses.dataclass(frozen=True)
class Point:
    """One measurement: the first ``removed`` channels of a group's order zeroed.

    ``metric`` is the task's, ``loss`` the mean per sample; both are measured on the same validation samples.
    """

    group: str
    removed: int
    metric: float
    loss: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Curves:
    """All points of a model; ``baseline`` is the point at which nothing is removed."""

    baseline: Point
    points: tuple[Point, ...]

    def of(self, group: Group) -> list[Point]:
        """The points of one group by rising rate, the baseline first."""
        return [self.baseline, *sorted((p for p in self.points if p.group == group.name), key=lambda p: p.removed)]

    def loss_rise(self, group: Group) -> tuple[np.ndarray, np.ndarray]:
        """Rates (fraction of the group's channels, from 0) and the rise of the loss at each, made monotone.

        A loss below the baseline counts as no rise; one that is not a number as a thousand times the baseline's.
        """
        points = self.of(group)
        worst = 1000 * max(abs(self.baseline.loss), 1.0)
        rises = [p.loss - self.baseline.loss if math.isfinite(p.loss) else worst for p in points]
        rates = np.array([p.removed / group.size for p in points])
        return rates, np.maximum.accumulate(np.maximum(rises, 0.0))


def orders(graph: Graph, scores: Scores) -> Orders:
    """The units of each group that may go, the least important first; frozen groups are left out."""
    free = {group.name: group.free for group in graph.groups if not group.frozen}
    return {name: units[np.argsort(scores[name][units], kind="stable")].tolist() for name, units in free.items()}


def counts_at(group: Group, order: Sequence[int], rates: Iterable[float]) -> list[int]:
    """Channels removed at each rate: the nearest number that can go, at least one, and one stays. No number twice."""
    most = min(len(order), group.size - 1)
    return sorted({min(max(round(rate * group.size), 1), most) for rate in rates} - {0})


def measure(
    graph: Graph,
    score: Callable[[], Scores],
    split: Split,
    task: Task,
    journal: Journal,
    rates: Sequence[float] = RATES,
    skip: Iterable[str] = (),
    progress: Progress | None = None,
) -> tuple[Curves, Orders]:
    """Measure every group that is not frozen at every rate, each alone.

    Args:
        score: gives the importance of every channel; called only if the journal does not know the order yet.
        split: the validation samples that are evaluated, all of them, once per point.
        journal: holds the points measured before, and receives the new ones.
        skip: names of groups that are not measured.
        progress: hears how long it will take, before it starts, and every point.

    Raises:
        OutputError: the journal cannot be written.
    """
    progress = progress or Progress()
    order = journal.orders or journal.begin(orders(graph, score()))
    wanted = [
        (group, count)
        for group in graph.groups
        if group.name in order and group.name not in set(skip)
        for count in counts_at(group, order[group.name], rates)
    ]
    known = {(p.group, p.removed): p for p in journal.points}
    missing = [(group, count) for group, count in wanted if (group.name, count) not in known]
    if missing or ("", 0) not in known:
        for point in _measured(graph, order, missing, ("", 0) not in known, split, task, known, progress):
            journal.add(point)
            known[point.group, point.removed] = point
    points = tuple(known[group.name, count] for group, count in wanted)
    return Curves(known["", 0], points), order


def _measured(
    graph: Graph,
    order: Orders,
    missing: Sequence[tuple[Group, int]],
    baseline: bool,
    split: Split,
    task: Task,
    known: dict[tuple[str, int], Point],
    progress: Progress,
) -> Iterable[Point]:
    """Measure the missing points one by one, the baseline first: its time predicts that of the others."""
    switchboard = Switchboard(graph)
    evaluate = _evaluation(switchboard.model, split, task)
    if baseline:
        point = evaluate("", 0)
        yield point
    else:
        point = known["", 0]
    pass_seconds = float(np.median([point.seconds, *(p.seconds for p in known.values())]))
    progress.note(
        f"{len(missing)} points of {split.size:,} samples to measure, about {duration(len(missing) * pass_seconds)} "
        f"(one pass takes {pass_seconds:.2f} s)"
        + (f"; {len(known) - 1} points were measured before" if len(known) > 1 else "")
    )
    progress.begin("sensitivity", len(missing))
    for group, count in missing:
        switchboard.set(kept(graph, group, order[group.name][:count]))
        yield evaluate(group.name, count)
        progress.advance()
    progress.end()


def kept(graph: Graph, group: Group, gone: Sequence[int]) -> np.ndarray:
    """bool [units]: all but the units ``gone`` of one group; no layer is left without channels."""
    keep = np.ones(len(graph.units), bool)
    keep[group.units[np.asarray(gone, int)]] = False
    for vector in graph.nonempty:
        if len(vector) and not keep[vector].any():
            keep[vector[0]] = True
    return keep


def _evaluation(model: tf_keras.Model, split: Split, task: Task) -> Callable[[str, int], Point]:
    """A function that evaluates the model as it is at the moment and names the point. Traced once, warmed up."""
    import tensorflow as tf

    from edgeprune.data import data_errors

    loss_of = task.loss_function()
    forward = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
    with data_errors():
        at_once = evaluation_batch(split.spec)
        batches: Any = tf.data.Dataset.zip((split.batches(at_once), task.judged(split).batches(at_once)))
        if task.judged(split) is split:  # the labels that figures are counted on are those of the loss
            batches = split.batches(at_once).map(lambda *batch: (batch, batch))
        head = next(iter(split.batches(1)))
        sample_bytes = sum(int(tf.size(part)) * part.dtype.size for part in tf.nest.flatten(head))
        if sample_bytes * split.size <= HELD_BYTES:
            batches = list(batches)
        forward(next(iter(batches))[0][0])

    def evaluate(group: str, removed: int) -> Point:
        started = time.monotonic()
        meter, loss, samples = task.meter(), 0.0, 0
        with data_errors():
            for (x, y, *w), (_, truth, *own) in batches:
                outputs = tf.nest.flatten(forward(x))
                meter.update(x, truth, outputs, *own)
                size = len(outputs[0])
                loss += float(loss_of(y, outputs, *w)) * size
                samples += size
        return Point(group, removed, task.value(meter.result()), loss / samples, time.monotonic() - started)

    return evaluate


class Journal:
    """Points on disk, one JSON line each, under a key: the hash of everything that decides them.

    The first line holds the key and the order of the channels. An incomplete last line is dropped; a file of
    another key is replaced.

    Attributes:
        orders: the order that the points were measured in; None: nothing is there.
        points: what was measured so far.
    """

    def __init__(self, path: Path, key: str):
        self.path, self.key = path, key
        self.orders: Orders | None = None
        self.points: list[Point] = []
        lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
        try:
            head = json.loads(lines[0]) if lines else {}
            if isinstance(head, dict) and head.get("key") == key:
                self.points = [Point(**json.loads(line)) for line in lines[1:]]
                self.orders = head["orders"]
                write_bytes(path, b"".join(line + b"\n" for line in lines))
        except (ValueError, TypeError, KeyError):  # not what a journal holds: measured anew
            self.orders, self.points = None, []

    def begin(self, orders: Orders) -> Orders:
        """Start the file anew with this order."""
        write_bytes(self.path, json.dumps({"key": self.key, "orders": orders}).encode() + b"\n")
        self.orders, self.points = orders, []
        return orders

    def add(self, point: Point) -> None:
        """Append a point; it is on the disk when this returns."""
        with output_errors(self.path), open(self.path, "ab") as file:
            file.write(json.dumps(dataclasses.asdict(point)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.points.append(point)
