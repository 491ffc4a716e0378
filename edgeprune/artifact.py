"""What a stage hands on to the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Artifact:
    """What a stage hands on: files on disk by role (``model``, ``tflite``, …) and JSON facts by topic."""

    files: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def with_(self, files: Mapping[str, Path] | None = None, **facts: Any) -> Artifact:
        """A new artifact with some files and facts added or replaced."""
        return Artifact({**self.files, **(files or {})}, {**self.facts, **facts})
