"""A published detector of face masks, pruned without a single label: the unpruned model is the teacher.

    python examples/teacher/run.py --detector detector_facemask.tar.gz --out OUT

Writes the detector into OUT/detector, OUT/recipe.toml, and the run folder OUT/run. The last line has, for every file,
its agreement with the unpruned model on images that no step saw: 1 - squared error / variance of the boxes.
"""

import argparse
import shutil
from pathlib import Path

import edgeprune

RECIPE = """extends = ["oneshot"]

[data]
scale = 0.00392156862745098

[task]
kind = "teacher"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--detector", "--out"):
        parser.add_argument(name, type=Path, required=True)
    options = parser.parse_args()
    out = options.out
    shutil.unpack_archive(options.detector, out / "detector", filter="data")
    (model,) = (out / "detector").rglob("face_mask_ssd260.h5")
    images = model.parents[1] / "images"
    (out / "recipe.toml").write_text(RECIPE, "utf-8")
    report = edgeprune.build(model, data=str(images), recipe=out / "recipe.toml", out=out / "run")
    print({file.name: {"agreement": file.metric.value, "bytes": file.bytes} for file in report.variants})


if __name__ == "__main__":
    main()
