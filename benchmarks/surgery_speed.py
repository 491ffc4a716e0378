"""How long graph, scores, selection and surgery take, and how that grows with the number of layers.

python benchmarks/surgery_speed.py [NAME ...]
"""

import argparse
import itertools
import os
import platform
import time

from edgeprune._tensorflow import import_tf

NAMES = ["MobileNetV2", "ResNet50", "ResNet101", "ResNet152", *(f"EfficientNetB{i}" for i in range(8))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES)
    names = parser.parse_args().names
    import_tf()
    import tf_keras

    print(f"{platform.system()}, Python {platform.python_version()}, {os.cpu_count()} cores; 224x224, max_macs=50 %")
    print(
        "| architecture | layers | groups | graph | scores | selection | surgery | all (s) | ms/layer | Keras builds |"
    )
    print("|---" * 10 + "|")
    for name in names:
        tf_keras.backend.clear_session()
        start = time.perf_counter()
        model = getattr(tf_keras.applications, name)(weights=None, input_shape=(224, 224, 3))
        print(_row(name, model, time.perf_counter() - start), flush=True)


def _row(name, model, built) -> str:
    from edgeprune.prune.channels.analyse import analyse
    from edgeprune.prune.channels.surgery import remove
    from edgeprune.prune.choice.allocation import allocate
    from edgeprune.prune.choice.budget import Budget, Constraints
    from edgeprune.prune.choice.criteria import CRITERIA, Evidence

    times = [time.perf_counter()]
    graph = analyse(model)
    times.append(time.perf_counter())
    scores = CRITERIA["l2"].score(graph, Evidence())
    times.append(time.perf_counter())
    keep = allocate(graph, scores, Budget(max_macs=0.5), "global", Constraints()).keep
    times.append(time.perf_counter())
    remove(graph, keep)
    times.append(time.perf_counter())
    parts = [after - before for before, after in itertools.pairwise(times)]
    total = sum(parts)
    cells = [
        *(f"{part:.1f}" for part in parts),
        f"{total:.1f}",
        f"{1e3 * total / len(model.layers):.0f}",
        f"{built:.1f}",
    ]
    return f"| {name} | {len(model.layers)} | {len(graph.groups)} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
