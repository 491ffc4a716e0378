"""What a search costs beside its stages, and whether it repeats any: many trials on the demo's model, killed half-way.

The search runs as a command of its own. When half of the trials have ended it is killed (SIGKILL) and started again.
Its overhead is the time that no stage accounts for: opening the data, Optuna with its journal, keys, the worker process
and its restarts, test data and the report. The seconds of a stage are those it took where it ran; a stage that was
reused counts nothing.

    python benchmarks/search_overhead.py OUT --trials 200 --recipe benchmarks/search/quick.toml
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from edgeprune.pipeline import ARTIFACT_FILE

# What Optuna's journal writes where a trial is told its values (optuna.storages.journal, SET_TRIAL_STATE_VALUES).
TOLD = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--recipe", help="whose [search] says what varies; default: edgeprune's own space")
    arguments = parser.parse_args()
    out, trials = arguments.out, arguments.trials
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "edgeprune", "search", "--target", "rpi4", "--max-drop", "2"]
    command += ["--trials", str(trials), "--out", str(out)]
    command += ["--recipe", arguments.recipe] if arguments.recipe else []
    seconds = _run(command, out, trials // 2)
    finished = _stages(out)
    seconds += _run(command, out, None)
    stages = _stages(out)
    again = sum(stages[folder] != written for folder, written in finished.items())
    (target,) = json.loads((out / "search.json").read_text())["targets"]
    rungs = [made for trial in target["trials"] for made in trial["rungs"].values()]
    in_stages = sum(json.loads((folder / ARTIFACT_FILE).read_text())["seconds"] for folder in stages)
    memory = [made["rss_bytes"] / 1e9 for made in rungs]
    quarter = len(memory) // 4
    rows = {
        "trials": len(target["trials"]),
        "files judged": len(rungs),
        "seconds, from the start to the report": f"{seconds:.0f}",
        "of these in stages": f"{in_stages:.0f}",
        "overhead per trial": f"{(seconds - in_stages) / len(target['trials']):.2f} s",
        "share of the time": f"{1 - in_stages / seconds:.1%}",
        "stages finished when it was killed": len(finished),
        "of these run again": again,
        "stages in the end": len(stages),
        "memory of the process of trials, median of the first quarter": f"{statistics.median(memory[:quarter]):.2f} GB",
        "of the last quarter": f"{statistics.median(memory[-quarter:]):.2f} GB",
        "most": f"{max(memory):.2f} GB",
    }
    print("| | |\n|---|---|")
    for what, value in rows.items():
        print(f"| {what} | {value} |")


def _run(command: list[str], out: Path, most: int | None) -> float:
    """Seconds that a search ran until ``most`` trials had ended, or until it was done."""
    began = time.monotonic()
    with (out / "said.txt").open("a") as said:
        running = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
        while running.poll() is None:
            time.sleep(0.5)
            if most is not None and _ended(out) >= most:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
    return time.monotonic() - began


def _ended(out: Path) -> int:
    """How many trials the journal holds the end of."""
    journal = out / "search.journal"
    return journal.read_text().count(f'"op_code":{TOLD},') if journal.is_file() else 0


def _stages(out: Path) -> dict[Path, int]:
    """The folder of every finished stage → when it was finished."""
    return {file.parent: file.stat().st_mtime_ns for file in (out / "stages").glob(f"*/{ARTIFACT_FILE}")}


if __name__ == "__main__":
    main()
