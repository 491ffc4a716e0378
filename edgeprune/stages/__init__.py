"""The stages of a build: each takes an artifact, does one thing, and hands on a new artifact.

A stage is a function ``(artifact, config, context) -> artifact`` under ``@stage``, which names every input that it
depends on beside artifact and config. It does not compute: it calls the package of its subject, and writes down facts
(:mod:`edgeprune.artifact`). A new stage goes into the file of its subject, into the list below, and into
:mod:`edgeprune.plan`, which decides when it runs.
"""

from edgeprune.stages.coded import CodedStageConfig, code_weights
from edgeprune.stages.conversion import (
    ConvertConfig,
    calibrate_and_convert,
    compile_model,
    convert_weights,
    convert_without_samples,
    narrow_and_convert,
)
from edgeprune.stages.filters import FileLimit, FiltersStageConfig, ScoresStageConfig, filters, scores
from edgeprune.stages.integer import MixedStageConfig, mix_and_convert
from edgeprune.stages.layers import LayersStageConfig, layers
from edgeprune.stages.lottery import LotteryStageConfig, retrain, ticket
from edgeprune.stages.measuring import evaluate, evaluate_micro, latency, measure_on_device, profile, validate
from edgeprune.stages.micro import encode_weights
from edgeprune.stages.quantization import ClusterStageConfig, QatStageConfig, cluster, qat
from edgeprune.stages.reconstruction import ZeroStageConfig, zero
from edgeprune.stages.rounding import RoundStageConfig, round_weights
from edgeprune.stages.source import FRONT, OPEN, baseline, demo, fix_sizes, load
from edgeprune.stages.sparse import PrepareSparseConfig, prepare_sparse
from edgeprune.stages.sparsify import SparsifyStageConfig, sparsify
from edgeprune.stages.training import TrainingConfig, WeightsStageConfig, finetune, weights

__all__ = [
    "FRONT",
    "OPEN",
    "ClusterStageConfig",
    "CodedStageConfig",
    "ConvertConfig",
    "FileLimit",
    "FiltersStageConfig",
    "LayersStageConfig",
    "LotteryStageConfig",
    "MixedStageConfig",
    "PrepareSparseConfig",
    "QatStageConfig",
    "RoundStageConfig",
    "ScoresStageConfig",
    "SparsifyStageConfig",
    "TrainingConfig",
    "WeightsStageConfig",
    "ZeroStageConfig",
    "baseline",
    "calibrate_and_convert",
    "cluster",
    "code_weights",
    "compile_model",
    "convert_weights",
    "convert_without_samples",
    "demo",
    "encode_weights",
    "evaluate",
    "evaluate_micro",
    "filters",
    "finetune",
    "fix_sizes",
    "latency",
    "layers",
    "load",
    "measure_on_device",
    "mix_and_convert",
    "narrow_and_convert",
    "prepare_sparse",
    "profile",
    "qat",
    "retrain",
    "round_weights",
    "scores",
    "sparsify",
    "ticket",
    "validate",
    "weights",
    "zero",
]
