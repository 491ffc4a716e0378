"""What fine-tuning under edgeprune costs over plain tf_keras ``fit`` of the same wrapped model, epoch for epoch.

    python benchmarks/finetune_overhead.py MODEL DATA [EPOCHS]

Both train the same pruning-wrapped model on the same data in one process, one epoch each in turn, after one warm-up
epoch each. Also times the evaluation of a .tflite on the test split against an epoch.
"""

import argparse
import os
import platform
import statistics
import tempfile
import threading
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("epochs", nargs="?", type=int, default=3)
    options = parser.parse_args()

    from edgeprune._tensorflow import import_tf

    import_tf()
    print(
        f"{platform.system()}, {os.cpu_count()} cores; {options.model} on {options.data}, {options.epochs} epochs each"
    )
    model, data, task, config = _prepare(options.model, options.data, options.epochs)
    ours, plain = _edgeprune_epochs(model, data, task, config), _plain_epochs(model, data, task, config)
    pairs = [(next(ours), next(plain)) for _ in range(config.epochs)][1:]
    for a, b in pairs:
        print(f"epoch: edgeprune {a:.1f} s, plain fit {b:.1f} s, ratio {a / b:.3f}")
    print(f"median ratio {statistics.median(a / b for a, b in pairs):.3f}")
    seconds = _evaluation(model, data, task)
    epoch = statistics.median(a for a, _ in pairs)
    print(f".tflite on {data.test.size} test samples: {seconds:.1f} s, {seconds / epoch:.2f} of a training epoch")


def _prepare(model_path, source, epochs):
    from edgeprune.data import InputSpec, load_data
    from edgeprune.models.load import load_model
    from edgeprune.recipe.config import DataConfig, FinetuneConfig, TaskConfig
    from edgeprune.tasks.resolve import resolve_task

    model = load_model(model_path)
    data = load_data(source, DataConfig(), InputSpec.of(model), seed=0)
    task = resolve_task(model, TaskConfig(), data)
    return model, task.prepare(data), task, FinetuneConfig(epochs=epochs + 1)


def _wrapped(model, data, config):
    from edgeprune.prune.weights import magnitude
    from edgeprune.recipe.config import WeightsConfig
    from edgeprune.train.finetune import steps_per_epoch

    return magnitude.wrap(model, WeightsConfig(), config.epochs * steps_per_epoch(data, config))[0]


def _edgeprune_epochs(model, data, task, config):
    """Yield the seconds of each epoch of ``finetune``, which runs in a thread of its own and stops after each epoch."""
    from edgeprune.progress import Progress
    from edgeprune.prune.weights import magnitude
    from edgeprune.train.finetune import Lessons, finetune

    wrapped = _wrapped(model, data, config)
    turn, done = threading.Semaphore(0), threading.Semaphore(0)

    class Turns(Progress):
        def note(self, text):
            done.release()
            turn.acquire()

    def work(folder):
        turn.acquire()
        finetune(
            wrapped, data, task, Lessons(config), seed=0, deterministic=False, state_file=Path(folder) / "state.npz",
            progress=Turns(), callbacks=magnitude.callbacks(),
        )  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        threading.Thread(target=work, args=[folder], daemon=True).start()
        for _ in range(config.epochs):
            start = time.perf_counter()
            turn.release()
            done.acquire()
            yield time.perf_counter() - start


def _plain_epochs(model, data, task, config):
    """Yield the seconds of each epoch of ``fit``."""
    from edgeprune.prune.weights import magnitude
    from edgeprune.tasks.task import evaluation_batch
    from edgeprune.train.finetune import compile_model, steps_per_epoch

    wrapped = _wrapped(model, data, config)
    compile_model(wrapped, task, config, config.epochs * steps_per_epoch(data, config))
    train = data.train.batches(config.batch_size, shuffle_seed=1)
    validation = data.validation.batches(evaluation_batch(data.validation.spec))
    for epoch in range(config.epochs):
        start = time.perf_counter()
        wrapped.fit(
            train,
            validation_data=validation,
            initial_epoch=epoch,
            epochs=epoch + 1,
            verbose=0,
            callbacks=magnitude.callbacks(),
        )
        yield time.perf_counter() - start


def _evaluation(model, data, task) -> float:
    from edgeprune.convert.converter import convert
    from edgeprune.evaluate.accuracy import evaluate_tflite
    from edgeprune.progress import Progress
    from edgeprune.quantize.plan import QuantizationPlan
    from edgeprune.runtime.interpreter import find_runtime
    from edgeprune.runtime.session import Session

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(convert(model, QuantizationPlan("float32", "float", needs_samples=False)))
        session = Session(path, model.input_names, model.output_names, runtime=find_runtime())
        start = time.perf_counter()
        evaluate_tflite(session, data.test, task, progress=Progress())
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
