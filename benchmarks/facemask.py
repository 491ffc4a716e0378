"""A published face-mask detector, pruned and quantized without labels: how much of its answers is kept.

    python benchmarks/facemask.py DETECTOR OUT [--epochs 12] [--seed 0] > benchmarks/results/teacher.md

DETECTOR: a folder with model/face_mask_ssd260.h5, model/anchors_cxcywh.npy, images/ and instances_coco.json. The build
sees the images only: `[task] kind = "teacher"` trains the pruned model to give the outputs of the unpruned one. Where
pycocotools is installed, the boxes of instances_coco.json then tell how well each file still detects. An interrupted
benchmark continues where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import io
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import builds
import numpy as np

SCALE = 1 / 255  # of pixels, for this detector
VARIANCES = (0.1, 0.2)  # of centres and sizes, relative to the anchors
MAX_OVERLAP = 0.4  # of two boxes that count as two
MIN_SCORE = 0.02  # below any that matters for AP
MAX_BOXES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detector", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    recipe = {
        "data": {"scale": SCALE},
        "task": {"kind": "teacher"},
        "filters": {"max_macs": 0.7},
        "finetune": {"epochs": options.epochs, "batch_size": 16},
        "quantize": {"modes": ["float32", "int8"]},
    }
    model, images = options.detector / "model/face_mask_ssd260.h5", options.detector / "images"
    report = builds.build(model, str(images), recipe, "teacher", options.out, options.seed, first="teacher")
    variants = report["variants"]
    samples = next(iter(variants[0]["metrics"].values()))["samples"]
    print("# A detector without labels\n")
    print(f"`{shlex.join(['python', *sys.argv])}` on {platform.system()}, {os.cpu_count()} cores.\n")
    print("The recipe:\n\n```toml")
    print(_toml(recipe), end="```\n\n")
    print(
        f"Figures on {samples} test images that no training and no choice saw. Agreement: 1 - squared error / variance"
    )
    print("of the unpruned model's outputs, output by output.\n")
    note = ""
    columns = ["file", "MACs", "bytes", "after gzip", *variants[0]["metrics"]]
    rows = [_row(variant, variants[0]) for variant in variants]
    if importlib.util.find_spec("pycocotools"):
        detector = Detector(options.detector, options.seed)
        columns += [f"AP50 {name}" for name in detector.classes]
        files = [options.out / "teacher" / variant["file"] for variant in variants]
        for row, file in zip(rows, files, strict=True):
            row += [f"{value:.3f}" for value in detector.ap50(file, detector.test)]
        whole = " and ".join(f"{value:.3f}" for value in detector.ap50(files[0], np.arange(detector.size)))
        note = f"\nOn all {detector.size} images, float32 has AP50 {whole}."
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(note)


def _toml(recipe: dict[str, Any]) -> str:
    import tomli_w

    return tomli_w.dumps(recipe)


def _row(variant: dict[str, Any], unpruned: dict[str, Any]) -> list[str]:
    return [
        variant["name"],
        f"{variant['macs'] / unpruned['macs']:.1%}",
        f"{variant['bytes']:,}",
        f"{variant['gzip_bytes']:,}",
        *(f"{metric['value']:.2%}" for metric in variant["metrics"].values()),
    ]


class Detector:
    """The labelled images of the detector, and what its outputs mean.

    Args:
        folder: of the detector.
        seed: of the build.

    Attributes:
        classes: names of the classes.
        size: number of images.
        test: positions of the images that the build tested on, in the order of their names.
    """

    def __init__(self, folder: Path, seed: int):
        from pycocotools.coco import COCO

        from edgeprune.data import InputSpec, load_data
        from edgeprune.models.load import load_model
        from edgeprune.recipe.config import DataConfig

        spec = InputSpec.of(load_model(folder / "model/face_mask_ssd260.h5"))
        self._split = load_data(str(folder / "images"), DataConfig(scale=SCALE), spec, seed=seed).test
        self._anchors = np.load(folder / "model/anchors_cxcywh.npy")
        with contextlib.redirect_stdout(io.StringIO()):
            self._truth = COCO(str(folder / "instances_coco.json"))
        self._images = sorted(self._truth.imgs.values(), key=lambda image: image["file_name"])
        self._categories = sorted(self._truth.cats)
        self.classes = [self._truth.cats[category]["name"] for category in self._categories]
        self.size, self.test = len(self._images), self._split.index

    def ap50(self, file: Path, positions: np.ndarray) -> np.ndarray:
        """Average precision at an overlap of 0.5, by class, of a .tflite on the images at these positions."""
        from pycocotools.cocoeval import COCOeval

        from edgeprune.runtime.interpreter import find_runtime
        from edgeprune.runtime.runner import run_samples

        split = dataclasses.replace(self._split, index=positions)
        inputs = np.concatenate([np.asarray(x) for x, *_ in split.batches(32)])
        outputs = run_samples(find_runtime().interpreter(file), [inputs])
        scores, loc = sorted(outputs, key=lambda output: output.shape[-1])
        images = [self._images[position] for position in positions]
        found = [box for of_image in zip(images, loc, scores, strict=True) for box in self._boxes(*of_image)]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(self._truth, self._truth.loadRes(found), "bbox")
            evaluation.params.imgIds = [image["id"] for image in images]
            evaluation.params.iouThrs = np.array([0.5])
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation.eval["precision"][0, :, :, 0, -1].mean(0)

    def _boxes(self, image: dict[str, Any], loc: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
        """Of one image, from offsets to the anchors [anchors, 4] and scores [anchors, classes], as COCO has them."""
        import tensorflow as tf

        centre = loc[:, :2] * VARIANCES[0] * self._anchors[:, 2:] + self._anchors[:, :2]
        size = np.exp(loc[:, 2:] * VARIANCES[1]) * self._anchors[:, 2:]
        corners = np.clip(np.concatenate([centre - size / 2, centre + size / 2], axis=1), 0, 1)
        best = scores.max(axis=1)
        kept = tf.image.non_max_suppression(corners, best, MAX_BOXES, MAX_OVERLAP, MIN_SCORE).numpy()
        corners *= [image["width"], image["height"]] * 2
        return [
            {
                "image_id": image["id"],
                "category_id": self._categories[scores[i].argmax()],
                "bbox": [*corners[i, :2].tolist(), *(corners[i, 2:] - corners[i, :2]).tolist()],
                "score": float(best[i]),
            }
            for i in kept
        ]


if __name__ == "__main__":
    main()
