"""A MobileNetV1 of width 0.25 through the recipe `sparse`: size, accuracy, and whether sparse kernels are expected.

    python benchmarks/sparse_inference.py DATA OUT [--epochs 20] [--finetune-epochs 12] [--sparsity 0.8]
        > benchmarks/results/sparse_inference.md

DATA is any data source of 32x32 colour images, such as CIFAR-10 in class folders; OUT takes the dense model and the run
folder. An interrupted run goes on where it was. The network is the published one, with two of its five strides left
out for the small images (32, 16, 8, 4 pixels), and trained with
'same' padding, so that the rewrite for sparse inference, and its cost in accuracy, is part of the measurement.
"""

import argparse
import os
import platform
import sys
from pathlib import Path

WIDTH = 0.25
# Filters (of width 1) and stride of each depthwise-separable block.
BLOCKS = [(64, 1), (128, 1), (128, 1), (256, 2), (256, 1), (512, 1), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
AUGMENT = {"flip": True, "shift": 4}
MAX_SIZE, MAX_DROP = 0.5, 2.0  # of the dense file's bytes; points of accuracy


def main() -> None:
    arguments = _arguments()
    from edgeprune._tensorflow import import_tf

    import_tf()
    from edgeprune import build
    from edgeprune.checking.check import Subject, sparse_inference
    from edgeprune.models.load import load_model
    from edgeprune.recipe.load import parse_recipe
    from edgeprune.target import load_target
    from edgeprune.tflite.flatbuffer import read

    dense = arguments.out / "mobilenet.keras"
    if not dense.exists():
        train(arguments.data, arguments.epochs, dense)
    table = {
        "extends": "sparse",
        "weights": {"sparsity": arguments.sparsity},
        "finetune": {"epochs": arguments.finetune_epochs},
        "augment": AUGMENT,
    }
    report = build(
        dense,
        target="rpi4",
        data=str(arguments.data),
        recipe=parse_recipe(table, "sparse-cifar"),
        out=arguments.out / "run",
    )
    before, after = report["variants"]
    target = load_target("rpi4")
    files = [arguments.out / "run" / row["file"] for row in (before, after)]
    subjects = [Subject(files[0], read(files[0]), load_model(dense), "float32"), Subject(files[1], read(files[1]))]
    verdicts = [sparse_inference(subject, target)[0].what for subject in subjects]
    _print(report, before, after, verdicts)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--finetune-epochs", type=int, default=12)
    parser.add_argument("--sparsity", type=float, default=0.8)
    return parser.parse_args()


def mobilenet():
    """MobileNetV1 (Howard et al. 2017, arXiv:1704.04861), width 0.25, for 32x32x3 images of 0..255 and 10 classes."""
    import tf_keras

    layers = tf_keras.layers
    inputs = layers.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, -1)(inputs)
    x = layers.Conv2D(int(32 * WIDTH), 3, 2, "same", use_bias=False, name="stem")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
    for number, (filters, stride) in enumerate(BLOCKS, 1):
        x = layers.DepthwiseConv2D(3, stride, "same", use_bias=False, name=f"depthwise{number}")(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.Conv2D(int(filters * WIDTH), 1, use_bias=False, name=f"pointwise{number}")(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
    outputs = layers.Dense(10, "softmax", name="classes")(layers.GlobalAveragePooling2D()(x))
    model = tf_keras.Model(inputs, outputs, name="mobilenet")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def train(source: str, epochs: int, path: Path) -> None:
    """Train the dense network; epochs that are done are kept beside ``path``."""
    import tf_keras

    from edgeprune.data import InputSpec, load_data
    from edgeprune.models.save import save_model
    from edgeprune.progress import Progress
    from edgeprune.recipe.config import AugmentConfig, DataConfig, FinetuneConfig, TaskConfig
    from edgeprune.tasks.resolve import resolve_task
    from edgeprune.train.finetune import Lessons, finetune

    tf_keras.utils.set_random_seed(0)
    model = mobilenet()
    data = load_data(source, DataConfig(), InputSpec.of(model), seed=0)
    task = resolve_task(model, TaskConfig(), data)
    path.parent.mkdir(parents=True, exist_ok=True)
    finetune(
        model,
        task.prepare(data),
        task,
        Lessons(FinetuneConfig(epochs=epochs, learning_rate=3e-3, batch_size=64), None, AugmentConfig(**AUGMENT)),
        seed=0,
        deterministic=False,
        state_file=path.parent / "training.npz",
        progress=Progress(),
    )
    save_model(model, path)


def _print(report, before, after, verdicts) -> None:
    size = after["bytes"] / before["bytes"]
    bars = [
        (f"at most {MAX_SIZE} of the dense file", f"{size:.3f}", size <= MAX_SIZE),
        (f"within {MAX_DROP} points", f"{after['drop_points']:.2f} points lost", after["drop_points"] <= MAX_DROP),
        ("stored sparse, sparse kernels expected", verdicts[1], after["sparse_path"]["expected"]),
    ]
    print("# Sparse inference\n")
    print(f"`python {' '.join(sys.argv)}` on {platform.system()}, {os.cpu_count()} cores, seed 0.\n")
    data = report["data"]
    print(f"{data['train']} training, {data['validation']} validation and {data['test']} test images.\n")
    print("| file | accuracy on test | bytes | after gzip | zeros in all kernels |\n|---|---|---|---|---|")
    for row in (before, after):
        figures = f"{row['metric']['value']:.2%} | {row['bytes']:,} | {row['gzip_bytes']:,}"
        print(f"| {row['name']} | {figures} | {row['weight_sparsity']:.1%} |")
    print("\n| bar | found | |\n|---|---|---|")
    for name, found, passed in bars:
        print(f"| {name} | {found} | {'met' if passed else 'missed'} |")
    print(f"\n`edgeprune check` before training says: {verdicts[0]}.\n")
    print("\n".join(f"- {text}" for text in after["warnings"]))
    print("\n| kernel | shape | zeros | stored as | bytes | expected kernels on ARM |\n|---|---|---|---|---|---|")
    for row in after["kernels"]:
        shape = "x".join(map(str, row["shape"]))
        stored = f"{row['encoding']} | {row['stored_bytes']:,} | {row['expected_kernels']}"
        print(f"| {row['operator']} | {shape} | {row['sparsity']:.1%} | {stored} |")


if __name__ == "__main__":
    main()
