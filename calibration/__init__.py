"""A user's data → representative samples for quantization. Installed as ``edgeprune.calibration``."""

from edgeprune.calibration.choice import choose_samples
from edgeprune.calibration.sampling import check_samples, representative_dataset, representative_indices

__all__ = ["check_samples", "choose_samples", "representative_dataset", "representative_indices"]
