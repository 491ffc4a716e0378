"""Stage, Step, and the one loop that runs them.

A stage is a function ``(artifact, config, context) -> artifact``. A :class:`Step` is a stage with its config and the
step it continues from; steps form a tree, because one pruned model becomes several files. Each finished step is kept
under ``stages/NAME/`` with a key: the hash of everything that it depends on. A step whose key is there already is not
run again, so a killed build goes on where it was, and a changed setting re-runs only what depends on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeprune._tensorflow import ONEDNN
from edgeprune.artifact import Artifact
from edgeprune.context import BuildContext, Context
from edgeprune.errors import ConversionError, EdgepruneError, ModelError
from edgeprune.files import output_errors, sha256_file, sha256_json, write_bytes, write_json
from edgeprune.recipe.config import Config
from edgeprune.sources import source_hash
from edgeprune.target import Target
from edgeprune.workers import WorkerDied

ARTIFACT_FILE = "artifact.json"
KEY_FILE = "key.json"
# Of a key in the name of a folder: enough for no two to be the same.
_KEY_LETTERS = 24


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage function and what it depends on beside its artifact and config: names of ``BuildContext.inputs``."""

    run: Callable[[Artifact, Any, Context], Artifact]
    uses: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.run.__name__


def stage(*uses: str) -> Callable[[Callable[[Artifact, Any, Context], Artifact]], Stage]:
    """Declare a function a stage: ``@stage("data", "seed")``."""
    return lambda run: Stage(run, uses)


@dataclasses.dataclass(frozen=True)
class Step:
    """A stage in its place.

    Attributes:
        name: unique in a build; also the name of its folder.
        after: the step whose artifact it takes.
        ends_method: it is the last step of a method, after which a model is as good as the method makes it.
        optional: a build goes on without it, and without what follows from it, where its file cannot be made or run.
        target: the board that it is about, where that is not the first one of the build.
    """

    name: str
    stage: Stage
    config: Config | None = None
    after: str | None = None
    ends_method: bool = False
    optional: bool = False
    target: Target | None = None


# Entered with the folder of a stage.
Exchange = Callable[[Path], contextlib.AbstractContextManager[Any]]
# What ends one variant only: no such file can be made of the model, or none that runs.
VARIANT_ERRORS = (ConversionError, ModelError, WorkerDied)


class Unfinished(Exception):
    """Raised by a stage from the error that ended it early: ``artifact`` has what it found until then.

    The run goes on with nothing, the report may show the artifact, and the next build runs the stage again.
    """

    def __init__(self, artifact: Artifact):
        super().__init__()
        self.artifact = artifact


@dataclasses.dataclass(frozen=True)
class StageRecord:
    """How a step went; ``seconds`` are those of the run that did the work."""

    name: str
    seconds: float
    reused: bool


@dataclasses.dataclass
class Run:
    """What a build has finished so far, under ``folder``: the artifact, key and record of each step by its name.

    ``failed``: the optional steps that ended with an error, and those that follow from them, with that error.
    ``shared``: several builds keep their stages in the folder, at the same time, too: each stage is there once for each
    key, whatever a build calls the step, and a build that needs what another one is just making waits for it.
    ``exchange``: around a shared stage that is not in the folder; may bring it there from elsewhere, and hand over what
    was made.
    """

    folder: Path
    artifacts: dict[str, Artifact] = dataclasses.field(default_factory=dict)
    keys: dict[str, str] = dataclasses.field(default_factory=dict)
    records: list[StageRecord] = dataclasses.field(default_factory=list)
    failed: dict[str, EdgepruneError] = dataclasses.field(default_factory=dict)
    shared: bool = False
    exchange: Exchange = contextlib.nullcontext

    def execute(self, steps: Sequence[Step], context: BuildContext) -> None:
        """Run ``steps`` in order, reusing the finished ones.

        Raises:
            EdgepruneError: from a stage, with a note that says which stage it was; not from an optional one that cannot
                make its variant. What the stage had found until then, if it says so with :class:`Unfinished`, is among
                the artifacts.
        """
        for number, step in enumerate(steps, 1):
            if step.after in self.failed:
                self.failed[step.name] = self.failed[step.after]
                continue
            there = context.at(step.target) if step.target else context
            key = _key(step, self.keys.get(step.after or ""), there)
            home = self._home(step, key)
            finished = _load(home, self.folder, key)
            context.progress.stage(number, len(steps), step.name, reused=finished is not None)
            if finished is None:
                parent = self.artifacts.get(step.after or "", Artifact())
                try:
                    with output_errors(home), self._alone(home), self.exchange(home):
                        finished = _load(home, self.folder, key) if self.shared else None  # made while this one waited
                        finished = finished or _execute(step, parent, key, home, self.folder, there)
                except Unfinished as broken:
                    self.artifacts[step.name] = broken.artifact
                    raise (broken.__cause__ or broken) from None
                except VARIANT_ERRORS as error:
                    if not step.optional:
                        raise
                    self.failed[step.name] = error
                    context.progress.note(f"{step.name} failed, and the build goes on without it: {error.what}")
                    continue
            artifact, seconds, reused = finished
            self.artifacts[step.name], self.keys[step.name] = artifact, key
            self.records.append(StageRecord(step.name, seconds, reused))

    def _home(self, step: Step, key: str) -> Path:
        return self.folder / (f"{step.stage.name}-{key[:_KEY_LETTERS]}" if self.shared else step.name)

    @contextlib.contextmanager
    def _alone(self, home: Path) -> Iterator[None]:
        """Hold the lock of a shared stage, which the operating system releases however the process ends."""
        if not self.shared:
            yield
            return
        import filelock

        home.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(home.with_name(f".{home.name}.lock")):
            yield


