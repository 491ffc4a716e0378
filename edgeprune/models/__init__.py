"""A file on disk → a functional tf_keras model; the way back; what a model holds.

Importing this package does not import TensorFlow; calling its functions does.
"""

from __future__ import annotations

from edgeprune.models.compiled import compile_info
from edgeprune.models.count import Counts, LayerCount, count
from edgeprune.models.hash import model_hash
from edgeprune.models.load import load_model, reload_model
from edgeprune.models.save import save_model

__all__ = [
    "Counts",
    "LayerCount",
    "compile_info",
    "count",
    "load_model",
    "model_hash",
    "reload_model",
    "save_model",
]
