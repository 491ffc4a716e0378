"""The model of examples/keywords for a microcontroller: weights on coarse grids, int8, and encoded for TFLite Micro.

    python examples/keywords/train.py --data audio_fsdd.tar.gz --out DIGITS
    python examples/micro/run.py --keywords DIGITS --out OUT

Writes the run folder OUT/run, and OUT/encoded.tflite, whose answers to 100 random inputs are compared with those of the
plain file, both by TensorFlow Lite Micro's interpreter. The last line has the figures.
"""

import argparse
from pathlib import Path

import numpy as np
from tflite_micro.python.tflite_micro import runtime

import edgeprune


def answers(file: Path, inputs: np.ndarray) -> np.ndarray:
    """The first output for each of the inputs, float32 [inputs, ...], by TensorFlow Lite Micro's interpreter."""
    interpreter = runtime.Interpreter.from_file(str(file))
    found = []
    for x in inputs:
        interpreter.set_input(x[None], 0)
        interpreter.invoke()
        found.append(interpreter.get_output(0)[0])
    return np.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--keywords", "--out"):
        parser.add_argument(name, type=Path, required=True)
    options = parser.parse_args()
    given, out = options.keywords, options.out
    out.mkdir(parents=True, exist_ok=True)
    sound = (given / "keywords.toml").read_text("utf-8")
    (out / "recipe.toml").write_text(sound.replace('"int8"', '"micro"'), "utf-8")
    report = edgeprune.build(
        given / "model.keras", data=str(given / "data"), recipe=out / "recipe.toml", out=out / "run"
    )
    picked = next(file for file in report.variants if file.name.endswith("-int8"))
    plain, encoded = out / "run" / picked.file, out / "encoded.tflite"
    encoding = edgeprune.encode(plain, encoded)
    shape = runtime.Interpreter.from_file(str(plain)).get_input_details(0)["shape"][1:]
    inputs = np.random.default_rng(0).normal(0, 10, (100, *shape)).astype(np.float32)
    equal = int(np.sum(np.all(answers(plain, inputs) == answers(encoded, inputs), axis=1)))
    print({"accuracy": picked.metric.value, "bytes": encoding.plain_bytes, "encoded": encoding.bytes, "equal": equal})


if __name__ == "__main__":
    main()
