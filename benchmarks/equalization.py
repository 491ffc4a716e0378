"""How much accuracy cross-layer equalization and rounding by moments restore in an int8 model with skewed channels.

    python benchmarks/equalization.py MODEL DATA [SAMPLES]

How channels are skewed: in every pair of layers that a positive factor can move between, channel i of the first is
multiplied by 10^u, and the second's weights on it are divided by it, u uniform in -WIDTH..WIDTH. The float model
computes the same as before. Trained networks with batch normalization before depthwise layers have such ranges by
themselves (Nagel et al. 2019, figure 2); their width is chosen here. Accuracy on SAMPLES test images (1,000 by
default), drawn in proportion to the classes.
"""

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path

WIDTHS = (0.0, 1.0, 1.5)
PREPARATIONS = {"none": (), "equalized": ("equalize",), "equalized, by moments": ("equalize", "round")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("samples", nargs="?", type=int, default=1000)
    options = parser.parse_args()

    from edgeprune._tensorflow import import_tf

    import_tf()
    import numpy as np
    import tf_keras

    from edgeprune.calibration import representative_dataset, representative_indices
    from edgeprune.data import InputSpec, load_data
    from edgeprune.evaluate.accuracy import evaluate_keras
    from edgeprune.models.load import load_model
    from edgeprune.recipe.config import DataConfig, TaskConfig
    from edgeprune.tasks.resolve import resolve_task

    tf_keras.utils.set_random_seed(0)
    model = load_model(options.model)
    data = load_data(options.data, DataConfig(), InputSpec.of(model), seed=0)
    task = resolve_task(model, TaskConfig(), data)
    data = task.prepare(data)
    test = data.test.subset(representative_indices(data.test, options.samples, "stratified", 0))
    samples = representative_dataset(data.train, representative_indices(data.train, 128, "stratified", 0))
    weights = model.get_weights()
    print(f"`python {' '.join(sys.argv)}` on {platform.system()}, {os.cpu_count()} cores, seed 0.\n")
    print(f"{task.metric} on {test.size} test images; per-channel int8, 128 calibration samples.\n")
    print("| width of the skew, powers of ten | float | prepared | int8 |\n|---|---|---|---|")
    for width in WIDTHS:
        for name, steps in PREPARATIONS.items():
            model.set_weights(weights)
            skew(model, width, np.random.default_rng(0))
            value = evaluate_keras(model, test, task)
            prepared = prepare(model, steps, samples, data.validation)
            print(f"| ±{width} | {value:.2%} | {name} | {int8(prepared, samples, test, task):.2%} |", flush=True)


def skew(model, width, rng) -> None:
    """Multiply what makes a channel, divide what reads it."""
    from edgeprune.quantize.equalize import find_pairs, move

    for pair in find_pairs(model):
        move(pair, 10 ** rng.uniform(-width, width, pair.channels))


def prepare(model, steps, samples, validation):
    import numpy as np

    from edgeprune.calibration import representative_indices
    from edgeprune.quantize.equalize import equalize
    from edgeprune.quantize.rounding import EIGHT_BITS, round_by_moments

    if "equalize" in steps:
        equalize(model)
    if "round" not in steps:
        return model
    rows = np.concatenate([sample[0] for sample in samples()])
    judging = validation.subset(representative_indices(validation, 128, "stratified", 0))
    fitting = [[part] for part in np.array_split(rows, 4)]
    return round_by_moments(model, fitting, [[x] for x, *_ in judging.batches(64)], EIGHT_BITS, ridge=1e-4).model


def int8(model, samples, split, task) -> float:
    from edgeprune.convert.converter import convert
    from edgeprune.evaluate.accuracy import evaluate_tflite
    from edgeprune.progress import Progress
    from edgeprune.quantize.plan import QuantizationPlan
    from edgeprune.runtime.interpreter import find_runtime
    from edgeprune.runtime.session import Session

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(convert(model, QuantizationPlan("int8", "float", needs_samples=True), samples))
        session = Session(path, model.input_names, model.output_names, runtime=find_runtime(), threads=1)
        figures, _ = evaluate_tflite(session, split, task, progress=Progress())
        session.close()
    return task.value(figures)


if __name__ == "__main__":
    main()
