"""How a search on a Ray cluster scales: trials that sleep, on 1, 2 and 4 nodes of one processor on this machine.

What is measured is everything around the trials: Optuna with its journal, edgeprune's executor, Ray. From the part that
only the searching process can do, Amdahl's law says what more workers would give.

    python benchmarks/search_scaling.py --trials 40 --seconds 0.5 --out benchmarks/results/search_scaling.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

WORKERS = (1, 2, 4)
ON_PAPER = (10, 100, 1000)
# Seconds of a trial: reconstruction of a small model, few epochs, training on a large data set.
TRIALS_S = (10.0, 60.0, 600.0)


def sleep(seconds: float) -> float:
    """A trial that takes no processor."""
    time.sleep(seconds)
    return seconds


def measure(workers: int, trials: int, seconds: float) -> dict[str, float]:
    """Run sleeping trials on nodes of one processor.

    Returns:
        ``seconds`` in all, once every worker is warm, and ``serial``: seconds of the searching process per trial.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage
    from ray.cluster_utils import Cluster

    from edgeprune.searching.cluster import RayCluster
    from edgeprune.searching.executors import Job

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(workers - 1):
        cluster.add_node(num_cpus=1)
    with tempfile.TemporaryDirectory() as folder:
        executor = RayCluster(cluster.address, Path(folder) / "stages", None, print)
        try:
            for number in range(workers):  # processes start
                executor.submit(Job(number, sleep, (1.0,)))
            for _ in range(workers):
                executor.next()
            storage = JournalStorage(JournalFileBackend(f"{folder}/journal"))
            study = optuna.create_study(storage=storage, directions=["minimize", "minimize"])
            started, serial, under_way, begun, ended = time.monotonic(), 0.0, {}, 0, 0
            while ended < trials:
                since = time.monotonic()
                while begun < trials and len(under_way) < workers:
                    trial = study.ask()
                    values = [trial.suggest_float(f"x{i}", 0, 1) for i in range(6)]
                    under_way[workers + begun] = trial, values
                    executor.submit(Job(workers + begun, sleep, (seconds,)))
                    begun += 1
                serial += time.monotonic() - since
                outcome = executor.next()
                assert outcome is not None
                since = time.monotonic()
                trial, values = under_way.pop(outcome.number)
                study.tell(trial, values[:2])
                serial += time.monotonic() - since
                ended += 1
            return {"seconds": time.monotonic() - started, "serial": serial / trials}
        finally:
            executor.close()
            cluster.shutdown()


def amdahl(serial: float, trial: float, workers: int) -> float:
    """Speed against one worker, if each trial takes ``serial`` seconds of the one process and ``trial`` of a worker."""
    return (serial + trial) / (serial + trial / workers)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a trial")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    rows = []
    for workers in WORKERS:
        row = {"workers": workers, **measure(workers, options.trials, options.seconds)}
        row["speed"] = options.trials * options.seconds / row["seconds"]
        rows.append(row)
        print(f"{workers} workers: {row['seconds']:.1f} s, {row['speed']:.2f} trials at a time, "
              f"{1000 * row['serial']:.1f} ms of the searching process per trial")  # fmt: skip
    serial = max(row["serial"] for row in rows)
    paper = [
        {"trial_s": trial, **{str(workers): amdahl(serial, trial, workers) for workers in ON_PAPER}}
        for trial in TRIALS_S
    ]
    for row in paper:
        print(", ".join(f"{workers} workers: {row[str(workers)]:.0f} times" for workers in ON_PAPER)
              + f" (trials of {row['trial_s']:g} s, on paper)")  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps({"measured": rows, "on paper": paper}, indent=2) + "\n")


if __name__ == "__main__":
    main()
