"""Seeds, and TensorFlow's deterministic operators."""

from __future__ import annotations

from edgeprune._tensorflow import import_tf


def start(seed: int, deterministic: bool) -> None:
    """Seed Python, NumPy and TensorFlow; with ``deterministic``, let TensorFlow use deterministic operators only.

    Operator determinism holds for the rest of the process: TensorFlow has no way back.
    """
    tf = import_tf()  # the first import of a build that Python starts
    import tf_keras

    tf_keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
