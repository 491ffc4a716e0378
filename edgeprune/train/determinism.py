"""Seeds, and TensorFlow's deterministic operators."""

from __future__ import annotations


def start(seed: int, deterministic: bool) -> None:
    """Seed Python, NumPy and TensorFlow; with ``deterministic``, let TensorFlow use deterministic operators only.

    Operator determinism holds for the rest of the process: TensorFlow has no way back.
    """
    import tensorflow as tf
    import tf_keras

    tf_keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
