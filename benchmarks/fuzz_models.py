"""Run the commands on random models: each run works, or is refused by one message whose advice helps.

python benchmarks/fuzz_models.py --runs 2000 --seed 0 [--minutes 30] [--only NUMBER] [--keep FOLDER]

Small random models of Keras 2 and 3 are saved in the formats that their Keras writes, and go through `inspect`,
`check`, `build` with int8, and `profile`. Where a message advises an option or lines of a recipe, they are given, and
the run goes on. A run fails by a traceback, a signal, an exit code or message that no user should see, advice that
changes nothing, or outputs that are not those of the model. The commands run in a warm child process; a share of them
is run as `python -m edgeprune`.
"""

import argparse
import collections
import json
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUPPORT = ROOT / "tests" / "support"
sys.path.append(str(SUPPORT))  # the models are the tests'

COMMANDS = ("inspect", "check", "build", "profile")
RUNS_PER_CHILD = 150
LIMIT_S = 600
SUBPROCESS = 0.02
SAVED_MODEL = 0.35  # of the models of Keras 2: writing these takes long


# --- the child ---------------------------------------------------------------------------------------------------


def serve() -> None:
    """Do what comes line by line on standard input; answer each with a line of JSON."""
    import faulthandler

    from edgeprune._tensorflow import import_tf

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    faulthandler.enable()
    import_tf()
    import keras  # noqa: F401
    import tf_keras  # noqa: F401
    from fuzzing import do

    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(do(json.loads(line))), file=answers, flush=True)


class Died(Exception):
    """The child ended, or took too long."""


