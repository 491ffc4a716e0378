"""Choose representative samples for quantization from a user's training data, and check them.

The folder is installed as ``edgeprune.calibration``.
"""

from edgeprune.calibration.choice import choose_samples
from edgeprune.calibration.sampling import check_samples, representative_dataset, representative_indices

__all__ = ["check_samples", "choose_samples", "representative_dataset", "representative_indices"]
