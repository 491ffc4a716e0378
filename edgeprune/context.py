"""What the stages of one build share, and how much of it each may use."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgeprune._tensorflow import ONEDNN, WITHOUT_ONEDNN
from edgeprune._version import __version__
from edgeprune.artifact import Artifact
from edgeprune.errors import UsageError
from edgeprune.progress import Progress
from edgeprune.recipe.config import Recipe
from edgeprune.target import Target

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.data import Data
    from edgeprune.devices.variants import Connection
    from edgeprune.models.shapes import Shape
    from edgeprune.models.sizes import InputShapes
    from edgeprune.runtime.interpreter import Runtime
    from edgeprune.tasks.task import Task

# Models that are only read: a variant's own, and the one that its file is made of.
_MODELS_KEPT = 2


@dataclasses.dataclass(frozen=True)
class Trust:
    """What of the user's code may run while models are loaded.

    Attributes:
        given: code inside model files may run.
        custom_objects: layer classes that the user brought, by name.
        fingerprint: for the keys of stages: a JSON value.
    """

    given: bool = False
    custom_objects: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fingerprint: Any = False

    @staticmethod
    def of(given: bool, custom_objects: str | Path | None) -> Trust:
        """Import the user's layer classes, if there are any.

        Raises:
            UsageError: a file of classes without trust.
            ModelError: it cannot be imported.
        """
        from edgeprune.files import sha256_file
        from edgeprune.models.custom import custom_objects_from

        if custom_objects is None:
            return Trust(given, fingerprint=given)
        if not given:
            raise UsageError(
                f"--custom-objects {custom_objects} runs code of that file.",
                expected="--trust-model beside it, to say that the file and the model are yours or trusted.",
            )
        classes = custom_objects_from(custom_objects)
        return Trust(given, classes, fingerprint=sha256_file(Path(custom_objects)))


@dataclasses.dataclass(frozen=True)
class BuildContext:
    """The surroundings of one build.

    Attributes:
        source: the model as the user gave it: a path or a model object; ``None`` for the demo.
        recipes, target: as resolved; all recipes have the same data and task.
        seed: every random choice derives from it.
        deterministic: same seed, same machine, same bytes.
        trust: what of the user's code may run.
        inputs: what the keys of stages may depend on: name → JSON value.
        boards: which of these are others for each of the build's targets, by its name.
        connection: the device that variants are measured on, if there is one.
        data, task: set once the model is known.
    """

    source: Any
    recipes: tuple[Recipe, ...]
    target: Target
    seed: int
    deterministic: bool
    trust: Trust
    inputs: Mapping[str, Any]
    boards: Mapping[str, Mapping[str, Any]]
    progress: Progress = dataclasses.field(default_factory=Progress)
    connection: Connection | None = None
    data: Data | None = None
    task: Task | None = None
    _kept: dict[tuple[Path, int], tf_keras.Model] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def recipe(self) -> Recipe:
        """The first of the recipes, for what they have in common."""
        return self.recipes[0]

    @property
    def versions(self) -> dict[str, str]:
        return versions()

    def at(self, target: Target) -> BuildContext:
        """The same with another of the build's boards."""
        return dataclasses.replace(self, target=target, inputs={**self.inputs, **self.boards[target.name]})

    def required(self) -> tuple[Data, Task]:
        """Data and task; every stage but the first may count on them."""
        assert self.data is not None
        assert self.task is not None
        return self.data, self.task

    def for_stage(self, folder: Path, uses: Collection[str]) -> Context:
        """What a stage gets that declared ``uses`` and keeps its files in ``folder``."""
        return Context(self, folder, frozenset(uses))

    def load(self, artifact: Artifact, role: str = "model") -> tf_keras.Model:
        """A fresh copy of the artifact's model, which may be changed.

        Always from disk, so that a resumed run sees what a first run saw.
        """
        from edgeprune.models.load import reload_model

        self._kept.clear()  # what changes models trains them, too, and needs the memory
        return reload_model(artifact.files[role], trust=self.trust.given)

    def read(self, artifact: Artifact, role: str = "model") -> tf_keras.Model:
        """The artifact's model, which nobody may change: those that read a model in a row get the same one."""
        from edgeprune.models.load import reload_model

        file = artifact.files[role]
        key = file, file.stat().st_mtime_ns  # a stage that runs again writes the same file anew
        model = self._kept.pop(key, None)
        if model is None:
            model = reload_model(file, trust=self.trust.given)
        self._kept[key] = model
        while len(self._kept) > _MODELS_KEPT:
            del self._kept[next(iter(self._kept))]
        return model


