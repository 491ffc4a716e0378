"""The model of examples/keywords for a microcontroller: weights on coarse grids, int8, and encoded for TFLite Micro.

    python examples/keywords/train.py --data audio_fsdd.tar.gz --out DIGITS
    python examples/micro/run.py --keywords DIGITS --out OUT

Writes OUT/recipe.toml and the run folder OUT/run, whose folder micro/ has a sketch and a project around the file. The
last line has, for every file for the board, its accuracy, measured by TensorFlow Lite Micro's interpreter on the bytes
that are flashed, and its flash and RAM; `plain` is the flash without encoded weights.
"""

import argparse
from pathlib import Path

import edgeprune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--keywords", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--target", default="arduino-nano33")
    options = parser.parse_args()
    given, out = options.keywords, options.out
    out.mkdir(parents=True, exist_ok=True)
    sound = (given / "keywords.toml").read_text("utf-8")
    (out / "recipe.toml").write_text(sound.replace('"int8"', '"micro"'), "utf-8")
    report = edgeprune.build(
        given / "model.keras",
        data=str(given / "data"),
        target=options.target,
        recipe=out / "recipe.toml",
        out=out / "run",
    )
    figures = {}
    for file in report.variants:
        if micro := file.micro:
            sizes = {"flash": micro.flash_bytes, "plain": micro.plain_bytes, "ram": micro.ram_bytes}
            figures[file.name] = {"accuracy": file.metric.value, **sizes}
    print(figures)


if __name__ == "__main__":
    main()
