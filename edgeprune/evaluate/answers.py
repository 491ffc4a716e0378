"""What a file answered on a split, per output: confusion matrices, residuals, and the samples that flipped.

Answers are collected batch by batch in bounded memory: a few numbers per sample, and sums. Outputs with an answer per
position (segmentation, tagging) keep sums and one accuracy per sample.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgeprune.files import JsonObject
from edgeprune.tasks.task import Kind, Output

CONFUSION_CLASSES = 200  # above, neither kept nor reported: the matrix grows with the square
WIDE = 16  # values per sample above which a regression keeps errors only
SAMPLES = 24  # flipped samples that are reported
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BINS = 30  # of a histogram of residuals
IGNORED = -1


class Answers:
    """The answers of one file, sample by sample.

    Args:
        outputs: those of the task, in the model's order; nothing is kept of one whose ``kind`` is None.
        merit: from labels and outputs of a batch to how good each answer is, where that takes all outputs together;
            what is kept goes by the name of the first one.
    """

    def __init__(
        self, outputs: Sequence[Output], merit: Callable[[Any, Sequence[np.ndarray]], np.ndarray] | None = None
    ):
        self._merit = merit
        if merit:
            outputs = [dataclasses.replace(outputs[0], kind="detection"), *outputs[1:]]
        self._outputs = tuple(outputs)
        self._parts = {i: _PARTS[output.kind](output) for i, output in enumerate(outputs) if output.kind}

    def add(self, labels: Any, outputs: Sequence[np.ndarray], masks: Sequence[Any] | None = None) -> None:
        """Count a batch.

        Args:
            labels: in the task's form: an array [batch, ...] of the only output, else a tuple with one per output.
                Classes are numbers or one-hot; numbers outside 0..classes-1 are left out.
            outputs: float [batch, ...], one per output.
            masks: per output None or [batch, positions], zero at positions to leave out.

        Raises:
            ValueError: labels and outputs of an output do not fit each other.
        """
        if self._merit:
            values = np.asarray(self._merit(labels, [np.asarray(output, np.float32) for output in outputs]), np.float32)
            part = self._parts[0]
            part.samples += len(values)
            part.append(quality=values)
            return
        for i, part in self._parts.items():
            mask = None if masks is None or masks[i] is None else np.asarray(masks[i])
            truth = np.asarray(labels[i] if len(self._outputs) > 1 else labels)
            part.add(truth, np.asarray(outputs[i], np.float32), mask)

    def summary(self) -> JsonObject:
        """Figures by name of output, as JSON; what is undefined, such as the precision of a class that was never
        answered, is None.

        Each has ``kind`` and ``samples``. Classes: ``confusion`` (rows truth, columns answers; None above 200 classes)
        and ``per_class``, in the order of the classes, with ``index``, ``precision``, ``recall``, ``f1``, ``support``,
        and ``iou`` where each position has a class. Multi-label: ``per_class``, and ``wrong_labels``, the number of
        samples with 0, 1, … wrong labels. Regression: ``residuals``, truth minus answer, over all
        values that are numbers, and ``per_value`` where a sample has several.
        """
        return {
            part.output.name: {"kind": part.output.kind, "samples": part.samples, **part.summary()}
            for part in self._parts.values()
        }

    def save(self, path: Path) -> None:
        """Write an .npz, without pickled objects."""
        specs = [
            {"name": o.name, "kind": o.kind, "classes": o.classes, "is_logits": o.is_logits} for o in self._outputs
        ]
        arrays = {f"{i}.{name}": values for i, part in self._parts.items() for name, values in part.arrays().items()}
        with open(path, "wb") as file:
            np.savez_compressed(file, outputs=np.array(json.dumps(specs)), **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Answers:
        """What :meth:`save` wrote; to be read only."""
        with np.load(path, allow_pickle=False) as file:
            answers = cls([Output(**spec) for spec in json.loads(str(file["outputs"]))])
            for name in file.files:
                index, _, key = name.partition(".")
                if key:
                    answers._parts[int(index)].restore(key, file[name])
        return answers

    def _part(self, name: str | None) -> _Part | None:
        """That of the output of this name; of the first that has one, if None."""
        return next((part for part in self._parts.values() if name in (None, part.output.name)), None)


def flipped(baseline: Answers, pick: Answers, output: str | None = None, limit: int = SAMPLES) -> JsonObject | None:
    """The samples that two files answer differently, worst first.

    One of several classes: first those that the baseline has right and the pick wrong, by the probability that the true
    class lost. Other kinds: those that became worse, by how much the absolute error, the number of wrong labels or the
    share of wrong positions grew.

    Args:
        baseline: its answers.
        pick: those of another file on the same data.
        output: name of the output; None: the first with labels.
        limit: of samples listed.

    Returns:
        ``output``, ``kind``, ``total`` (samples with another answer), ``broken`` and ``repaired`` (right before and
        wrong now, and the reverse; of other kinds: worse and better), and ``samples`` with ``index`` in the split. None
        if the output has no labels, or the samples are not the same in the same order.
    """
    before, after = baseline._part(output), pick._part(output)
    if before is None or after is None or not before.same_samples(after):
        return None
    differs, broken, repaired = before.changes(after)
    loss = np.nan_to_num(before.merit() - after.merit(), nan=np.inf)
    listed = np.flatnonzero(differs if before.lists_all else broken)
    worst = listed[np.lexsort((listed, -loss[listed], ~broken[listed]))][:limit]
    return {
        "output": before.output.name,
        "kind": before.output.kind,
        "total": int(differs.sum()),
        "broken": int(broken.sum()),
        "repaired": int(repaired.sum()),
        "samples": [{"index": int(i), **before.example(after, int(i))} for i in worst],
    }


class _Part(ABC):
    """The answers of one output: columns with a row per sample, and sums over all samples."""

    lists_all: ClassVar[bool] = False  # whether flips to something equally bad are of interest, too

    def __init__(self, output: Output):
        self.output = output
        self.samples = 0
        self.sums: dict[str, np.ndarray] = {}
        self._columns: dict[str, list[np.ndarray]] = {}

    @abstractmethod
    def add(self, labels: np.ndarray, outputs: np.ndarray, mask: np.ndarray | None) -> None: ...

    @abstractmethod
    def summary(self) -> JsonObject: ...

    @abstractmethod
    def merit(self) -> np.ndarray:
        """How good each answer is, float [samples]; more is better."""

    @abstractmethod
    def example(self, after: Any, i: int) -> JsonObject:
        """What a reader sees of sample ``i``."""

    def changes(self, after: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which samples differ, which of them are worse, and which better: bool [samples] each."""
        old, new = self.merit(), after.merit()
        return old != new, new < old, new > old

    def same_samples(self, other: Any) -> bool:
        """Whether both saw samples with the same labels in the same order, as far as that is kept."""
        kept = "truth" in self._columns
        return self.samples == other.samples and (
            not kept or np.array_equal(self.column("truth"), other.column("truth"))
        )

    def append(self, **columns: np.ndarray) -> None:
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)

    def count(self, **sums: Any) -> None:
        for name, values in sums.items():
            self.sums[name] = np.asarray(values) + self.sums.get(name, 0)

    def column(self, name: str) -> np.ndarray:
        chunks = self._columns.get(name, [np.zeros(0, np.float32)])
        if len(chunks) > 1:
            chunks[:] = [np.concatenate(chunks)]
        return chunks[0]

    def arrays(self) -> dict[str, np.ndarray]:
        columns = {f"column.{name}": self.column(name) for name in self._columns}
        return {"samples": np.array(self.samples), **columns, **{f"sum.{k}": v for k, v in self.sums.items()}}

    def restore(self, key: str, values: np.ndarray) -> None:
        where, _, name = key.partition(".")
        if where == "samples":
            self.samples = int(values)
        elif where == "column":
            self._columns[name] = [values]
        else:
            self.sums[name] = values


