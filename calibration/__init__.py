"""A user's data → representative samples for quantization. Installed as ``edgeprune.calibration``."""

from edgeprune.calibration.sampling import check_samples, representative_dataset, representative_indices

__all__ = ["check_samples", "representative_dataset", "representative_indices"]
