"""Detection: a model whose data have boxes. Measured by mean average precision, trained by the unpruned model or by a
loss of the user's.

What the outputs mean is declared in the recipe's ``[detection]`` and computed in ``decoding.py``. Figures are those of
pycocotools: map (over overlaps from .5 to .95), map50, and both per class.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import inspect
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.code import load_function, users_code
from edgeprune.data.images.annotations import CROWD, DIFFICULT, PLAIN
from edgeprune.data.images.boxes import frame_boxes
from edgeprune.errors import DataError, MissingError, RecipeError
from edgeprune.files import JsonObject
from edgeprune.models.types import Structure
from edgeprune.recipe.config import DetectionConfig, TaskConfig
from edgeprune.tasks import decoding
from edgeprune.tasks.box_answers import answered, quality
from edgeprune.tasks.losses import as_object
from edgeprune.tasks.metrics import of_loss
from edgeprune.tasks.task import Figures, Metric, Output, Task

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.data import Data, Split
    from edgeprune.recipe.config import BoxesConfig

MAP, MAP50 = "map", "map50"
# How many outputs a head takes; None: one, or one per stride.
OUTPUTS: dict[str, tuple[int, ...] | None] = {"ssd": (2,), "boxes": (1, 2), "postprocess": (4,)}
ANCHORED = ("ssd", "yolo-v3", "yolo-v5")
SCORE_SLACK = 1e-3  # of rounding, above 1 and below 0


@dataclasses.dataclass(frozen=True)
class Head:
    """What a detector's outputs mean.

    Attributes:
        facts: what :func:`edgeprune.tasks.decoding.detect` takes, but for the anchors; JSON.
        anchors: float32 [anchors, 4] of ``head = "ssd"``; None: those in ``facts``, or none.
        order: positions of the outputs in the order of the head.
        function: the user's, in place of a head; else None.
        resize: how images become inputs.
        fill: value around letterboxed images.
    """

    facts: JsonObject
    anchors: np.ndarray | None
    order: tuple[int, ...]
    function: Callable[..., Any] | None
    resize: str
    fill: int

    @functools.cached_property
    def _full(self) -> JsonObject:
        return self.facts if self.anchors is None else {**self.facts, "anchors": self.anchors}

    def detect(self, outputs: Sequence[np.ndarray], own: Sequence[float]) -> decoding.Found:
        """The boxes of one image, in its pixels.

        Args:
            outputs: without the batch, in the model's order.
            own: (height, width) of the image in pixels.

        Raises:
            RecipeError: outputs that do not fit the head, or what the user's function gives.
        """
        ordered = [np.asarray(outputs[i], np.float32) for i in self.order]
        if self.function is not None:
            boxes, scores, classes = self._called(ordered)
        else:
            try:
                boxes, scores, classes = decoding.detect(ordered, self._full)
            except (ValueError, IndexError) as error:
                raise self._unfit(str(error), ordered) from error
        size = [int(side) for side in own]
        return decoding.undo(boxes, size, self.facts["size"], self.resize), scores, classes

    def _called(self, outputs: list[np.ndarray]) -> decoding.Found:
        name = self.facts["head"]
        assert self.function is not None
        with users_code(f"The function {name}", RecipeError):
            found = self.function(outputs)
        try:
            boxes, scores, classes = (np.asarray(part, np.float32) for part in found)
            count = len(scores)
            boxes = boxes.reshape(count, 4)
            fits = (
                scores.shape == classes.shape == (count,) and np.isin(classes, np.arange(self.facts["classes"])).all()
            )
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise RecipeError(
                f"{name} does not give boxes, scores and classes of one image.",
                expected="three arrays: boxes [n, 4] as x1, y1, x2, y2 in fractions of the model's input, scores [n], "
                f"and class numbers [n] from 0 to {self.facts['classes'] - 1}.",
            )
        return decoding.best(boxes, scores, classes.astype(np.int64), self.facts["max_detections"])

    def _unfit(self, reason: str, outputs: Sequence[np.ndarray]) -> RecipeError:
        shapes = ", ".join(str(list(output.shape)) for output in outputs)
        return RecipeError(
            f'The outputs of the model ({shapes}) are not as [detection] head = "{self.facts["head"]}" says: {reason}.',
            expected=f"the head that the model has, for {self.facts['classes']} classes.",
            fix='correct [detection], or write head = "file.py:function" with a function of your own: outputs of one '
            "image in, boxes, scores and classes out.",
        )


def head_of(
    config: DetectionConfig, data: Data, names: Sequence[Sequence[str]], shapes: Sequence[Sequence[int | None]]
) -> Head:
    """The head that a recipe declares, for a model.

    Args:
        config: ``[detection]``.
        data: with boxes.
        names: of each output.
        shapes: of each output, without the batch.

    Raises:
        RecipeError: anchors that cannot be read or do not fit; outputs that cannot be told apart.
    """
    assert data.boxes is not None
    assert data.class_names is not None
    (height, width, *_) = data.train.spec.shapes[0]
    facts = config.model_dump(mode="json", exclude={"outputs"}, exclude_none=True)
    kind, anchors, function = config.head, None, None
    if kind == "ssd":
        anchors = _read_anchors(facts.pop("anchors"))
    elif ":" in kind:
        function = load_function(kind, RecipeError)
    grids = kind.startswith("yolo")
    facts["activation"] = config.activation or ("sigmoid" if grids else "none")
    facts |= {"size": [height, width], "classes": len(data.class_names)}
    order = _order(config, names, shapes, None if function else OUTPUTS.get(kind, (1, len(config.strides))))
    return Head(facts, anchors, order, function, data.boxes.resize, data.boxes.fill)


def _read_anchors(path: str) -> np.ndarray:
    try:
        anchors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RecipeError(
            f"The anchors {path} of [detection] cannot be read: {error}.",
            expected="an .npy file of shape [anchors, 4]; relative paths start at the working folder.",
        ) from None
    if not isinstance(anchors, np.ndarray) or anchors.dtype.kind != "f" or anchors.ndim != 2 or anchors.shape[1] != 4:
        raise RecipeError(
            f"The anchors {path} are of type {anchors.dtype} and shape {list(anchors.shape)}.",
            expected="floats [anchors, 4], in fractions of the model's input.",
        )
    if not np.isfinite(anchors).all() or np.abs(anchors).max() > 4:
        raise RecipeError(
            f"The anchors {path} go from {anchors.min():g} to {anchors.max():g}.",
            expected="fractions of the model's input, about 0 to 1.",
            fix="divide anchors in pixels by the size of the model's input.",
        )
    return anchors.astype(np.float32)


def _order(
    config: DetectionConfig,
    names: Sequence[Sequence[str]],
    shapes: Sequence[Sequence[int | None]],
    counts: tuple[int, ...] | None,
) -> tuple[int, ...]:
    """Positions of the outputs in the order that the head takes them."""
    firsts = [own[0] for own in names]
    if config.outputs is not None:
        places = [next((i for i, own in enumerate(names) if name in own), None) for name in config.outputs]
        if None in places:
            unknown = config.outputs[places.index(None)]
            raise RecipeError(
                f"[detection] outputs names {unknown!r}; the model's outputs are: {', '.join(firsts)}.",
                fix="correct the name.",
            )
        order = tuple(place for place in places if place is not None)
    elif config.head in ("ssd", "boxes") and len(names) == 2:
        boxes = [i for i, shape in enumerate(shapes) if shape and shape[-1] == 4]
        if len(boxes) != 1:
            raise _unordered(config, firsts, "which of them has the boxes cannot be told by their shapes")
        order = (boxes[0], 1 - boxes[0])
    elif config.head.startswith("yolo") and len(names) > 1:
        sizes = [int(np.prod([side or 1 for side in shape])) for shape in shapes]
        if len(set(sizes)) < len(sizes):
            raise _unordered(config, firsts, "their strides cannot be told by their shapes")
        # The smaller the stride, the more cells; outputs follow the strides, in whichever order these stand.
        largest = sorted(range(len(sizes)), key=lambda i: -sizes[i])
        ranks = np.argsort(np.argsort(config.strides))
        order = tuple(largest[rank] for rank in ranks) if len(ranks) == len(sizes) else tuple(range(len(names)))
    else:
        order = tuple(range(len(names)))
    if counts is not None and len(order) not in counts:
        wanted = " or ".join(str(count) for count in dict.fromkeys(counts))
        raise _unordered(config, firsts, f"the head takes {wanted}")
    return order


def _unordered(config: DetectionConfig, names: Sequence[str], reason: str) -> RecipeError:
    order = {"ssd": "boxes and scores", "boxes": "boxes and scores", "postprocess": "boxes, classes, scores and count"}
    return RecipeError(
        f"The model has {len(names)} outputs ({', '.join(names)}), and for [detection] head = "
        f'"{config.head}" {reason}.',
        expected=f"the names of the outputs with {order.get(config.head, 'the grids, by stride')}.",
        fix=f"write in the recipe, in this order:\n  [detection]\n  outputs = {list(names)}".replace("'", '"'),
    )


@dataclasses.dataclass(frozen=True)
class DetectionTask(Task):
    """As any task; but it is measured by other labels (boxes) and figures than it is trained by.

    Attributes:
        taught: what training goes by: the unpruned model's outputs, or a loss of the user's.
        head: what the outputs mean.
        class_names: in the order of their numbers.
    """

    taught: Task = dataclasses.field(kw_only=True, repr=False)
    head: Head = dataclasses.field(kw_only=True, repr=False)
    class_names: tuple[str, ...] = dataclasses.field(kw_only=True)

    @property
    def training(self) -> Task:
        return self.taught

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return metrics_of(self.class_names)

    def value(self, figures: Mapping[str, float]) -> float:
        return figures[self.name]

    def judged(self, split: Split) -> Split:
        return dataclasses.replace(split, relabel=None)

    @property
    def merit(self) -> Callable[[Any, Sequence[np.ndarray]], np.ndarray]:
        return self._qualities

    def _qualities(self, labels: Any, outputs: Sequence[np.ndarray]) -> np.ndarray:
        pairs = zip(np.asarray(labels["boxes"]), np.asarray(labels["size"]), strict=True)
        found = (
            quality(self.head.detect([output[i] for output in outputs], own), rows)
            for i, (rows, own) in enumerate(pairs)
        )
        return np.fromiter(found, np.float32)

    def labelled(self, labels: Any) -> list[np.ndarray]:
        """Those of the data, in the same form."""
        size = self.head.facts["size"]
        return list(np.asarray(frame_boxes(labels, (size[0], size[1]), self.head.resize)))

    def boxes(self, outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What is drawn of each sample of a batch: float [boxes, 5] of those with a score of at least one half, as
        :func:`edgeprune.data.images.boxes.frame_boxes` has those of labels."""
        height, width = self.head.facts["size"]
        rows = []
        for i in range(len(outputs[0])):
            boxes, _, classes = answered(self.head.detect([output[i] for output in outputs], (height, width)))
            rows.append(np.concatenate([boxes / np.array([width, height] * 2), classes[:, None]], 1))
        return rows

    def compile_arguments(self) -> dict[str, Any]:
        return self.taught.compile_arguments()

    def saved_arguments(self) -> dict[str, Any]:
        return self.taught.saved_arguments()

    def meter(self, metrics: Sequence[Metric] | None = None) -> BoxMeter:  # type: ignore[override]
        return BoxMeter(self.head, self.class_names)

    def to_json(self) -> list[JsonObject]:
        rows = self.taught.to_json()
        return [{**row, "kind": "detection", "metrics": [metric.name for metric in self.watched]} for row in rows]


