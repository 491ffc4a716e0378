"""All pruning criteria on one model: accuracy on test before and after a short fine-tune of equal length.

    python benchmarks/criteria.py MODEL DATA [STEPS [TEST_SAMPLES]] > benchmarks/results/criteria.md

For each criterion and share of the MACs removed: right after removal, after compensation (folded means, re-estimated
batch normalization), and after STEPS optimizer steps of fine-tuning (batch 64, Adam, cosine from 0.001). TEST_SAMPLES:
how many test samples, stratified, the figures are taken on; all by default.
"""

import argparse
import dataclasses
import os
import platform
import sys
import time

REMOVED = (0.3, 0.5, 0.7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("steps", nargs="?", type=int, default=300)
    parser.add_argument("test_samples", nargs="?", type=int)
    options = parser.parse_args()

    from edgeprune._tensorflow import import_tf

    import_tf()
    import tf_keras

    from edgeprune.calibration import representative_indices
    from edgeprune.data import InputSpec, load_data
    from edgeprune.evaluate.accuracy import evaluate_keras
    from edgeprune.models.load import load_model
    from edgeprune.prune.choice.criteria import CRITERIA
    from edgeprune.recipe.config import DataConfig, TaskConfig
    from edgeprune.tasks.resolve import resolve_task

    tf_keras.utils.set_random_seed(0)
    model = load_model(options.model)
    data = load_data(options.data, DataConfig(), InputSpec.of(model), seed=0)
    task = resolve_task(model, TaskConfig(), data)
    data = task.prepare(data)
    if options.test_samples:
        chosen = representative_indices(data.test, options.test_samples, "stratified", 0)
        data = dataclasses.replace(data, test=data.test.subset(chosen))
    print("# Criteria\n")
    print(f"`python {' '.join(sys.argv)}` on {platform.system()}, {os.cpu_count()} cores, seed 0.\n")
    unpruned = _percent(evaluate_keras, model, data, task)
    print(f"{task.metric} on {data.test.size} test samples; the unpruned model: {unpruned}.")
    print(f"Global ranking, one shot, channels not rounded; fine-tuned for {options.steps} steps.\n")
    print(
        "| MACs removed | criterion | pruned | compensated | fine-tuned | seconds |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for removed in REMOVED:
        for name in CRITERIA:
            start = time.perf_counter()
            row = _row(model, data, task, name, removed, options.steps)
            print(f"| {removed:.0%} | {name} | {' | '.join(row)} | {time.perf_counter() - start:.0f} |", flush=True)


def _percent(evaluate, model, data, task) -> str:
    return f"{evaluate(model, data.test, task):.2%}"


def _row(model, data, task, criterion, removed, steps) -> list[str]:
    from edgeprune.calibration import representative_indices
    from edgeprune.evaluate.accuracy import evaluate_keras
    from edgeprune.prune.channels import surgery
    from edgeprune.prune.channels.analyse import analyse
    from edgeprune.prune.choice.budget import Budget, Constraints
    from edgeprune.prune.choice.criteria import Evidence
    from edgeprune.prune.filters import choose
    from edgeprune.recipe.config import FinetuneConfig
    from edgeprune.reconstruction.forward import in_order
    from edgeprune.reconstruction.refit import refit
    from edgeprune.train.finetune import compile_model

    seen = data.train.subset(representative_indices(data.train, 2048, "stratified", 0))
    evidence = Evidence(lambda: seen.batches(32, shuffle_seed=0), task, 0)
    graph = analyse(model)
    keep = choose(graph, Budget(max_macs=1 - removed), criterion, "global", Constraints(min_channels=2), evidence)
    pruned = surgery.remove(graph, keep)
    row = [_percent(evaluate_keras, pruned, data, task)]
    refit(model, pruned, [in_order(model, x) for x, *_ in seen.batches(64)], graph.kept_outputs(keep))
    row.append(_percent(evaluate_keras, pruned, data, task))
    compile_model(pruned, task, FinetuneConfig(), steps)
    pruned.fit(data.train.batches(64, shuffle_seed=1, repeat=True), steps_per_epoch=steps, epochs=1, verbose=0)
    return [*row, _percent(evaluate_keras, pruned, data, task)]


if __name__ == "__main__":
    main()
