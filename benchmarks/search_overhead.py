"""What a search costs beside its stages, and whether it repeats any: many trials on the demo's model, killed half-way.

The search runs as a command of its own. When half of the trials have ended it is killed (SIGKILL) and started again.
What a trial takes between its stages is its plan, keys, loading and letting go of models. Beside the trials, a search
opens the data, asks Optuna, starts its process of trials, reads test data and writes the report. The seconds of a stage
are those it took where it ran; a stage that was reused counts nothing, nor does a trial that builds what another did.

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
    rows = {
        **costs(json.loads((out / "search.json").read_text()), seconds),
        "stages finished when it was killed": len(finished),
        "of these run again": again,
        "stages in the end": len(stages),
    }
    print("| | |\n|---|---|")
    for what, value in rows.items():
        print(f"| {what} | {value} |")


def costs(document: dict, seconds: float) -> dict[str, str]:
    """What a search cost, by what it is in words.

    Args:
        document: search.json.
        seconds: from the start to the report, over all starts.
    """
    (target,) = document["targets"]
    trials = [trial for trial in target["trials"] if trial["state"] != "repeated"]
    files = [made for trial in trials for made in trial["rungs"].values()]
    in_trials = sum(made["seconds"] for made in files)
    in_stages = sum(stage["seconds"] for made in files for stage in made["stages"] if not stage["reused"])
    memory = [made["rss_bytes"] / 1e9 for made in files]
    quarter = len(memory) // 4
    return {
        "different trials": f"{len(trials)}",
        "files judged": f"{len(files)}",
        "seconds of the trials": f"{in_trials:.0f}",
        "of these in stages": f"{in_stages:.0f}",
        "between stages, per file": f"{(in_trials - in_stages) / len(files):.2f} s",
        "share of the trials": f"{1 - in_stages / in_trials:.1%}",
        "seconds beside the trials: starts, the front on test data, the report": f"{seconds - in_trials:.0f}",
        "memory of the process of trials, median of the first quarter": f"{statistics.median(memory[:quarter]):.2f} GB",
        "of the last quarter": f"{statistics.median(memory[-quarter:]):.2f} GB",
        "most": f"{max(memory):.2f} GB",
    }


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
