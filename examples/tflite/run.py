"""A .tflite that somebody else converted, pruned and quantized with a folder of images and no labels.

    python examples/tflite/run.py --model mlperf_tiny_resnet8_int8_reference.tflite \\
        --data cifar10-jpeg.tar.gz --out OUT [--images 1000]

Writes OUT/model.tflite, OUT/images, OUT/recipe.toml, and the run folder OUT/run. The last line has, for every file, how
often its class is that of the original file, on images that no step saw.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import edgeprune

RECIPE = 'extends = ["oneshot"]\n'  # this file takes pixels as they are; else [data] scale, or mean and std


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--model", "--data", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args()
    out, images = options.out, options.out / "images"
    images.mkdir(parents=True, exist_ok=True)
    shutil.copy(options.model, out / "model.tflite")
    with tempfile.TemporaryDirectory() as unpacked:
        shutil.unpack_archive(options.data, unpacked, filter="data")
        found = sorted(Path(unpacked).rglob("*.jpg"))
        for image in found[:: max(1, len(found) // options.images)]:  # some of each folder, all in one
            shutil.copy(image, images / "-".join(image.relative_to(unpacked).parts))
    (out / "recipe.toml").write_text(RECIPE, "utf-8")
    report = edgeprune.build(out / "model.tflite", data=str(images), recipe=out / "recipe.toml", out=out / "run")
    print({file.name: {"agreement": file.metric.value, "bytes": file.bytes} for file in report.variants})


if __name__ == "__main__":
    main()
