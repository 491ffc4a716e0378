"""A model through int8, against a reference conversion of the same model, on the same images.

    python benchmarks/mlperf_reference.py MODEL REFERENCE DATA [SAMPLES]

Size: edgeprune's file without and with metadata beside the reference's. Accuracy: both files on the same SAMPLES test
images (2,000 by default), drawn in proportion to the classes. The int8 inputs and outputs are the reference's own.
"""

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("reference", type=Path)
    parser.add_argument("data")
    parser.add_argument("samples", nargs="?", type=int, default=2000)
    options = parser.parse_args()

    from edgeprune._tensorflow import import_tf

    import_tf()
    import tf_keras

    from edgeprune.calibration import representative_dataset, representative_indices
    from edgeprune.convert.converter import convert
    from edgeprune.data import InputSpec, load_data
    from edgeprune.models.load import load_model
    from edgeprune.quantize.plan import QuantizationPlan
    from edgeprune.recipe.config import DataConfig, TaskConfig
    from edgeprune.tasks.resolve import resolve_task
    from edgeprune.tflite.flatbuffer import parse
    from edgeprune.tflite.metadata import describe, with_metadata

    tf_keras.utils.set_random_seed(0)
    model = load_model(options.model)
    data = load_data(options.data, DataConfig(), InputSpec.of(model), seed=0)
    task = resolve_task(model, TaskConfig(), data)
    data = task.prepare(data)
    test = data.test.subset(representative_indices(data.test, options.samples, "stratified", 0))
    samples = representative_dataset(data.train, representative_indices(data.train, 256, "stratified", 0))
    content = convert(model, QuantizationPlan("int8", "int8", needs_samples=True), samples)
    labels = data.class_names
    info = describe(model, parse(content), data.preprocessing, description="int8", version="1", classes=labels)
    described = with_metadata(content, info)
    print(f"`python {' '.join(sys.argv)}` on {platform.system()}, {os.cpu_count()} cores, seed 0, 256 samples.\n")
    print(f"| file | bytes | of them metadata | {task.metric}, {test.size} test images |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        ours = Path(folder) / "ours.tflite"
        ours.write_bytes(described)
        rows = (("reference", options.reference, 0), ("edgeprune int8", ours, len(described) - len(content)))
        for name, path, metadata in rows:
            value = accuracy(path, model, test, task)
            print(f"| {name} | {path.stat().st_size:,} | {metadata:,} | {value:.2%} |", flush=True)


def accuracy(path, model, split, task) -> float:
    from edgeprune.evaluate.accuracy import evaluate_tflite
    from edgeprune.progress import Progress
    from edgeprune.runtime.interpreter import find_runtime
    from edgeprune.runtime.session import Session

    session = Session(path, model.input_names, model.output_names, runtime=find_runtime(), threads=1)
    figures, _ = evaluate_tflite(session, split, task, progress=Progress())
    session.close()
    return task.value(figures)


if __name__ == "__main__":
    main()
