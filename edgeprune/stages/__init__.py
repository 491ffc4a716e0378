"""The stages: each takes an artifact, does one thing, and hands on a new artifact."""

from edgeprune.stages.conversion import ConvertConfig, calibrate_and_convert, convert
from edgeprune.stages.filters import FiltersStageConfig, filters
from edgeprune.stages.integer import MixedStageConfig, PreparedConvertConfig, mix_and_convert, prepare_and_convert
from edgeprune.stages.measuring import evaluate, latency, profile
from edgeprune.stages.source import baseline, demo, load
from edgeprune.stages.training import MagnitudeStageConfig, TrainingConfig, finetune, magnitude

__all__ = [
    "ConvertConfig",
    "FiltersStageConfig",
    "MagnitudeStageConfig",
    "MixedStageConfig",
    "PreparedConvertConfig",
    "TrainingConfig",
    "baseline",
    "calibrate_and_convert",
    "convert",
    "demo",
    "evaluate",
    "filters",
    "finetune",
    "latency",
    "load",
    "magnitude",
    "mix_and_convert",
    "prepare_and_convert",
    "profile",
]
