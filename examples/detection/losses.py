"""Losses of an SSD over the boxes of data, one for each of its outputs; the anchors are those of anchors.npy beside it.

    [task.outputs.offsets]
    loss = "losses.py:offsets"
    [task.outputs.scores]
    loss = "losses.py:scores"

Boxes are float32 [batch, n, 5]: x1, y1, x2, y2 in fractions of the input, and the class; rows of class -1 fill up.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

ANCHORS = np.load(Path(__file__).parent / "anchors.npy").astype("float32")  # cx, cy, w, h
CENTRES, SIZES = ANCHORS[:, :2], ANCHORS[:, 2:]
NEAR, FAR = 0.5, 0.4  # overlap from which an anchor is an object's, and below which it is background


def matched(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Per anchor: the box that it overlaps most [batch, anchors, 5]; whether it is its object's, and whether none's."""
    low = tf.maximum(boxes[:, None, :, :2], (CENTRES - SIZES / 2)[None, :, None])
    high = tf.minimum(boxes[:, None, :, 2:4], (CENTRES + SIZES / 2)[None, :, None])
    shared = tf.reduce_prod(tf.maximum(high - low, 0), -1)
    area = tf.reduce_prod(boxes[..., 2:4] - boxes[..., :2], -1)
    overlap = shared / (area[:, None] + SIZES.prod(1)[None, :, None] - shared)
    overlap = tf.where(boxes[:, None, :, 4] >= 0, overlap, -1.0)
    best = tf.reduce_max(overlap, 1, keepdims=True)  # every object has an anchor, however little they overlap
    overlap = tf.where((overlap == best) & (best > 0.1), 1 + overlap, overlap)
    most = tf.reduce_max(overlap, -1)
    return tf.gather(boxes, tf.argmax(overlap, -1), batch_dims=1), most >= NEAR, most < FAR


def offsets(boxes: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
    """Huber's loss of the offsets, over the anchors that have an object."""
    own, near, _ = matched(boxes)
    centre, size = (own[..., :2] + own[..., 2:4]) / 2, tf.maximum(own[..., 2:4] - own[..., :2], 1e-3)
    wanted = tf.concat([(centre - CENTRES) / (SIZES * 0.1), tf.math.log(size / SIZES) / 0.2], -1)
    error = tf.abs(tf.where(near[..., None], wanted - output, 0.0))
    loss = tf.where(error < 1, error**2 / 2, error - 0.5)
    return tf.reduce_sum(loss) / tf.maximum(tf.reduce_sum(tf.cast(near, tf.float32)), 1)


def scores(boxes: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
    """Focal loss (Lin et al. 2017) of the probabilities, over the anchors that have an object or none."""
    own, near, far = matched(boxes)
    truth = tf.where(near[..., None], tf.one_hot(tf.cast(own[..., 4], tf.int32), output.shape[-1]), 0.0)
    right = tf.clip_by_value(tf.where(truth > 0, output, 1 - output), 1e-6, 1.0)
    weight = tf.where(truth > 0, 0.25, 0.75) * tf.cast(near | far, tf.float32)[..., None]
    loss = -weight * (1 - right) ** 2 * tf.math.log(right)
    return 4 * tf.reduce_sum(loss) / tf.maximum(tf.reduce_sum(tf.cast(near, tf.float32)), 1)
