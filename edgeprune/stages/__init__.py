"""The stages: each takes an artifact, does one thing, and hands on a new artifact."""

from edgeprune.stages.conversion import ConvertConfig, calibrate_and_convert, convert
from edgeprune.stages.filters import FiltersStageConfig, filters
from edgeprune.stages.measuring import evaluate, latency, profile
from edgeprune.stages.quantization import ClusterStageConfig, QatStageConfig, cluster, qat
from edgeprune.stages.source import baseline, demo, load
from edgeprune.stages.training import MagnitudeStageConfig, TrainingConfig, finetune, magnitude

__all__ = [
    "ClusterStageConfig",
    "ConvertConfig",
    "FiltersStageConfig",
    "MagnitudeStageConfig",
    "QatStageConfig",
    "TrainingConfig",
    "baseline",
    "calibrate_and_convert",
    "cluster",
    "convert",
    "demo",
    "evaluate",
    "filters",
    "finetune",
    "latency",
    "load",
    "magnitude",
    "profile",
    "qat",
]
