"""A model file of Keras 2 or 3 → a functional tf_keras model, and back; the model as a graph; what it holds.

Reading files is in ``formats``, ``safety`` and ``load``; Keras 3 in ``keras3*``, with a table for layers
(``keras3_config``) and one for operations (``keras3_ops``); the way back in ``save`` and ``export``. Whatever copies or
changes a model calls ``rebuild`` and is checked by ``verify``. A fact about a class of layers is a line in
``layer_facts`` or ``macs``; a type for annotations is in ``types``. Importing the package does not import TensorFlow.
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