class _Classes(_Part):
    """One of several classes per sample."""

    lists_all = True

    def add(self, labels: np.ndarray, outputs: np.ndarray, mask: np.ndarray | None) -> None:
        truth, scores = _truth_and_scores(self.output, labels, outputs)
        if truth.shape[1] != 1:
            raise ValueError(f"{self.output.name}: {truth.shape[1]} labels per sample, expected one class")
        truth, scores = truth[:, 0], scores[:, 0]
        chosen, classes = _chosen(scores, self.output.is_logits), max(scores.shape[-1], 2)
        probabilities = _probabilities(scores, self.output.is_logits)
        rows, small = np.arange(len(truth)), np.int16 if classes < 2**15 else np.int32
        self.samples += len(truth)
        self.append(
            truth=truth.astype(small),
            chosen=chosen.astype(small),
            confidence=probabilities[rows, chosen].astype(np.float16),
            of_truth=np.where(truth >= 0, probabilities[rows, truth], 0).astype(np.float16),
        )
        self.count(**_counts(truth[truth >= 0], chosen[truth >= 0], classes))

    def summary(self) -> JsonObject:
        return {"confusion": _confusion(self.sums), "per_class": _per_class(self.sums)}

    def merit(self) -> np.ndarray:
        return self.column("of_truth").astype(np.float32)

    def changes(self, after: _Classes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        truth, old, new = self.column("truth"), self.column("chosen"), after.column("chosen")
        differs = (old != new) & (truth >= 0)
        return differs, differs & (old == truth), differs & (new == truth)

    def example(self, after: _Classes, i: int) -> JsonObject:
        return {
            "label": int(self.column("truth")[i]),
            "before": int(self.column("chosen")[i]),
            "after": int(after.column("chosen")[i]),
            "confidence_before": _number(self.column("confidence")[i]),
            "confidence_after": _number(after.column("confidence")[i]),
        }


class _Positions(_Part):
    """A class per position: pixels, time steps."""

    def add(self, labels: np.ndarray, outputs: np.ndarray, mask: np.ndarray | None) -> None:
        truth, scores = _truth_and_scores(self.output, labels, outputs)
        if mask is not None:
            truth = np.where(_counted(mask, truth), truth, IGNORED)
        chosen, counted = _chosen(scores, self.output.is_logits), truth >= 0
        right = ((chosen == truth) & counted).sum(axis=1)
        self.samples += len(truth)
        # A sample without any labelled position counts as right, before and after.
        accuracy = np.where(counted.any(axis=1), right / np.maximum(counted.sum(axis=1), 1), 1.0)
        self.append(accuracy=accuracy.astype(np.float32))
        self.count(**_counts(truth[counted], chosen[counted], max(scores.shape[-1], 2)))

    def summary(self) -> JsonObject:
        return {"confusion": _confusion(self.sums), "per_class": _per_class(self.sums, iou=True)}

    def merit(self) -> np.ndarray:
        return self.column("accuracy")

    def example(self, after: _Positions, i: int) -> JsonObject:
        return {"before": float(self.merit()[i]), "after": float(after.merit()[i])}


class _Boxes(_Part):
    """Boxes, which all outputs together make: :class:`Answers` is told how good they are."""

    def add(self, labels: np.ndarray, outputs: np.ndarray, mask: np.ndarray | None) -> None:
        raise AssertionError("boxes are made by all outputs together")

    def summary(self) -> JsonObject:
        return {}

    def merit(self) -> np.ndarray:
        return self.column("quality")

    def example(self, after: _Boxes, i: int) -> JsonObject:
        return {"before": _number(self.merit()[i]), "after": _number(after.merit()[i])}


class _Labels(_Part):
    """Any number of labels per sample."""

    def add(self, labels: np.ndarray, outputs: np.ndarray, mask: np.ndarray | None) -> None:
        scores = outputs.reshape(len(outputs), -1)
        given = _fitting(self.output, labels, scores)
        known = (given >= 0) & (given <= 1)
        if mask is not None:
            known &= _counted(mask, scores)
        truth = known & (given >= 0.5)
        answer = known & (scores > (0.0 if self.output.is_logits else 0.5))
        self.samples += len(scores)
        self.append(wrong=(truth != answer).sum(axis=1).astype(np.int32))
        self.count(support=truth.sum(axis=0), answered=answer.sum(axis=0), right=(truth & answer).sum(axis=0))

    def summary(self) -> JsonObject:
        wrong = self.column("wrong").astype(np.int64)
        return {"per_class": _per_class(self.sums), "wrong_labels": np.bincount(wrong).tolist()}

    def merit(self) -> np.ndarray:
        return -self.column("wrong").astype(np.int64)

    def example(self, after: _Labels, i: int) -> JsonObject:
        return {"before": int(self.column("wrong")[i]), "after": int(after.column("wrong")[i])}


class _Values(_Part):
    """Numbers: up to 16 per sample are kept; of more, the mean absolute error and the distribution of residuals."""

    def add(self, labels: np.ndarray, outputs: np.ndarray, mask: np.ndarray | None) -> None:
        answer = outputs.reshape(len(outputs), -1)
        truth = _fitting(self.output, labels, answer).astype(np.float32)
        counted = None if mask is None else _counted(mask, answer)
        self.samples += len(answer)
        if answer.shape[1] <= WIDE:
            self.append(truth=truth, answer=answer, **({} if counted is None else {"counted": counted}))
            return
        residuals = truth - answer
        self.append(error=_mean_error(residuals, counted).astype(np.float32))
        residuals = residuals if counted is None else residuals[counted]
        finite = residuals[np.isfinite(residuals)]
        exact = finite.astype(np.float64)
        # The upper half of a float32 is its sign, exponent and 7 bits: bins of constant relative width, under 0.8 %.
        self.count(
            bins=np.bincount(finite.view(np.uint32) >> 16, minlength=1 << 16),
            sum=exact.sum(), squares=(exact**2).sum(), absolute=np.abs(exact).sum(),
            not_finite=residuals.size - finite.size,
        )  # fmt: skip

    def summary(self) -> JsonObject:
        if "bins" in self.sums:
            return {"residuals": self._of_bins()}
        residuals = (self.column("truth") - self.column("answer")).astype(np.float64)
        lost, counted = ~np.isfinite(residuals), self._counted()
        if counted is not None:
            lost &= counted
            residuals[~counted] = np.nan
        values = residuals[np.isfinite(residuals)]
        figures = {
            **_moments(residuals),
            "not_finite": int(lost.sum()),
            **_distribution(np.sort(values), np.ones(values.size, np.int64)),
        }
        several = residuals.ndim == 2 and residuals.shape[1] > 1
        return {
            "residuals": figures,
            **({"per_value": [_moments(residuals[:, i]) for i in range(residuals.shape[1])]} if several else {}),
        }

    def _of_bins(self) -> JsonObject:
        if not self.sums["bins"].any():
            nothing = np.zeros(0)
            return {**_moments(nothing), "not_finite": int(self.sums["not_finite"]), **_distribution(nothing, nothing)}
        numbers = np.flatnonzero(self.sums["bins"])
        middles = ((numbers.astype(np.uint32) << 16) | 0x8000).view(np.float32).astype(np.float64)
        middles[np.isin(numbers, (0, 0x8000))] = 0.0  # from zero to the smallest numbers
        order = np.argsort(middles, kind="stable")
        counts = self.sums["bins"][numbers]
        total = int(counts.sum())
        mean, mean_square = float(self.sums["sum"]) / total, float(self.sums["squares"]) / total
        return {
            "mean": mean,
            "std": float(np.sqrt(max(mean_square - mean**2, 0.0))),
            "mean_abs": float(self.sums["absolute"]) / total,
            "not_finite": int(self.sums["not_finite"]),
            **_distribution(middles[order], counts[order]),
        }

    def _counted(self) -> np.ndarray | None:
        """Which of the values that are kept count, where padding does not."""
        return self.column("counted") if "counted" in self._columns else None

    def merit(self) -> np.ndarray:
        error = self.column("error")
        if "bins" not in self.sums:
            error = _mean_error(self.column("truth") - self.column("answer"), self._counted())
        return np.where(np.isnan(error), -np.inf, -error)

    def example(self, after: _Values, i: int) -> JsonObject:
        if "bins" in self.sums:
            return {"before": _number(self.column("error")[i]), "after": _number(after.column("error")[i])}
        columns = {"truth": self.column("truth"), "before": self.column("answer"), "after": after.column("answer")}
        return {key: [_number(value) for value in values[i]] for key, values in columns.items()}


_PARTS: dict[Kind, type[_Part]] = {
    "classification": _Classes,
    "detection": _Boxes,
    "multilabel": _Labels,
    "regression": _Values,
    "segmentation": _Positions,
    "sequence": _Positions,
}


def _truth_and_scores(output: Output, labels: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers, int64 [batch, positions], -1 where left out; and scores, [batch, positions, classes or 1]."""
    batch = len(outputs)
    one_unit = outputs.ndim == 1 or (output.classes == 2 and outputs.shape[-1] != 2)
    scores = outputs.reshape(batch, -1, 1 if one_unit else outputs.shape[-1])
    positions, width = scores.shape[1:]
    if labels.size == batch * positions:
        truth = labels.reshape(batch, positions).astype(np.int64)
    else:
        one_hot = _fitting(output, labels, outputs.reshape(batch, -1)).reshape(scores.shape)
        truth = np.where(one_hot.any(axis=-1), one_hot.argmax(axis=-1), IGNORED)
    outside = (truth < 0) | (truth >= max(width, 2)) | (truth == _ignore_class(output))
    return np.where(outside, IGNORED, truth), scores


def _counted(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which values of a sample count, bool [batch, values]; of a step with several values, the mask is of all."""
    return np.repeat(mask.reshape(len(values), -1) != 0, values.shape[1] // mask[0].size, axis=1)


def _mean_error(residuals: np.ndarray, counted: np.ndarray | None) -> np.ndarray:
    """The mean absolute error of each sample; 0 for one of which nothing counts."""
    errors = np.abs(residuals).reshape(len(residuals), -1)
    if counted is None:
        return errors.mean(axis=1)
    return np.where(counted, errors, 0).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)


def masks_of(output: Output, labels: np.ndarray, outputs: np.ndarray | None) -> np.ndarray:
    """The class of each pixel, int64 [batch, height, width], -1 where it does not count.

    Args:
        output: with a class per pixel.
        labels: in the task's form.
        outputs: the answers; None: the labels themselves.
    """
    shape = labels.shape[:3]
    scores = np.zeros((*shape, output.width), np.float32) if outputs is None else outputs
    truth, scores = _truth_and_scores(output, labels, scores)
    chosen = truth if outputs is None else _chosen(scores, output.is_logits)
    return chosen.reshape(shape)


def _ignore_class(output: Output) -> int:
    """The class that the recipe or a loss leaves out, which may be a number like any other."""
    config: JsonObject = getattr(output.loss, "get_config", dict)()
    stated = output.stated.ignore if output.stated else None
    ignored = config.get("ignore_class") if stated is None else stated
    return IGNORED if ignored is None else int(ignored)


def _fitting(output: Output, labels: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Labels in the shape [batch, values] of the outputs."""
    if labels.size != flat.size:
        raise ValueError(f"{output.name}: labels of shape {labels.shape} for {flat.shape[1]} values per sample")
    return labels.reshape(flat.shape)


def _chosen(scores: np.ndarray, is_logits: bool) -> np.ndarray:
    """Classes answered, int64; one unit is the second of two classes where it is above one half."""
    if scores.shape[-1] == 1:
        return (scores[..., 0] > (0.0 if is_logits else 0.5)).astype(np.int64)
    return scores.argmax(axis=-1)


def _probabilities(scores: np.ndarray, is_logits: bool) -> np.ndarray:
    """Per class, [batch, classes], two of them for one unit; scores of another scale are cut to 0..1."""
    if scores.shape[-1] == 1:
        scores = np.concatenate([np.zeros_like(scores) if is_logits else 1 - scores, scores], axis=-1)
    if not is_logits:
        return np.clip(scores, 0, 1)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _counts(truth: np.ndarray, chosen: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Sums over [positions]: per class, and of pairs of classes where they are few."""
    counts = {
        "support": np.bincount(truth, minlength=classes),
        "answered": np.bincount(chosen, minlength=classes),
        "right": np.bincount(truth[truth == chosen], minlength=classes),
    }
    if classes <= CONFUSION_CLASSES:
        pairs = np.bincount(truth * classes + chosen, minlength=classes**2)
        counts["confusion"] = pairs.reshape(classes, classes)
    return counts


def _confusion(sums: dict[str, np.ndarray]) -> list[list[int]] | None:
    return sums["confusion"].tolist() if "confusion" in sums else None


def _per_class(sums: dict[str, np.ndarray], iou: bool = False) -> list[JsonObject]:
    counts = (sums.get(key, np.zeros(0, np.int64)).tolist() for key in ("support", "answered", "right"))
    return [
        {
            "index": index,
            "precision": _ratio(right, answered),
            "recall": _ratio(right, support),
            "f1": _ratio(2 * right, support + answered),
            "support": support,
            **({"iou": _ratio(right, support + answered - right)} if iou else {}),
        }
        for index, (support, answered, right) in enumerate(zip(*counts, strict=True))
    ]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _number(value: Any) -> float | None:
    """For JSON, which has no NaN."""
    return float(value) if np.isfinite(value) else None


def _moments(residuals: np.ndarray) -> JsonObject:
    """Of the finite ones; None where there are none."""
    finite = residuals[np.isfinite(residuals)]
    if not finite.size:
        return {"mean": None, "std": None, "mean_abs": None}
    return {"mean": float(finite.mean()), "std": float(finite.std()), "mean_abs": float(np.abs(finite).mean())}


def _distribution(values: np.ndarray, counts: np.ndarray) -> JsonObject:
    """Quantiles and a histogram of sorted values that occur ``counts`` times.

    The histogram reaches from the 0.5 % to the 99.5 % quantile, so that single outliers do not squeeze the rest into
    one bin; its first and last bin also hold what is beyond.
    """
    if not values.size:
        return {"quantiles": {f"{q:g}": None for q in QUANTILES}, "histogram": {"edges": [], "counts": []}}
    low, high = _quantile(values, counts, 0.005), _quantile(values, counts, 0.995)
    heights, edges = np.histogram(np.clip(values, low, high), BINS, (low, high), weights=counts)
    return {
        "quantiles": {f"{q:g}": _quantile(values, counts, q) for q in QUANTILES},
        "histogram": {"edges": edges.tolist(), "counts": heights.astype(np.int64).tolist()},
    }


def _quantile(values: np.ndarray, counts: np.ndarray, q: float) -> float:
    """``np.quantile`` of sorted values, each repeated ``counts`` times: linear between neighbours."""
    ends = np.cumsum(counts)
    place = q * (int(ends[-1]) - 1)
    below, above = (values[np.searchsorted(ends, rank, side="right")] for rank in (np.floor(place), np.ceil(place)))
    return float(below + (above - below) * (place - np.floor(place)))
