"""Choose representative samples for quantization from a user's training data, and check them.

``choice.py`` decides for a build which samples and how many; ``sampling.py`` draws and checks them, and hands them to
the converter; ``profiles.py`` measures what samples do to activations. A strategy is a value of ``[calibration]
strategy`` and a branch in ``choice.py``. The folder is installed as ``edgeprune.calibration``.
"""

from edgeprune.calibration.choice import choose_samples
from edgeprune.calibration.sampling import check_samples, representative_dataset, representative_indices

__all__ = ["check_samples", "choose_samples", "representative_dataset", "representative_indices"]
