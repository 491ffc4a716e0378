"""edgeprune: prune, quantize and convert Keras models for edge boards, and measure every artifact.

The public API is what ``dir(edgeprune)`` lists. Names are imported when they are first used: importing edgeprune
imports neither TensorFlow nor any other package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from edgeprune._version import __version__ as __version__

if TYPE_CHECKING:  # "as" makes a name public to type checkers
    from edgeprune.builder import build as build
    from edgeprune.checking.finding import Finding as Finding
    from edgeprune.checking.model import check as check
    from edgeprune.data.source import DataSource as DataSource
    from edgeprune.devices.variants import OnDevice as OnDevice
    from edgeprune.errors import ConversionError as ConversionError
    from edgeprune.errors import DataError as DataError
    from edgeprune.errors import DeviceError as DeviceError
    from edgeprune.errors import EdgepruneError as EdgepruneError
    from edgeprune.errors import MissingError as MissingError
    from edgeprune.errors import ModelError as ModelError
    from edgeprune.errors import OutputError as OutputError
    from edgeprune.errors import RecipeError as RecipeError
    from edgeprune.errors import TargetError as TargetError
    from edgeprune.errors import UsageError as UsageError
    from edgeprune.errors import VerificationError as VerificationError
    from edgeprune.models.count import Counts as Counts
    from edgeprune.models.count import count as count
    from edgeprune.models.load import load_model as load_model
    from edgeprune.profiling.compare import Comparison as Comparison
    from edgeprune.profiling.compare import compare as compare
    from edgeprune.profiling.profile import Profile as Profile
    from edgeprune.profiling.profile import profile as profile
    from edgeprune.progress import Progress as Progress
    from edgeprune.prune.channels.graph import Group as Group
    from edgeprune.prune.channels.rules.registry import register_rule as register_rule
    from edgeprune.prune.choice.budget import Constraints as Constraints
    from edgeprune.prune.choice.criteria import Evidence as Evidence
    from edgeprune.prune.filters import Pruned as Pruned
    from edgeprune.prune.filters import channel_groups as channel_groups
    from edgeprune.prune.filters import mask_filters as mask_filters
    from edgeprune.prune.filters import prune_filters as prune_filters
    from edgeprune.prune.repair import Reconstructed as Reconstructed
    from edgeprune.prune.repair import reconstruct as reconstruct
    from edgeprune.recipe.config import Recipe as Recipe
    from edgeprune.report.regression import Baseline as Baseline
    from edgeprune.report.schema import Report as Report
    from edgeprune.searching.results import Front as Front
    from edgeprune.searching.results import SearchResult as SearchResult
    from edgeprune.searching.results import Trial as Trial
    from edgeprune.searching.search import search as search
    from edgeprune.selection import Limits as Limits
    from edgeprune.target import Target as Target
    from edgeprune.tflite.encode import Encoding as Encoding
    from edgeprune.tflite.encode import encode as encode

_NAMES = {
    "edgeprune.builder": ("build",),
    "edgeprune.checking.finding": ("Finding",),
    "edgeprune.checking.model": ("check",),
    "edgeprune.data.source": ("DataSource",),
    "edgeprune.devices.variants": ("OnDevice",),
    "edgeprune.errors": (
        "ConversionError",
        "DataError",
        "DeviceError",
        "EdgepruneError",
        "MissingError",
        "ModelError",
        "OutputError",
        "RecipeError",
        "TargetError",
        "UsageError",
        "VerificationError",
    ),
    "edgeprune.models.count": ("Counts", "count"),
    "edgeprune.models.load": ("load_model",),
    "edgeprune.profiling.compare": ("Comparison", "compare"),
    "edgeprune.profiling.profile": ("Profile", "profile"),
    "edgeprune.progress": ("Progress",),
    "edgeprune.prune.channels.graph": ("Group",),
    "edgeprune.prune.channels.rules.registry": ("register_rule",),
    "edgeprune.prune.choice.budget": ("Constraints",),
    "edgeprune.prune.choice.criteria": ("Evidence",),
    "edgeprune.prune.filters": ("Pruned", "channel_groups", "mask_filters", "prune_filters"),
    "edgeprune.prune.repair": ("Reconstructed", "reconstruct"),
    "edgeprune.recipe.config": ("Recipe",),
    "edgeprune.report.regression": ("Baseline",),
    "edgeprune.report.schema": ("Report",),
    "edgeprune.searching.results": ("Front", "SearchResult", "Trial"),
    "edgeprune.searching.search": ("search",),
    "edgeprune.selection": ("Limits",),
    "edgeprune.target": ("Target",),
    "edgeprune.tflite.encode": ("Encoding", "encode"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = ["__version__", *_HOMES]


def __dir__() -> list[str]:
    return sorted(__all__)


if not TYPE_CHECKING:  # else they would take every name for one that is here

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module 'edgeprune' has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)
