"""Mirrored images as further samples without labels, where the model takes them for images of the same kind.

What the unpruned model answers to a mirrored image is as good an example as any other (Beyer et al. 2022,
arXiv:2106.05237, teach by answers to many changed images alike). And it is one that no refit has seen: after a refit,
the answers to its own samples are nearer than those to others, and say too little of what can still be gained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.reconstruction.answers import Answer, answers_of, divergence

if TYPE_CHECKING:
    import tf_keras

# How far the answers to mirrored images may be from those to the images, relative to those to other images: 0.02 for a
# ResNet8 and a MobileNet of photographs.
_ALIKE = 0.1
# Samples that show it.
_FEW = 256


def mirrored_images(
    model: tf_keras.Model,
    pieces: Sequence[list[np.ndarray]],
    answers: Sequence[list[np.ndarray]],
    kinds: Sequence[Answer],
) -> list[list[np.ndarray]]:
    """Copies of the samples with all images mirrored, left for right.

    Args:
        model: that is imitated.
        pieces: per batch the inputs; those of four axes, [samples, height, width, channels], may be images.
        answers: of the model, per batch an array per output.
        kinds: of the outputs.

    Returns:
        As many batches; none where there are no images, or where mirrored ones are answered otherwise, as by a model
        that says where in an image something is.
    """
    copies = [[x[:, :, ::-1] if x.ndim == 4 else x for x in piece] for piece in pieces]
    if not any(x.ndim == 4 for piece in pieces for x in piece):
        return []
    few = int(np.searchsorted(np.cumsum([len(piece[0]) for piece in pieces]), _FEW)) + 1
    plain = [np.concatenate(same) for same in zip(*answers[:few], strict=True)]
    apart = divergence(kinds, plain, answers_of(model, copies[:few]))
    usual = divergence(kinds, plain, [np.roll(values, len(values) // 2, axis=0) for values in plain])
    return copies if apart <= _ALIKE * usual else []