def _key(step: Step, parent: str | None, context: BuildContext) -> str:
    return sha256_json(
        {
            "stage": step.stage.name,
            # As text: of the patterns in a table the first that matches counts, so their order is part of it.
            "config": step.config.model_dump_json() if step.config else None,
            "parent": parent,
            "versions": context.versions,
            "source": source_hash(step.stage.run.__module__),
            **{name: context.inputs[name] for name in step.stage.uses},
        }
    )


def _execute(
    step: Step, artifact: Artifact, key: str, home: Path, root: Path, context: BuildContext
) -> tuple[Artifact, float, bool]:
    if began := _open(home, key):
        context.progress.note(
            f"{step.name} was begun at {began} and never ended: its process was killed, or crashed. It goes on now; if "
            f"TensorFlow crashes in it again, set {ONEDNN}=0 in the environment, or use the command line, which does."
        )
    started = time.monotonic()
    try:
        result = step.stage.run(artifact, step.config, context.for_stage(home, step.stage.uses))
    except (EdgepruneError, Unfinished) as error:
        cause = error.__cause__ if isinstance(error, Unfinished) and error.__cause__ else error
        kept = "; the stages before it are kept" if step.after else ""
        cause.add_note(f"This happened in the stage {step.name!r}{kept}.")
        raise
    finally:
        with contextlib.suppress(OSError, EdgepruneError):  # what went wrong before is what the user should hear
            write_json(home / KEY_FILE, {"key": key})
    seconds = time.monotonic() - started
    _save(result, home, root, key, seconds)
    return result, seconds, False


def _open(home: Path, key: str) -> str | None:
    """Make the step's folder; what a broken-off run with the same key left there stays, for the stage to go on from.

    Returns:
        When that run began, if it neither ended nor was interrupted.
    """
    try:
        found = json.loads((home / KEY_FILE).read_text())
        began = found.get("began") if found["key"] == key else None
        same = found["key"] == key
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        same, began = False, None
    if not same:
        if home.is_dir() and not home.is_symlink():
            shutil.rmtree(home)
        home.mkdir(parents=True)
    write_json(home / KEY_FILE, {"key": key, "began": time.strftime("%Y-%m-%d %H:%M:%S")})
    return began


def _save(artifact: Artifact, home: Path, root: Path, key: str, seconds: float) -> None:
    files = {
        role: {"path": str(path.relative_to(root)), "sha256": sha256_file(path)}
        for role, path in artifact.files.items()
    }
    write_json(home / ARTIFACT_FILE, {"key": key, "seconds": seconds, "files": files, "facts": dict(artifact.facts)})


def _load(home: Path, root: Path, key: str) -> tuple[Artifact, float, bool] | None:
    """The finished artifact, or None if it is not there, of another key, or if one of its files was changed since."""
    try:
        document = json.loads((home / ARTIFACT_FILE).read_text())
        if document["key"] != key:
            return None
        facts, seconds = document["facts"], document["seconds"]
        files = {role: root / entry["path"] for role, entry in document["files"].items()}
        if any(sha256_file(files[role]) != entry["sha256"] for role, entry in document["files"].items()):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Artifact(files, facts), seconds, True


def pack_stage(home: Path) -> dict[str, bytes] | None:
    """The content of a finished stage's own files by their paths in its folder, with what ``artifact.json`` says of
    them, by which they are checked where they arrive; None if it is not finished."""
    try:
        document = (home / ARTIFACT_FILE).read_bytes()
        paths = [home.parent / entry["path"] for entry in json.loads(document)["files"].values()]
        own = {str(path.relative_to(home)): path.read_bytes() for path in paths if path.is_relative_to(home)}
    except (OSError, ValueError, KeyError):
        return None
    return {**own, ARTIFACT_FILE: document}


def unpack_stage(files: dict[str, bytes], home: Path) -> None:
    """Inverse of :func:`pack_stage`; a stage is there as a whole or not at all."""
    shutil.rmtree(home, ignore_errors=True)
    for path, content in files.items():  # artifact.json last
        write_bytes(home / path, content)