def metrics_of(classes: Sequence[str]) -> tuple[Metric, ...]:
    """map, map50, and both per class: ``ap.CLASS``, ``ap50.CLASS``."""
    names = [MAP, MAP50, *(f"{kind}.{name}" for kind in ("ap50", "ap") for name in classes)]
    return tuple(Metric(name, 0, _counted_over_all, True, 100.0) for name in names)


def _counted_over_all() -> tf_keras.metrics.Metric:
    raise AssertionError("average precision is counted by a BoxMeter over all outputs")


class BoxMeter:
    """Average precision over batches.

    Args:
        head: what the outputs mean.
        classes: their names.
    """

    def __init__(self, head: Head, classes: Sequence[str]):
        self._head, self._classes = head, classes
        self._images: list[JsonObject] = []
        self._truth: list[JsonObject] = []
        self._found: list[JsonObject] = []

    def update(self, inputs: Structure, labels: Any, outputs: Sequence[Any], weights: Structure = None) -> None:
        """Count a batch: labels as :class:`edgeprune.data.images.boxes.BoxStore` gives them, one array per output."""
        arrays = [np.asarray(output) for output in outputs]
        for i, (rows, own) in enumerate(zip(np.asarray(labels["boxes"]), np.asarray(labels["size"]), strict=True)):
            number = len(self._images) + 1
            self._images.append({"id": number, "height": float(own[0]), "width": float(own[1])})
            for row in rows[rows[:, 4] >= 0].astype(float):
                box = _coco_box(row[:4])
                self._truth.append(
                    {
                        "id": len(self._truth) + 1,
                        "image_id": number,
                        "category_id": int(row[4]) + 1,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": int(row[5] == CROWD),
                        "difficult": int(row[5] == DIFFICULT),
                    }
                )
            for box, score, label in zip(*self._head.detect([array[i] for array in arrays], own), strict=True):
                self._found.append(
                    {
                        "image_id": number,
                        "category_id": int(label) + 1,
                        "bbox": _coco_box(box.astype(float)),
                        "score": float(score),
                    }
                )

    def result(self) -> Figures:
        """The figures by name; those of classes that have no boxes are left out."""
        limit = self._head.facts["max_detections"]
        precision = average_precision(self._images, self._truth, self._found, len(self._classes), limit)
        figures = {MAP: _mean(precision), MAP50: _mean(precision[0])}
        for kind, values in (("ap50", precision[:1]), ("ap", precision)):
            for i, name in enumerate(self._classes):
                figures[f"{kind}.{name}"] = _mean(values[:, i])
        return {name: value for name, value in figures.items() if not np.isnan(value)}


