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
from edgeprune.progress import Progress
from edgeprune.recipe import Recipe
from edgeprune.target import Target

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.data import Data
    from edgeprune.pipeline import Artifact
    from edgeprune.train.task import Task


@dataclasses.dataclass(frozen=True)
class Context:
    """The surroundings of a stage.

    Attributes:
        source: the model as the user gave it: a path or a model object; ``None`` for the demo.
        recipe, target: as resolved.
        seed: every random choice derives from it.
        deterministic: same seed, same machine, same bytes.
        trust: code inside model files may run.
        inputs: what the keys of stages may depend on: name → JSON value.
        folder: the folder of the stage that runs; set by the loop.
        data, task: set once the model is known.
    """

    source: Any
    recipe: Recipe
    target: Target
    seed: int
    deterministic: bool
    trust: bool
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

        return reload_model(artifact.files[role], trust=self.trust)


def versions() -> dict[str, str]:
    """Versions of what decides the result of a stage."""
    packages = ("tensorflow", "tf_keras", "tensorflow-model-optimization", "numpy")
    found = {p: metadata.version(p) for p in packages}
    # Kernels that add in another order give other weights.
    found["onednn"] = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default")
    return {"edgeprune": __version__, "python": platform.python_version(), **found}
