"""Decoding of detectors' outputs against independent formulas: what is encoded comes back, NMS is TensorFlow's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.data.images import pixels
from edgeprune.tasks import decoding

KEPT = {"score_threshold": 0.05, "iou_threshold": 0.5, "per_class": True, "max_detections": 100}
SIZE = (96, 128)  # height, width: not equal, so that no axis can be taken for the other
STRIDES = (8, 16, 32)
ANCHORS = [[[10.0, 13.0], [16.0, 30.0]], [[30.0, 61.0], [62.0, 45.0]], [[116.0, 90.0], [156.0, 198.0]]]


def head(kind, **more):
    return {"head": kind, "size": SIZE, "classes": 3, "activation": "none", **KEPT, **more}


def logit(p):
    return np.log(p / (1 - p))


def random_boxes(rng, count):
    """Corners in fractions of the input."""
    low = rng.uniform(0, 0.7, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.05, 0.3, (count, 2))], axis=1)


@pytest.mark.parametrize("form", ["cxcywh", "xyxy"])
def test_ssd_decodes_what_is_encoded(form):
    """Offsets by the formula of the paper, inverted: (c - a) / size / variance, log(size / size) / variance."""
    rng = np.random.default_rng(0)
    boxes, anchors, scores = random_boxes(rng, 50), random_boxes(rng, 50), rng.random((50, 3))
    variances = np.array([0.1, 0.2, 0.3, 0.4])
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    middle, extent = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    offsets = np.concatenate([(centre - middle) / extent, np.log(size / extent)], axis=1) / variances
    given_anchors = anchors if form == "xyxy" else np.concatenate([middle, extent], axis=1)
    one = head("ssd", anchors=given_anchors, anchor_form=form, variances=variances)
    found, found_scores = decoding.decode([offsets, scores], one)
    np.testing.assert_allclose(found, boxes, atol=1e-5)
    np.testing.assert_allclose(found_scores, scores, atol=1e-6)


def test_a_background_is_no_class():
    """Its column is taken out of the scores, after softmax."""
    logits = np.random.default_rng(0).normal(size=(5, 4))
    one = head("boxes", box="xyxy", unit="fraction", objectness=False, activation="softmax", background=0)
    _, scores = decoding.decode([np.zeros((5, 4)), logits], one)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(scores, expected[:, 1:], rtol=1e-5)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("kind", ["yolo-v3", "yolo-v5", "yolo-v8"])
def test_yolo_grids_decode_what_is_encoded(kind, joined):
    """A box at a cell (and anchor) of every grid, encoded by the inverse of the published formula, comes back with its
    score; grids may be outputs of their own, or lie under each other in one."""
    rng = np.random.default_rng(1)
    bins, grids, expected = 16, [], []
    for stride, anchors in zip(STRIDES, ANCHORS, strict=True):
        rows, columns = SIZE[0] // stride, SIZE[1] // stride
        y, x, a = rng.integers(rows), rng.integers(columns), rng.integers(2)
        score, label = rng.uniform(0.5, 0.9), rng.integers(3)
        at = np.array([x, y])
        if kind == "yolo-v8":
            grid = np.full((rows, columns, 4 * bins + 3), -9.0)
            sides = rng.integers(1, bins - 1, 4)
            grid[y, x, : 4 * bins].reshape(4, bins)[np.arange(4), sides] = 30.0
            grid[y, x, 4 * bins + label] = logit(score)
            middle = (at + 0.5) * stride
            corners = [*(middle - sides[:2] * stride), *(middle + sides[2:] * stride)]
        else:
            grid = np.full((rows, columns, 2, 8), -9.0)
            within, times = rng.uniform(0.2, 0.8, 2), rng.uniform(0.5, 2, 2)
            size = np.array(anchors[a]) * times
            if kind == "yolo-v3":
                centre, grid[y, x, a, :4] = (at + within) * stride, [*logit(within), *np.log(times)]
            else:
                centre = (at + within) * stride
                grid[y, x, a, :4] = [*logit((within + 0.5) / 2), *logit(np.sqrt(times) / 2)]
            grid[y, x, a, 4], grid[y, x, a, 5 + label] = 30.0, logit(score)
            grid = grid.reshape(rows, columns, 16)
            corners = [*(centre - size / 2), *(centre + size / 2)]
        grids.append(grid)
        expected.append((score, label, corners))
    if joined:
        width = 4 * bins + 3 if kind == "yolo-v8" else 8
        grids = [np.concatenate([grid.reshape(-1, width) for grid in grids])]
    more = {"strides": STRIDES, "activation": "sigmoid", "bins": bins}
    more |= {} if kind == "yolo-v8" else {"anchors": ANCHORS}
    boxes, scores, classes = decoding.detect(grids, head(kind, **more))
    whole = np.array([SIZE[1], SIZE[0]] * 2)
    expected.sort(key=lambda one: -one[0])
    assert len(boxes) == 3
    np.testing.assert_allclose(scores, [one[0] for one in expected], rtol=1e-3)
    assert classes.tolist() == [one[1] for one in expected]
    np.testing.assert_allclose(boxes * whole, [one[-1] for one in expected], rtol=2e-3, atol=0.05)


FORMS = {
    "xyxy": lambda b: b,
    "yxyx": lambda b: b[:, [1, 0, 3, 2]],
    "xywh": lambda b: np.concatenate([b[:, :2], b[:, 2:] - b[:, :2]], 1),
    "cxcywh": lambda b: np.concatenate([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], 1),
}


@pytest.mark.parametrize("layout", ["two", "rows", "columns"])
@pytest.mark.parametrize("unit", ["fraction", "pixel"])
@pytest.mark.parametrize("form", FORMS)
def test_boxes_and_scores_are_taken_in_every_form(form, unit, layout):
    """Two outputs, or one with a row or a column per box, where objectness multiplies the scores."""
    rng = np.random.default_rng(2)
    boxes, scores, there = random_boxes(rng, 40), rng.random((40, 3)), rng.random((40, 1))
    written = FORMS[form](boxes * (np.array([SIZE[1], SIZE[0]] * 2) if unit == "pixel" else 1))
    one = head("boxes", box=form, unit=unit, objectness=layout != "two")
    if layout == "two":
        outputs, expected = [written, scores], scores
    else:
        rows = np.concatenate([written, there, scores], axis=1)
        outputs, expected = [rows if layout == "rows" else rows.T], scores * there
    found, found_scores = decoding.decode(outputs, one)
    np.testing.assert_allclose(found, boxes, atol=1e-5)
    np.testing.assert_allclose(found_scores, expected, atol=1e-6)


def test_detection_postprocess_is_taken_in_its_order():
    """Boxes as y1, x1, y2, x2, classes, scores, and how many of them count."""
    boxes = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8], [0, 0, 1, 1]])
    found = decoding.detect([boxes, [2, 0, 1], [0.4, 0.9, 0.8], [2]], head("postprocess"))
    np.testing.assert_allclose(found[0], [[0.6, 0.5, 0.8, 0.7], [0.2, 0.1, 0.4, 0.3]], atol=1e-6)
    np.testing.assert_allclose(found[1], [0.9, 0.4], atol=1e-6)
    assert found[2].tolist() == [0, 2]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.sampled_from([0.3, 0.5, 0.8]), st.sampled_from([3, 100]))
def test_suppression_is_that_of_tensorflow(seed, count, iou, limit):
    """For boxes of one class: the same boxes in the same order as tf.image.non_max_suppression."""
    import tensorflow as tf

    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, count).astype(np.float32), rng.random(count).astype(np.float32)
    expected = tf.image.non_max_suppression(boxes, scores, limit, iou, 0.2).numpy()
    found, values, _ = decoding.select(boxes, scores[:, None], 0.2, iou, True, limit)
    np.testing.assert_array_equal(found, boxes[expected])
    np.testing.assert_array_equal(values, scores[expected])


def test_classes_choose_for_themselves_or_together():
    """Two classes on one box are two answers per class, and one answer without."""
    boxes, scores = np.array([[0, 0, 1, 1], [0, 0, 1, 0.9]]), np.array([[0.9, 0.6], [0.2, 0.8]])
    own = decoding.select(boxes, scores, 0.5, 0.5, True, 10)
    assert list(zip(own[1].tolist(), own[2].tolist(), strict=True)) == [(0.9, 0), (0.8, 1)]
    together = decoding.select(boxes, scores, 0.5, 0.5, False, 10)
    assert list(zip(together[1].tolist(), together[2].tolist(), strict=True)) == [(0.9, 0)]
    assert len(decoding.select(boxes[:0], scores[:0], 0.5, 0.5, False, 10)[0]) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 500), st.integers(4, 500), st.sampled_from(["stretch", "letterbox"]))
def test_boxes_come_back_into_the_image(height, width, resize):
    """What lies in the image lies in the frame at the same fractions of it, and is undone to where it was."""
    boxes = random_boxes(np.random.default_rng(height), 8) * np.array([width, height] * 2)
    (rows, columns), (top, left) = pixels.frame((height, width), SIZE, resize)
    inside = boxes * np.array([columns / width, rows / height] * 2) + np.array([left, top] * 2)
    assert rows <= SIZE[0]
    assert columns <= SIZE[1]
    assert resize == "stretch" or rows == SIZE[0] or columns == SIZE[1]
    found = decoding.undo(inside / np.array([SIZE[1], SIZE[0]] * 2), (height, width), SIZE, resize)
    np.testing.assert_allclose(found, boxes, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [(60, 90), (200, 90), (96, 128), (31, 300)])
def test_images_are_resized_as_tensorflow_does(size):
    """Bilinear, without antialiasing, to whole pixel values; one that lies between two may be rounded either way."""
    import tensorflow as tf

    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    found = pixels.framed(image, SIZE, "stretch", 0)
    expected = tf.round(tf.image.resize(image, SIZE)).numpy()
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 1e-3


@pytest.mark.parametrize(
    ("outputs", "one", "reason"),
    [
        ([np.zeros((4, 4)), np.zeros((4, 3))], head("ssd", anchors=np.zeros((5, 4))), "5 anchors"),
        ([np.zeros((4, 4)), np.zeros((4, 2))], head("boxes", box="xyxy", unit="fraction"), "of 2 classes, not of 3"),
        ([np.zeros((7, 7))], head("boxes", box="xyxy", unit="fraction", objectness=False), "one axis of 7 x 7"),
        ([np.zeros((9, 8))], head("yolo-v3", strides=STRIDES, anchors=ANCHORS), "the grids"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(outputs, one, reason):
    """With the numbers that do not fit."""
    with pytest.raises(ValueError, match=reason):
        decoding.decode(outputs, one)