def _mean(values: np.ndarray) -> float:
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if counted.size else float("nan")


def _coco_box(corners: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = corners.tolist()
    return [x1, y1, x2 - x1, y2 - y1]


def average_precision(
    images: list[JsonObject], truth: list[JsonObject], found: list[JsonObject], classes: int, max_detections: int
) -> np.ndarray:
    """Of pycocotools: [10 overlaps from .5 to .95, classes]; NaN for classes without boxes.

    Args:
        images, truth, found: as COCO's json has them; categories from 1. Objects with ``difficult`` do not count.
        max_detections: per image.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    class Evaluation(COCOeval):
        def _prepare(self) -> None:
            super()._prepare()
            for boxes in self._gts.values():
                for box in boxes:
                    box["ignore"] = box["ignore"] or box["difficult"]

    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        categories = [{"id": i + 1, "name": str(i)} for i in range(classes)]
        reference.dataset = {"info": {}, "images": images, "annotations": truth, "categories": categories}
        reference.createIndex()
        answers = COCO()
        own = [
            {**box, "id": i + 1, "area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0} for i, box in enumerate(found)
        ]
        answers.dataset = {"info": {}, "images": images, "annotations": own, "categories": categories}
        answers.createIndex()
        evaluation = Evaluation(reference, answers, "bbox")
        evaluation.params.maxDets = [max_detections]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    # [overlaps, recalls, classes, areas, limits]; -1 where there is no truth.
    precision = evaluation.eval["precision"][:, :, :, 0, 0]
    return np.where(precision.min(1) < 0, np.nan, precision.mean(1))


def detection_task(
    config: TaskConfig,
    detection: DetectionConfig | None,
    data: Data,
    names: Sequence[Sequence[str]],
    predict: Callable[[Structure], list[np.ndarray]],
    teach: Callable[[], Task] | None,
) -> DetectionTask:
    """The task of a model whose data have boxes.

    Args:
        config: ``[task]``; a loss in it, or in all of its outputs, takes the place of the teacher.
        detection: ``[detection]``.
        data: with boxes.
        names: of each output.
        predict: a batch of inputs → one array [batch, ...] per output.
        teach: makes the task of giving the unpruned model's outputs; None: nothing is trained.

    Raises:
        RecipeError: no head, or one that does not fit the outputs; another kind of task; an unknown primary metric.
        DataError: a part without any box.
        MissingError: pycocotools is not installed.
    """
    if config.kind not in (None, "detection"):
        raise RecipeError(
            f'[task] kind = "{config.kind}", but the data of {data.source} are images with boxes.',
            expected='kind = "detection", or "teacher" to use the images alone.',
        )
    if detection is None:
        raise _no_head(data, [own[0] for own in names])
    if importlib.util.find_spec("pycocotools") is None:
        raise MissingError(
            "Average precision is computed by pycocotools, which is not installed.",
            expected="the extra for detection.",
            fix='pip install "edgeprune[detection]"',
        )
    _require_boxes(data)
    x, y = next(iter(data.validation.batches(min(4, data.validation.size))))
    outputs = predict(x)
    head = head_of(detection, data, names, [output.shape[1:] for output in outputs])
    _try(head, outputs, np.asarray(y["size"]))
    assert data.class_names is not None
    if config.metric is not None:
        raise RecipeError(
            "[task] metric is set; detectors are measured by map, map50, ap.CLASS and ap50.CLASS.",
            fix='remove it; primary = "map50" chooses what picks and gates go by.',
        )
    metrics = {metric.name: metric for metric in metrics_of(data.class_names)}
    name = config.primary or MAP
    if name not in metrics:
        raise RecipeError(
            f"[task] primary = {name!r} names no metric of a detector.", expected=f"one of: {', '.join(metrics)}."
        )
    _require_boxes(data, name)
    taught = _loss_task(config, data, names) or (teach() if teach else None)
    origin = "boxes of the data"
    outputs_of = tuple(Output(own[0], None, None, 1.0, (), None, origin=origin) for own in names)
    taught = taught or Task(outputs_of, (metrics[name],), name)
    return DetectionTask(
        outputs=tuple(dataclasses.replace(output, kind=None, metrics=()) for output in taught.outputs),
        watched=(metrics[name],),
        name=name,
        prepare=taught.prepare,
        answers=taught.answers,
        warnings=taught.warnings,
        taught=taught,
        head=head,
        class_names=data.class_names,
    )


def _require_boxes(data: Data, metric: str = MAP) -> None:
    """Make sure that the parts that figures are counted on have boxes that count, for a figure of a class: of that one.

    Raises:
        DataError: they do not.
    """
    of_class = metric.partition(".")[2]
    for part in ("validation", "test"):
        split: Split = getattr(data, part)
        rows = split.store.rows(split.index)  # type: ignore[attr-defined]
        rows = rows[rows[:, 5] == PLAIN]
        if of_class:
            rows = rows[rows[:, 4] == (data.class_names or ()).index(of_class)]
        if not len(rows):
            raise DataError(
                f"The {part} part of {data.source} has no box{f' of {of_class!r}' if of_class else ''} that counts: "
                "average precision is not defined.",
                expected="at least one, which is neither a crowd nor difficult.",
                fix="write another metric as [task] primary, or move images with this class there."
                if of_class
                else "move images with boxes there.",
            )


def _try(head: Head, outputs: Sequence[np.ndarray], sizes: np.ndarray) -> None:
    """Decode a few samples, so that a head that does not fit is found before training.

    Raises:
        RecipeError: it does not fit, or scores are no probabilities.
    """
    for i, own in enumerate(sizes):
        sample = [np.asarray(output[i], np.float32) for output in outputs]
        _, scores, _ = head.detect(sample, own)
        if head.function is None and head.facts["head"] != "postprocess":
            _, all_scores = decoding.decode([sample[place] for place in head.order], head._full)
            scores = all_scores
        if scores.size and (scores.min() < -SCORE_SLACK or scores.max() > 1 + SCORE_SLACK):
            raise RecipeError(
                f"The scores of the detector go from {scores.min():.3g} to {scores.max():.3g}, and are no "
                "probabilities.",
                expected="scores from 0 to 1.",
                fix="if the model gives them before sigmoid or softmax, write in the recipe:\n  [detection]\n"
                '  activation = "sigmoid"    # or "softmax"',
            )


def _no_head(data: Data, names: Sequence[str]) -> RecipeError:
    return RecipeError(
        f"The data of {data.source} are images with boxes, and the recipe does not say what the model's outputs "
        f"({', '.join(names)}) mean.",
        expected="[detection] in the recipe.",
        fix='write one of these:\n  [detection]\n  head = "ssd"    # with anchors = "anchors.npy"; or yolo-v3, yolo-v5 '
        "(with anchors), yolo-v8, boxes, postprocess\n"
        '  [detection]\n  head = "file.py:function"    # outputs of one image in; boxes, scores and classes out\n'
        'or, to use the images alone:\n  [task]\n  kind = "teacher"',
    )


def _loss_task(config: TaskConfig, data: Data, names: Sequence[Sequence[str]]) -> Task | None:
    """Training by the user's losses, one per output, over the boxes as fractions; None if the recipe has no loss."""
    sections = [next((config.outputs[name] for name in own if name in config.outputs), None) for own in names]
    terms = [section.loss if section and section.loss is not None else config.loss for section in sections]
    if all(term is None for term in terms):
        return None
    for term in terms:
        if term is not None and term != "none" and not (isinstance(term, str) and ":" in term):
            raise RecipeError(
                f"The loss {term!r} does not take boxes.",
                expected='loss = "file.py:function" of (boxes, output), with boxes [batch, n, 5]: x1, y1, x2, y2 in '
                "fractions of the model's input, and the class; rows of class -1 fill up.",
                fix="name such a function; or leave loss out: then the unpruned model teaches.",
            )
    outputs = []
    for i, (own, term, section) in enumerate(zip(names, terms, sections, strict=True)):
        weight = section.weight if section and section.weight is not None else config.weight
        loss = None
        metrics: tuple[Metric, ...] = ()
        if isinstance(term, str) and term != "none":
            loss = as_object(load_function(term, RecipeError), is_logits=None, ignore=None)
            name = "loss" if len(names) == 1 else f"{own[0]}.loss"
            new = functools.partial(of_loss, loss, name)
            metrics = (Metric(name, i, new, False, 1.0, weighted=True, by_batch=True),)
        weight = 1.0 if weight is None else weight
        outputs.append(Output(own[0], loss, None, weight, metrics, None, origin="the recipe"))
    watched = tuple(metric for output in outputs for metric in output.metrics)
    if not watched:
        raise RecipeError("No output of the detector has a loss.", fix="write [task] loss, or leave all losses out.")
    return Task(tuple(outputs), watched, "loss", prepare=_prepare(data.boxes, len(outputs)))


def _prepare(config: BoxesConfig | None, count: int) -> Callable[[Data], Data]:
    assert config is not None

    def prepare(data: Data) -> Data:
        height, width = data.train.spec.shapes[0][:2]
        assert height is not None
        assert width is not None

        def relabel(x: Structure, y: Structure, w: Structure) -> tuple[Structure, Structure]:
            boxes = frame_boxes(y, (height, width), config.resize)
            return (boxes if count == 1 else (boxes,) * count), w

        splits = {
            name: dataclasses.replace(getattr(data, name), relabel=relabel) for name in ("train", "validation", "test")
        }
        return dataclasses.replace(data, **splits)

    return prepare


def detection_inputs(config: DetectionConfig) -> JsonObject:
    """What figures depend on beside the recipe's words: the anchors' file."""
    content = Path(config.anchors).read_bytes() if isinstance(config.anchors, str) else b""
    return {**config.model_dump(mode="json"), "anchors_hash": hashlib.sha256(content).hexdigest() if content else None}


def source_file(function: Callable[..., Any]) -> Path:
    """The file that a user's function stands in."""
    return Path(inspect.getfile(function))
