"""Data sources → train, validation and test splits that stream preprocessed batches. TensorFlow loads on first use."""

from edgeprune.data.demo import demo_model, train_demo_model
from edgeprune.data.guard import data_errors
from edgeprune.data.load import load_data
from edgeprune.data.spec import InputSpec
from edgeprune.data.split import Data, Split, epoch_seed

__all__ = ["Data", "InputSpec", "Split", "data_errors", "demo_model", "epoch_seed", "load_data", "train_demo_model"]
