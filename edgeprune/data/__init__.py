"""Data sources → train, validation and test splits that stream preprocessed batches.

A kind of source is a module that reads it into a store (``arrays``, ``images``, ``stream``) and a branch of
:mod:`edgeprune.data.load`, which recognises it; what the user may pass is typed in :mod:`edgeprune.data.source`. Rules
about labels are in ``labels``, those about the model's inputs in ``spec`` and ``preprocess``. TensorFlow is imported on
first use.
"""

from edgeprune.data.demo import demo_model, train_demo_model
from edgeprune.data.guard import data_errors
from edgeprune.data.load import load_data
from edgeprune.data.spec import InputSpec
from edgeprune.data.split import Data, Split, epoch_seed

__all__ = ["Data", "InputSpec", "Split", "data_errors", "demo_model", "epoch_seed", "load_data", "train_demo_model"]
