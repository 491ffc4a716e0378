"""What a detector's outputs mean: boxes with scores and classes, in NumPy.

This file is also written into the scripts that run a .tflite on a board, behind ``frame``, and needs nothing else but
NumPy and what Python has (3.9 or later). Everything is about one image. Boxes are float32 [boxes, 4], x1, y1, x2, y2 of
the corners, in fractions of the model's input unless another unit is said; a head is a dict with the keys of
``[detection]`` in a recipe, and ``size``, the model's input as [height, width], and ``classes``, their number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.images.pixels import frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # boxes [n, 4], scores [n], classes int64 [n]
    Scored = tuple[np.ndarray, np.ndarray]  # boxes [n, 4], scores [n, classes]


def detect(outputs: Sequence[np.ndarray], head: Mapping[str, Any]) -> Found:
    """The boxes that count, best first.

    Args:
        outputs: float arrays without the batch, in the head's order.
        head: see above; ``anchors`` is an array.

    Returns:
        boxes [n, 4], scores [n], classes int64 [n]; n is at most ``max_detections``.

    Raises:
        ValueError: shapes that do not fit the head.
    """
    if head["head"] == "postprocess":
        boxes, scores, classes = _postprocessed(outputs)
        above = scores > head["score_threshold"]
        return best(boxes[above], scores[above], classes[above], head["max_detections"])
    boxes, scores = decode(outputs, head)
    return select(
        boxes, scores, head["score_threshold"], head["iou_threshold"], head["per_class"], head["max_detections"]
    )


def best(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, max_detections: int) -> Found:
    """At most so many boxes, those of the best scores first."""
    kept = np.argsort(-scores, kind="stable")[:max_detections]
    return boxes[kept], scores[kept], classes[kept]


def decode(outputs: Sequence[np.ndarray], head: Mapping[str, Any]) -> Scored:
    """All boxes [n, 4] with the scores of all classes [n, classes], before any is chosen."""
    boxes, scores = DECODERS[head["head"]]([np.asarray(output, np.float32) for output in outputs], head)
    scores = scores.reshape(len(boxes), -1)
    if head.get("background") is not None:
        scores = np.delete(scores, head["background"], axis=1)
    if scores.shape[1] != head["classes"]:
        raise ValueError(f"the outputs have scores of {scores.shape[1]} classes, not of {head['classes']}")
    return boxes, scores


def select(
    boxes: np.ndarray,
    scores: np.ndarray,
    score_threshold: float,
    iou_threshold: float,
    per_class: bool,
    max_detections: int,
) -> Found:
    """Boxes above the threshold, without those that overlap a better one: greedy non-maximum suppression.

    Args:
        boxes: [n, 4].
        scores: [n, classes].
        per_class: every class chooses for itself, and a box may be of several; else a box is of its best class, and
            suppresses those of all classes.

    Returns:
        boxes [m, 4], scores [m], classes int64 [m], best first; m is at most ``max_detections``.
    """
    if per_class:
        pairs = [
            (np.arange(len(boxes)), np.full(len(boxes), label), scores[:, label]) for label in range(scores.shape[1])
        ]
    else:
        pairs = [(np.arange(len(boxes)), scores.argmax(1), scores.max(1))] if len(boxes) else []
    found = []
    for rows, labels, values in pairs:
        above = values > score_threshold
        rows, labels, values = rows[above], labels[above], values[above]
        kept = suppress(boxes[rows], values, iou_threshold, max_detections)
        found.append((rows[kept], labels[kept], values[kept]))
    if not found:
        return boxes[:0], np.zeros(0, np.float32), np.zeros(0, np.int64)
    rows, labels, values = (np.concatenate(parts) for parts in zip(*found))  # noqa: B905
    return best(boxes[rows], values, labels.astype(np.int64), max_detections)


def suppress(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float, max_detections: int) -> np.ndarray:
    """Positions of the boxes that stay, best first: int64. Of two that overlap by more, the better one stays."""
    left = np.argsort(-scores, kind="stable")
    corners = np.ascontiguousarray(boxes.T)
    kept: list[int] = []
    while len(left) and len(kept) < max_detections:
        first, left = left[0], left[1:]
        kept.append(first)
        left = left[overlap(corners[:, first], corners[:, left]) <= iou_threshold]
    return np.array(kept, np.int64)


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of a box [4] with boxes in columns [4, n]: [n]. 0 where there is no area."""
    width = np.minimum(box[2], boxes[2]) - np.maximum(box[0], boxes[0])
    height = np.minimum(box[3], boxes[3]) - np.maximum(box[1], boxes[1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    areas = [np.maximum(one[2] - one[0], 0) * np.maximum(one[3] - one[1], 0) for one in (box, boxes)]
    union = areas[0] + areas[1] - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0)


# --- heads


def _ssd(outputs: Sequence[np.ndarray], head: Mapping[str, Any]) -> Scored:
    """Offsets to anchors [n, 4] and scores [n, classes] (Liu et al. 2016, arXiv:1512.02325)."""
    offsets, scores = outputs[0].reshape(-1, 4), outputs[1]
    anchors = np.asarray(head["anchors"], np.float32)
    if len(offsets) != len(anchors):
        raise ValueError(f"there are {len(anchors)} anchors, and boxes for {len(offsets)}")
    if head["anchor_form"] == "xyxy":
        anchors = np.concatenate([(anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]], axis=1)
    offsets = offsets * np.asarray(head["variances"], np.float32)
    centre = offsets[:, :2] * anchors[:, 2:] + anchors[:, :2]
    return _corners(centre, _exp(offsets[:, 2:]) * anchors[:, 2:]), _active(scores.reshape(len(anchors), -1), head)


def _yolo(outputs: Sequence[np.ndarray], head: Mapping[str, Any]) -> Scored:
    """Grids of cells with anchors: v3 (arXiv:1804.02767), or v5's bounded centres and sizes."""
    rows, cells, strides = _rows(outputs, head, 5 + head["classes"])
    anchors = np.concatenate(
        [
            np.tile(np.asarray(of_grid, np.float32), (height * width, 1))
            for of_grid, (height, width) in zip(head["anchors"], _grids(head))  # noqa: B905
        ]
    )
    if head["head"] == "yolo-v3":
        centre, size = (_sigmoid(rows[:, :2]) + cells) * strides, _exp(rows[:, 2:4]) * anchors
    else:
        centre = (2 * _sigmoid(rows[:, :2]) - 0.5 + cells) * strides
        size = (2 * _sigmoid(rows[:, 2:4])) ** 2 * anchors
    scores = _active(rows[:, 4:5], head) * _active(rows[:, 5:], head)
    return _corners(centre, size) / _input(head), scores


def _yolo8(outputs: Sequence[np.ndarray], head: Mapping[str, Any]) -> Scored:
    """Grids without anchors: distances of the sides from the middle of a cell, as the mean of a distribution over bins
    (Li et al. 2020, arXiv:2006.04388) or, with one bin, as they are."""
    bins = head["bins"]
    rows, cells, strides = _rows(outputs, head, 4 * bins + head["classes"])
    sides = rows[:, : 4 * bins].reshape(-1, 4, bins)
    distances = sides[..., 0] if bins == 1 else _softmax(sides) @ np.arange(bins, dtype=np.float32)
    middle = cells + np.float32(0.5)
    corners = np.concatenate([middle - distances[:, :2], middle + distances[:, 2:]], axis=1)
    return corners * strides / _input(head), _active(rows[:, 4 * bins :], head)


def _plain(outputs: Sequence[np.ndarray], head: Mapping[str, Any]) -> Scored:
    """Boxes as they are: [n, 4] and scores [n, classes]; or both side by side in one output, whichever axis is n."""
    if len(outputs) > 1:
        boxes = outputs[0].reshape(-1, 4)
        scores = _active(outputs[1].reshape(len(boxes), -1), head)
    else:
        columns = 4 + bool(head["objectness"]) + head["classes"] + (head.get("background") is not None)
        first, last = outputs[0].shape[-2:]
        if (first == columns) == (last == columns):
            raise ValueError(f"one axis of {first} x {last} has to be the {columns} values of a box")
        rows = outputs[0].reshape(first, last)
        rows = rows if last == columns else rows.T
        boxes, scores = rows[:, :4], _active(rows[:, 4:], head)
        if head["objectness"]:
            scores = scores[:, :1] * scores[:, 1:]
    form = head["box"]
    if form == "yxyx":
        boxes = boxes[:, [1, 0, 3, 2]]
    elif form == "xywh":
        boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    elif form == "cxcywh":
        boxes = _corners(boxes[:, :2], boxes[:, 2:])
    return boxes / (_input(head) if head["unit"] == "pixel" else 1), scores


DECODERS = {"ssd": _ssd, "yolo-v3": _yolo, "yolo-v5": _yolo, "yolo-v8": _yolo8, "boxes": _plain}


def _postprocessed(outputs: Sequence[np.ndarray]) -> Found:
    """Of TFLite_Detection_PostProcess: boxes [n, 4] as y1, x1, y2, x2, classes [n], scores [n], and how many count."""
    boxes, classes, scores, count = (np.asarray(output, np.float32) for output in outputs)
    number = round(float(count.reshape(-1)[0]))
    boxes = boxes.reshape(-1, 4)[:number, [1, 0, 3, 2]]
    return boxes, scores.reshape(-1)[:number], np.round(classes.reshape(-1)[:number]).astype(np.int64)


def _grids(head: Mapping[str, Any]) -> list[list[int]]:
    """Rows and columns of cells of each grid."""
    return [[-(-side // stride) for side in head["size"]] for stride in head["strides"]]


def _rows(
    outputs: Sequence[np.ndarray], head: Mapping[str, Any], width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grids under each other: values [n, width], the cell of each row [n, 2] as x, y, and its stride [n, 1].

    Of several outputs, each is one grid, in the order of the strides.
    """
    anchors = len(head["anchors"][0]) if head.get("anchors") is not None else 1
    cells, strides = [], []
    for stride, (height, columns) in zip(head["strides"], _grids(head)):  # noqa: B905
        y, x = np.mgrid[:height, :columns]
        cells.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), anchors, axis=0))
        strides.append(np.full((len(cells[-1]), 1), stride))
    sizes = [output.size for output in outputs]
    expected = [len(one) * width for one in cells]
    if sizes != expected and (len(sizes) > 1 or sizes != [sum(expected)]):
        raise ValueError(f"the outputs have {sizes} values, and the grids {expected}")
    values = np.concatenate([output.reshape(-1, width) for output in outputs])
    return values, np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _input(head: Mapping[str, Any]) -> np.ndarray:
    """Width, height, width, height of the model's input."""
    height, width = head["size"]
    return np.array([width, height, width, height], np.float32)


def _corners(centre: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1)


def _active(scores: np.ndarray, head: Mapping[str, Any]) -> np.ndarray:
    return ACTIVATIONS[head["activation"]](scores)


def _exp(values: np.ndarray) -> np.ndarray:
    return np.exp(np.minimum(values, 20))  # e^20 is far outside of any image, and no overflow


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * values))


def _softmax(values: np.ndarray) -> np.ndarray:
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


ACTIVATIONS = {"none": lambda scores: scores, "sigmoid": _sigmoid, "softmax": _softmax}


# --- boxes out


def undo(boxes: np.ndarray, own: Sequence[int], size: Sequence[int], resize: str) -> np.ndarray:
    """Boxes in fractions of the input → in pixels of the image, cut off at its edges.

    Args: as of :func:`edgeprune.data.images.pixels.frame`.
    """
    inner, before = frame(own, size, resize)
    (height, width), (rows, columns) = own, size
    pixels = boxes * np.array([columns, rows] * 2) - np.array([before[1], before[0]] * 2)
    pixels = pixels * np.array([width / inner[1], height / inner[0]] * 2)
    return np.clip(pixels, 0, np.array([width, height] * 2))
