"""What every stage of one build may use beside its input and its config."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune._version import __version__
from edgeprune.errors import UsageError
from edgeprune.progress import Progress
from edgeprune.recipe.config import Recipe
from edgeprune.target import Target

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.artifact import Artifact
    from edgeprune.data import Data
    from edgeprune.train.task import Task


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
class Context:
    """The surroundings of a stage.

    Attributes:
        source: the model as the user gave it: a path or a model object; ``None`` for the demo.
        recipe, target: as resolved.
        seed: every random choice derives from it.
        deterministic: same seed, same machine, same bytes.
        trust: what of the user's code may run.
        inputs: what the keys of stages may depend on: name → JSON value.
        folder: the folder of the stage that runs; set by the loop.
        data, task: set once the model is known.
    """

    source: Any
    recipe: Recipe
    target: Target
    seed: int
    deterministic: bool
    trust: Trust
    inputs: Mapping[str, Any]
    progress: Progress = dataclasses.field(default_factory=Progress)
    folder: Path = Path()
    data: Data | None = None
    task: Task | None = None

    @property
    def versions(self) -> dict[str, str]:
        return versions()

    def at(self, folder: Path) -> Context:
        return dataclasses.replace(self, folder=folder)

    def required(self) -> tuple[Data, Task]:
        """Data and task; every stage but the first may count on them."""
        assert self.data is not None
        assert self.task is not None
        return self.data, self.task

    def load(self, artifact: Artifact, role: str = "model") -> tf_keras.Model:
        """A fresh copy of the artifact's model; always from disk, so that a resumed run sees what a first run saw."""
        from edgeprune.models.load import reload_model

        return reload_model(artifact.files[role], trust=self.trust.given)


def versions() -> dict[str, str]:
    """Versions of what decides the result of a stage."""
    packages = ("tensorflow", "tf_keras", "tensorflow-model-optimization", "numpy")
    found = {p: metadata.version(p) for p in packages}
    # Kernels that add in another order give other weights.
    found["onednn"] = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default")
    return {"edgeprune": __version__, "python": platform.python_version(), **found}