class UndeclaredInput(Exception):
    """A stage read what it did not declare: its key would not change with that, and an old result would be reused."""


class Context:
    """What one stage may use beside its artifact and its config: the inputs that it declared.

    Reading any other raises :class:`UndeclaredInput`, so that the key of a stage names all that its result depends on.

    Attributes:
        folder: the folder of the stage, for its files.
        progress: hears what is going on; it changes no result.
    """

    def __init__(self, build: BuildContext, folder: Path, uses: frozenset[str]):
        self.folder = folder
        self.progress = build.progress
        self._build = build
        self._uses = uses

    def _declared(self, name: str) -> BuildContext:
        if name not in self._uses:
            raise UndeclaredInput(f"the stage in {self.folder} reads {name!r} and declares {sorted(self._uses)}")
        return self._build

    def require(self, name: str) -> None:
        """Say that an input is about to be used that is read elsewhere, such as the version of a package."""
        self._declared(name)

    @property
    def source(self) -> Any:
        """Input ``model``: what the user gave; None for the demo."""
        return self._declared("model").source

    @property
    def target(self) -> Target:
        return self._declared("target").target

    @property
    def seed(self) -> int:
        return self._declared("seed").seed

    @property
    def deterministic(self) -> bool:
        return self._declared("deterministic").deterministic

    @property
    def trust(self) -> Trust:
        return self._declared("trust").trust

    @property
    def input_shape(self) -> tuple[list[Shape], str]:
        """Input ``input_shape``: the fixed shapes of all inputs without the batch, and what gave them."""
        given = self._declared("input_shape").inputs["input_shape"]
        return [tuple(shape) for shape in given["shapes"]], given["origin"]

    @property
    def asked_shape(self) -> InputShapes | None:
        """Input ``asked_shape``: what the user says of the sizes of open inputs."""
        return cast("InputShapes | None", self._declared("asked_shape").inputs["asked_shape"])

    def required(self) -> tuple[Data, Task]:
        """Inputs ``data`` and ``task``."""
        self._declared("task")
        return self._declared("data").required()

    def runtime(self, prefer: str | None = None) -> Runtime:
        """Input ``runtime``: the interpreter on this machine (:mod:`edgeprune.runtime.interpreter`)."""
        from edgeprune.runtime.interpreter import find_runtime

        self._declared("runtime")
        return find_runtime(prefer)

    def connection(self) -> Connection:
        """Input ``device``: where variants are measured."""
        connection = self._declared("device").connection
        assert connection is not None
        return connection

    def load(self, artifact: Artifact, role: str = "model") -> tf_keras.Model:
        """As :meth:`BuildContext.load`. It is no input: trust decides whether a model opens, not what comes out."""
        return self._build.load(artifact, role)

    def read(self, artifact: Artifact, role: str = "model") -> tf_keras.Model:
        """As :meth:`BuildContext.read`, and no input either."""
        return self._build.read(artifact, role)


def versions() -> dict[str, str]:
    """Versions of what decides the result of a stage."""
    packages = ("tensorflow", "tf_keras", "tensorflow-model-optimization", "numpy")
    found = {p: metadata.version(p) for p in packages}
    # Kernels that add in another order give other weights. A run that goes on without oneDNN after a crash reuses what
    # was finished before it; its report says so.
    found["onednn"] = "1" if WITHOUT_ONEDNN in os.environ else os.environ.get(ONEDNN, "default")
    return {"edgeprune": __version__, "python": platform.python_version(), **found}
