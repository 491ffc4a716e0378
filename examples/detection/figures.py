"""Average precision of a trained SSD, from the outputs of Keras, TensorFlow's suppression and pycocotools."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

THRESHOLD, OVERLAP = 0.05, 0.5  # of a score that counts; of boxes of which the better one stays


def figures(model: tf_keras.Model, x: np.ndarray, truth: Path, anchors: np.ndarray) -> dict[str, float]:
    """What pycocotools says of the boxes found in pictures."""
    found, names = [], ("RBC", "WBC", "Platelets")
    document = json.loads(truth.read_text())
    numbers = {category["name"]: category["id"] for category in document["categories"]}
    order = sorted(document["images"], key=lambda image: Path(image["file_name"]).name)
    for image, loc, cls in zip(order, *model.predict(x, 8, verbose=0), strict=True):
        centre, size = anchors[:, :2] + loc[:, :2] * 0.1 * anchors[:, 2:], anchors[:, 2:] * np.exp(loc[:, 2:] * 0.2)
        boxes = np.concatenate([centre - size / 2, centre + size / 2], 1)
        whole, own = [image["width"], image["height"]], []
        for label, name in enumerate(names):
            for i in tf.image.non_max_suppression(boxes, cls[:, label], 100, OVERLAP, THRESHOLD).numpy():
                corner, end = (np.clip(part, 0, 1) * whole for part in (boxes[i, :2], boxes[i, 2:]))
                box = {"image_id": image["id"], "category_id": numbers[name], "score": float(cls[i, label])}
                own.append({**box, "bbox": [*corner.tolist(), *(end - corner).tolist()]})
        found += sorted(own, key=lambda box: -box["score"])[:100]  # of all classes together
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(truth)
        judge = COCOeval(coco, coco.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, -1].mean(1)  # [overlaps, categories by id]
    places = {name: sorted(numbers.values()).index(numbers[name]) for name in names}
    printed = {"map": precision.mean(), "map50": precision[0].mean()}
    for kind, values in (("ap50", precision[:1]), ("ap", precision)):
        printed |= {f"{kind}_{name}": values[:, place].mean() for name, place in places.items()}
    return {name: float(value) for name, value in printed.items()}
