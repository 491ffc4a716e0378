"""edgeprune: prune, quantize and convert Keras models for edge boards, and measure every artifact.

Names are imported when they are first used: importing edgeprune does not import TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeprune._version import __version__

if TYPE_CHECKING:
    from edgeprune.builder import build
    from edgeprune.models.count import count
    from edgeprune.models.load import load_model
    from edgeprune.profiling.profile import profile
    from edgeprune.prune.filters import channel_groups, mask_filters, prune_filters
    from edgeprune.selection import Limits

_HOMES = {
    "Limits": "edgeprune.selection",
    "build": "edgeprune.builder",
    "channel_groups": "edgeprune.prune.filters",
    "count": "edgeprune.models.count",
    "load_model": "edgeprune.models.load",
    "mask_filters": "edgeprune.prune.filters",
    "profile": "edgeprune.profiling.profile",
    "prune_filters": "edgeprune.prune.filters",
}

__all__ = [
    "Limits",
    "__version__",
    "build",
    "channel_groups",
    "count",
    "load_model",
    "mask_filters",
    "profile",
    "prune_filters",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeprune' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
