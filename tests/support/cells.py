"""Coloured squares on noise as images with boxes, in three forms of annotations; and a detector of them."""

import json

import numpy as np
from PIL import Image

CLASSES = ("red", "green")
COLORS = np.array([[230, 30, 30], [30, 230, 30]])
HEIGHT, WIDTH, SIDE = 48, 64, 12  # of the detector's input, and of the squares that it looks for


def detector():
    """Squares of 12 pixels, every 4 pixels, with how red and how green each is on average; no offsets to them."""
    import tf_keras

    layers = tf_keras.layers
    image = layers.Input((HEIGHT, WIDTH, 3))
    means = layers.AveragePooling2D(SIDE, 4)(image)
    colours, zeros = layers.Conv2D(2, 1, activation="sigmoid"), layers.Conv2D(4, 1, kernel_initializer="zeros")
    scores = layers.Reshape((-1, 2), name="scores")(colours(means))
    model = tf_keras.Model(image, [scores, layers.Reshape((-1, 4), name="offsets")(zeros(means))], name="squares")
    kernel = np.array([[12.0, -12.0], [-12.0, 12.0], [-6.0, -6.0]]) * 1.5
    colours.set_weights([kernel[None, None], np.array([-6.0, -6.0])])
    return model


def anchors():
    """The squares that the detector looks at: x1, y1, x2, y2 in fractions of its input, [squares, 4]."""
    y, x = np.mgrid[: (HEIGHT - SIDE) // 4 + 1, : (WIDTH - SIDE) // 4 + 1]
    corners = np.stack([x * 4, y * 4, x * 4 + SIDE, y * 4 + SIDE], axis=-1).reshape(-1, 4)
    return corners / np.array([WIDTH, HEIGHT] * 2)


def write(root, splits=("train", "val", "test"), count=6, forms=("coco", "voc", "yolo"), seed=0):
    """Images of two sizes; the last of each split has no box. Returns {split: {name: [(x1, y1, x2, y2, class)]}}."""
    rng, truth = np.random.default_rng(seed), {}
    for split in splits:
        place = root / split
        (place / "images").mkdir(parents=True)
        truth[split] = {}
        for number in range(count):
            height, width = [(40, 60), (64, 48)][number % 2]
            image = rng.integers(0, 60, (height, width, 3)).astype(np.uint8)
            boxes = []
            for _ in range(0 if number == count - 1 else 1 + number % 3):
                x, y, side, label = *rng.integers(0, 26, 2).tolist(), int(rng.integers(10, 14)), int(rng.integers(2))
                image[y : y + side, x : x + side] = COLORS[label]
                boxes.append((x, y, x + side, y + side, label))
            Image.fromarray(image).save(place / "images" / f"{split}{number}.png")
            truth[split][f"{split}{number}.png"] = (height, width, boxes)
        for form in forms:
            {"coco": _coco, "voc": _voc, "yolo": _yolo}[form](place, truth[split])
    if "yolo" in forms:
        (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return truth


def _coco(place, images):
    document = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 3 + i, "name": n} for i, n in enumerate(CLASSES)],
    }
    for number, (name, (height, width, boxes)) in enumerate(images.items()):
        document["images"].append({"id": number, "file_name": name, "width": width, "height": height})
        for x1, y1, x2, y2, label in boxes:
            box = {"image_id": number, "category_id": 3 + label, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            document["annotations"].append({"id": len(document["annotations"]) + 1, **box})
    (place / "instances_coco.json").write_text(json.dumps(document))


def _voc(place, images):
    (place / "annotations_voc").mkdir()
    for name, (_, _, boxes) in images.items():
        objects = "".join(
            f"\n<object><name>{CLASSES[label]}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for x1, y1, x2, y2, label in boxes
        )
        (place / "annotations_voc" / name.replace(".png", ".xml")).write_text(f"<annotation>{objects}\n</annotation>")


def _yolo(place, images):
    (place / "labels").mkdir()
    for name, (height, width, boxes) in images.items():
        if boxes:  # an image without boxes may be without a file
            lines = [
                f"{label} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} {(y2 - y1) / height}\n"
                for x1, y1, x2, y2, label in boxes
            ]
            (place / "labels" / name.replace(".png", ".txt")).write_text("".join(lines))
