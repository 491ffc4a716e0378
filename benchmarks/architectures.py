"""Every architecture of tf_keras.applications and keras.applications: groups, freezes, what pruning removes, seconds.

python benchmarks/architectures.py [NAME ...]     (rows in benchmarks/results/architectures.md are kept)
"""

import argparse
import gc
import importlib
import inspect
import os
import platform
import time
from pathlib import Path

from edgeprune._tensorflow import import_tf

RESULTS = Path(__file__).parent / "results" / "architectures.md"
COLUMNS = [
    "Keras", "architecture", "input", "groups", "frozen (reason)", "MACs (M)", "after 30 % of filters",
    "after 50 % of MACs", "parameters (M)", "after 30 % of filters", "after 50 % of MACs", "seconds", "difference",
]  # fmt: skip

HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    names = parser.parse_args().names
    import_tf()
    known = _rows_in(RESULTS)
    print(HEADER, end="", flush=True)
    for version in ("tf_keras", "keras"):
        module = importlib.import_module(f"{version}.applications")
        for name in [n for n in dir(module) if inspect.isfunction(getattr(module, n))]:
            if names and name not in names:
                continue
            if (version, name) not in known:
                known[version, name] = f"| {version} | {name} | {_measure(getattr(module, name))} |"
                RESULTS.write_text(_page(known))
            print(known[version, name], flush=True)


def _rows_in(path: Path) -> dict[tuple[str, str], str]:
    """What an earlier run wrote, by version and architecture; a run that was broken off goes on from there."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [line for line in lines if line.startswith(("| tf_keras |", "| keras |"))]
    return {(row.split(" | ")[0].removeprefix("| "), row.split(" | ")[1]): row for row in rows}


def _page(rows: dict[tuple[str, str], str]) -> str:
    intro = (
        "# What is pruned of every architecture\n\n`python benchmarks/architectures.py`\n\n"
        f"{platform.system()}, Python {platform.python_version()}, {os.cpu_count()} cores. Random weights, "
        "smallest inputs, L2 norms. 30 % of filters: uniform; 50 % of MACs: one global ranking. Seconds: graph, "
        "scores, selection and surgery together, for the second. Difference: from the masked original, relative, "
        "the larger of both.\n\n"
    )
    return intro + HEADER + "\n".join(rows.values()) + "\n"


def _measure(make) -> str:
    import tf_keras

    from edgeprune.models.count import count
    from edgeprune.models.load import load_model
    from edgeprune.prune.channels import surgery
    from edgeprune.prune.channels.analyse import analyse
    from edgeprune.prune.filters import mask_filters, prune_filters

    tf_keras.backend.clear_session()
    gc.collect()
    size = {"Inception": 75, "Xception": 71}.get(make.__name__.removesuffix("V3").removesuffix("ResNetV2"), 32)
    known = inspect.signature(make).parameters
    linear = {"classifier_activation": None} if {"classifier_activation", "kwargs"} & known.keys() else {}
    model = load_model(make(weights=None, input_shape=(size, size, 3), **linear))
    groups = analyse(model).groups
    reasons = sorted({group.frozen for group in groups if group.frozen})
    frozen = f"{sum(bool(group.frozen) for group in groups)} ({'; '.join(_short(reasons))})"
    before = count(model)
    by_rate = prune_filters(model, 0.3, allocation="uniform")
    start = time.perf_counter()
    by_macs = prune_filters(model, max_macs=0.5, verify=False)
    seconds = time.perf_counter() - start
    counts = [count(found.model) for found in (by_rate, by_macs)]
    difference = max(by_rate.difference, surgery.verify(by_macs.model, mask_filters(model, by_macs.removed)))
    figures = [f"{c.macs / 1e6:.1f}" for c in (before, *counts)], [f"{c.params / 1e6:.2f}" for c in (before, *counts)]
    cells = [f"{size}x{size}", len(groups), frozen, *figures[0], *figures[1], f"{seconds:.1f}", f"{difference:.0e}"]
    return " | ".join(map(str, cells))


def _short(reasons: list[str]) -> list[str]:
    """Reasons with the names of layers left out, each once."""
    words = [" ".join(word for word in reason.split() if "'" not in word) for reason in reasons]
    return list(dict.fromkeys(words))


if __name__ == "__main__":
    main()