class Child:
    """The process that runs the commands, started anew when it ended or has done many."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.process = None

    def do(self, order: dict):
        if self.process is not None and (self.count >= RUNS_PER_CHILD or self.process.poll() is not None):
            self.end()
        if self.process is None:
            self._start()
        self.count += 1
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        try:
            line = self.lines.get(timeout=LIMIT_S)
        except queue.Empty:
            self.end()
            raise Died(f"no end after {LIMIT_S} s") from None
        if not line:
            code = self.process.wait()
            self.end()
            raise Died(f"ended with {code}: {self.log.read_text(errors='replace')[-3000:]}")
        return json.loads(line)

    def _start(self) -> None:
        self.log = self.folder / "child.log"
        self.lines: queue.Queue[str] = queue.Queue()
        paths = os.pathsep.join([str(ROOT), str(SUPPORT)])
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--serve"],
                cwd=self.folder, env={**os.environ, "PYTHONPATH": paths}, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        threading.Thread(target=_read, args=(self.process.stdout, self.lines), daemon=True).start()
        self.count = 0
        self.lines.get(timeout=LIMIT_S)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _read(stream, lines: queue.Queue) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def in_a_process_of_its_own(order: dict):
    """A command as users run it; comparisons as ever."""
    command = [sys.executable, "-m", "edgeprune", *order["arguments"]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


# --- the runs ----------------------------------------------------------------------------------------------------


class Fuzzer:
    """Makes models, runs commands on them, and keeps count."""

    def __init__(self, folder: Path, runs: int, minutes: float, keep: Path | None, commands: Sequence[str]):
        self.folder, self.left, self.keep, self.commands = folder, runs, keep, commands
        self.deadline = time.monotonic() + 60 * minutes
        self.child = Child(folder)
        self.counts = {command: collections.Counter() for command in COMMANDS}
        self.messages: collections.Counter = collections.Counter()
        self.followed: collections.Counter = collections.Counter()
        self.failures = 0

    @property
    def over(self) -> bool:
        return self.left <= 0 or time.monotonic() > self.deadline

    def model(self, number: int) -> None:
        """All runs on one model."""
        from fuzzing import TARGETS, save_truth
        from random_models import random_model, save_data, save_weights, write

        draw = random.Random(number)
        folder = self.folder / str(number)
        folder.mkdir()
        try:
            made = random_model(number)
        except RuntimeError as error:
            print(f"{number}: {error}: {error.__cause__!r}", flush=True)
            return
        print(f"# {number} {made.kind} {made.traits}", flush=True)
        endings = [".keras", ".h5", *([""] if made.kind == "tf_keras" and draw.random() < SAVED_MODEL else [])]
        paths = [path for path in (write(made, folder, ending) for ending in endings) if path]
        save_truth(folder / "truth.npz", made.inputs, made.outputs, made.traits)
        task = {"target": draw.choice(TARGETS), "data": save_data(made, folder), "samples": str(folder / "truth.npz")}
        if not paths:
            print(f"{number}: Keras writes none of its formats", flush=True)
            return
        for path in paths:
            self.run("inspect", path, folder, task, made)
        self.run("check", draw.choice(paths), folder, task, made)
        self.run("build", draw.choice(paths), folder, task, made)
        for file in [*(folder / "run" / "variants").rglob("*.tflite")][:2]:
            self.run("profile", file, folder, task, made)
        if draw.random() < 0.1:
            result = self.run("inspect", save_weights(made, folder), folder, task, made)
            if result is not None and (result.kind != "refused" or "only weights" not in result.message):
                self.fail("inspect", folder, made, f"weights alone: {result}")
        shutil.rmtree(folder, ignore_errors=True)

    def run(self, command: str, path: Path, folder: Path, task: dict, made):
        from fuzzing import Result, general, run

        if self.over or command not in self.commands:
            return None
        self.left -= 1
        alone = random.Random(f"{made.number} {command}").random() < SUBPROCESS

        def run_one(order: dict):
            return in_a_process_of_its_own(order) if alone and order["do"] == "command" else self.child.do(order)

        began = time.monotonic()
        try:
            result = run(command, path, folder, run_one, task)
        except Died as death:
            result = Result("died", str(death))
        except subprocess.TimeoutExpired:
            result = Result("no end")
        self.followed.update(result.followed)
        self.counts[command]["failed" if result.failed else result.kind] += 1
        if result.kind == "refused":
            self.messages[f"{command}: {general(result.message)}"] += 1
            print(f"  {command} {path.name}: refused {list(result.followed)}: {result.message!r}", flush=True)
        if result.failed:
            self.fail(f"{command} {path.name} for {task['target']}", folder, made, f"{list(result.followed)} "
                      f"{result.kind}\n{result.message}")  # fmt: skip
        else:
            print(f"  {command} {path.name} {result.kind} {time.monotonic() - began:.1f} s", flush=True)
        return result

    def fail(self, what: str, folder: Path, made, message: str) -> None:
        self.failures += 1
        print(f"FAILED {made.number} {made.kind} {made.traits}: {what}: {message}", flush=True)
        if self.keep and folder.exists():
            shutil.copytree(folder, self.keep / str(made.number), dirs_exist_ok=True)

    def report(self) -> None:
        for message, times in self.messages.most_common():
            print(f"{times:6} {message}")
        print(f"advice followed: {dict(self.followed)}")
        for command, counts in self.counts.items():
            print(f"{command:8} {sum(counts.values()):5} runs: {dict(counts)}")
        print(f"{self.failures} failures")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--only", type=int, action="append", help="the model of this number; may be given again")
    parser.add_argument("--commands", nargs="*", default=COMMANDS, help="only these")
    parser.add_argument("--keep", type=Path, help="where files that fail are kept")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve()
    sys.path.insert(0, str(ROOT))
    from edgeprune._tensorflow import import_tf

    import_tf()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        fuzzer = Fuzzer(Path(folder), options.runs, options.minutes, options.keep, options.commands)
        numbers = iter(options.only or range(options.seed * 1_000_000, (options.seed + 1) * 1_000_000))
        for number in numbers:
            if fuzzer.over:
                break
            fuzzer.model(number)
        fuzzer.child.end()
        fuzzer.report()
    sys.exit(1 if fuzzer.failures else 0)


if __name__ == "__main__":
    main()
