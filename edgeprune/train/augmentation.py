"""Random changes of training samples. Every draw is a function of (seed, number of the batch), so training resumes.

Mixed samples have two labels. They travel as one tensor, as the teacher's outputs do: [labels | labels of the partner |
share of the first | share of the partner], and :func:`mixing` makes the task that understands it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgeprune.data.images.store import ImageStore
from edgeprune.data.sound.folder import SoundStore, front_shape
from edgeprune.data.split import Split
from edgeprune.errors import RecipeError
from edgeprune.models.types import Structure
from edgeprune.recipe.config import AugmentConfig, SoundConfig
from edgeprune.tasks.losses import unreduced
from edgeprune.tasks.metrics import over
from edgeprune.tasks.task import Metric, Task

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

# Offset between the seeds of two changes, larger than any number of batches: so no two draw the same numbers.
STREAM = 1_000_003
# ``shift = "auto"`` moves an image by up to its smaller side divided by this.
AUTO_SHARE = 16


def with_changed_sound(split: Split, config: AugmentConfig, seed: int) -> Split:
    """The split, whose raw samples of sound are changed before the front end, if ``config`` asks for that.

    Raises:
        RecipeError: it does, and the data are not sound files.
    """
    import tensorflow as tf

    keys = [key for key in SOUND_CHANGES if getattr(config, key)]
    if not keys:
        return split
    if not isinstance(split.store, SoundStore):
        raise RecipeError(f"[augment] {keys[0]} is for sound files.", fix=f"leave {keys[0]} out.")
    sound = split.store.sound
    if config.time_shift * sound.rate >= sound.length:
        raise RecipeError(
            f"[augment] time_shift = {config.time_shift:g} seconds can move sounds of {sound.length / sound.rate:g} "
            "seconds out of hearing.",
            expected="less than their length; a tenth of it is common.",
        )

    def change(samples: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        where = tf.stack([tf.cast(seed % 2**31, tf.int64), number])
        for place, key in enumerate(SOUND_CHANGES, len(IMAGE_CHANGES) + 1):
            if key in keys:
                samples = SOUND_CHANGES[key](samples, where + STREAM * place, getattr(config, key), sound.rate)
        return samples

    return dataclasses.replace(split, store=split.store.changed(change))


def settled(config: AugmentConfig, train: Split, task: Task) -> AugmentConfig:
    """The configuration with a number of pixels in the place of "auto".

    A little shift leaves the class of an image as it is, not where something is in it or how far away. Only image files
    are known to be images: an array of three axes may be a spectrogram.
    """
    if config.shift != "auto":
        return config
    is_sure = isinstance(train.store, ImageStore) and train.labels is not None and task.row_classes is not None
    sides = train.spec.shapes[0][:2]
    return config.model_copy(update={"shift": min(side or 0 for side in sides) // AUTO_SHARE if is_sure else 0})


def augment(
    batches: tf.data.Dataset, config: AugmentConfig, seed: int, sound: SoundConfig | None = None
) -> tf.data.Dataset:
    """Change a batch of (x, y), each sample by itself; with ``mixup``, labels come as :func:`mixing` takes them.

    Masks that are as large as their images move with them, and so do weights of pixels.

    Images are [batch, height, width, channels].

    Args:
        sound: the front end that x comes from, if it does.

    Raises:
        RecipeError: a change is for images and the samples are not; or mixup, with samples or labels that cannot be
            mixed.
    """
    import tensorflow as tf

    assert config.shift != "auto", "what settled() gives"
    changes = [key for key in IMAGE_CHANGES if getattr(config, key)]
    masks = [key for key in MASKS if getattr(config, key)]
    x_spec, y_spec, *_ = batches.element_spec
    for key in masks:
        if sound is None or sound.front == "raw":
            raise RecipeError(
                f"[augment] {key} is for spectrograms of sound files: [data.sound] front = log-mel or mfcc.",
                fix=f"leave {key} out.",
            )
        size = front_shape(sound)[MASKS[key] != sound.transpose]
        if getattr(config, key) >= size:
            raise RecipeError(
                f"[augment] {key} = {getattr(config, key)} can blank all {size} of a spectrogram.",
                expected="less than all; a tenth to a fifth is common.",
            )
    for key in changes:
        if sound or not isinstance(x_spec, tf.TensorSpec) or x_spec.shape.rank != 4:
            raise RecipeError(
                f"[augment] {key} is for images, and the samples are not images.",
                expected="one input of [height, width, channels].",
                fix=f"leave {key} out.",
            )
        if key in MOVING and any(spec.shape.rank is None or _stays(spec, x_spec) for spec in tf.nest.flatten(y_spec)):
            raise RecipeError(
                f"[augment] {key} moves images, and the labels of their pixels would stay where they are.",
                expected="labels of whole images, or masks as large as the images.",
                fix=f"leave {key} out, or augment images and labels together in the data source.",
            )
    if config.shift and config.shift >= min(side or math.inf for side in x_spec.shape[1:3]):
        raise RecipeError(
            f"[augment] shift = {config.shift} can move images of {x_spec.shape[1]}x{x_spec.shape[2]} pixels out of "
            "view.",
            expected="less than the smaller side; an eighth of it is common.",
        )
    if config.mixup:
        _check_mixable(x_spec, y_spec)

    def change(number: tf.Tensor, sample: tuple[Structure, ...]) -> tuple[Structure, ...]:
        x, y, *w = sample
        where = tf.stack([tf.cast(seed % 2**31, tf.int64), number])
        for key in changes:
            seed_of_key = where + STREAM * list(IMAGE_CHANGES).index(key)
            x = IMAGE_CHANGES[key](x, seed_of_key, getattr(config, key))
            if key in MOVING:
                y, w = (_moved(part, key, seed_of_key, getattr(config, key)) for part in (y, w))
        for place, key in enumerate(MASKS, len(IMAGE_CHANGES) + len(SOUND_CHANGES) + 1):
            if sound and key in masks:
                axis = 1 + (MASKS[key] != sound.transpose)
                x = _masked(x, where + STREAM * place, getattr(config, key), front_shape(sound), axis)
        if config.mixup:
            return _mixup(x, y, w, where + STREAM * len(IMAGE_CHANGES), config.mixup)
        return x, y, *w

    return batches.enumerate().map(change, num_parallel_calls=1).prefetch(2)


def unmixed(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The batches as they are, with labels as :func:`mixing` takes them."""
    import tensorflow as tf

    def pair(x: Structure, y: tf.Tensor, *w: tf.Tensor) -> tuple[Structure, tf.Tensor]:
        weights = tf.reshape(tf.cast(w[0], tf.float32), [-1, 1]) if w else tf.ones([tf.shape(y)[0], 1])
        return x, _pair(y, y, weights, tf.zeros_like(weights))

    return batches.map(pair, num_parallel_calls=1)


def mixing(task: Task) -> Task:
    """The task over mixed labels: the loss of both labels by their shares, the metric that of the larger share.

    Zhang et al. 2018, arXiv:1710.09412. For cross-entropy this equals the loss over mixed one-hot labels. Weights of
    samples are in the shares; weighted metrics count a pair by the sum of its shares.

    Raises:
        RecipeError: the task is not one label out of several classes.
    """
    if task.classes is None or len(task.outputs) > 1:
        raise RecipeError(
            "[augment] mixup is for classification with one label per sample.",
            expected="a cross-entropy over classes as the loss.",
            fix="leave mixup out.",
        )
    output = task.outputs[0]
    metrics = {metric.name: _of_larger_share(metric) for metric in output.metrics}
    mixed = dataclasses.replace(output, loss=_mixed(output.loss), metrics=tuple(metrics.values()))
    return dataclasses.replace(task, outputs=(mixed,), watched=tuple(_of_larger_share(m) for m in task.watched))


def _mixed(loss: Any) -> tf_keras.losses.Loss:
    import tf_keras

    each = unreduced(loss)

    class Mixed(tf_keras.losses.Loss):
        def call(self, pairs: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
            first, second, share, other = _unpair(pairs)
            return share[:, 0] * each(first, outputs) + other[:, 0] * each(second, outputs)

    return Mixed(name="mixed")


def _of_larger_share(metric: Metric) -> Metric:
    import tensorflow as tf

    def change(pairs: tf.Tensor, weights: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor | None]:
        first, second, share, other = _unpair(pairs)
        labels = tf.where(share >= other, first, second)
        return labels, (share + other)[:, 0] if metric.weighted else weights

    return dataclasses.replace(metric, new=over(metric.name, metric.new, change))


def _flip(x: tf.Tensor, seed: tf.Tensor, _: bool) -> tf.Tensor:
    """Mirror half of the images left to right."""
    import tensorflow as tf

    chosen = tf.random.stateless_uniform([tf.shape(x)[0], 1, 1, 1], seed) < 0.5
    return tf.where(chosen, x[:, :, ::-1], x)


def _shift(x: tf.Tensor, seed: tf.Tensor, most: int) -> tf.Tensor:
    """Move each image by up to ``most`` pixels each way; the border repeats the edge's mirror image."""
    import tensorflow as tf

    padded = tf.pad(x, [[0, 0], [most, most], [most, most], [0, 0]], "REFLECT")
    moves = tf.random.stateless_uniform([2, tf.shape(x)[0], 1], seed, 0, 2 * most + 1, tf.int32)
    rows = moves[0] + tf.range(tf.shape(x)[1])[None]
    columns = moves[1] + tf.range(tf.shape(x)[2])[None]
    return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)


def _cutout(x: tf.Tensor, seed: tf.Tensor, side: int) -> tf.Tensor:
    """Blank a square of ``side`` pixels whose middle is anywhere (DeVries & Taylor 2017, arXiv:1708.04552).

    It gets the image's mean per channel, which is what zero is to the paper's normalized images.
    """
    import tensorflow as tf

    def inside(size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        first = tf.random.stateless_uniform([tf.shape(x)[0], 1], seed, 0, size, tf.int32) - side // 2
        places = tf.range(size)[None]
        return (places >= first) & (places < first + side)

    rows = inside(tf.shape(x)[1], seed)
    columns = inside(tf.shape(x)[2], seed + STREAM // 2)
    blank = rows[:, :, None, None] & columns[:, None, :, None]
    return tf.where(blank, tf.reduce_mean(x, [1, 2], keepdims=True), x)


def _move(samples: tf.Tensor, seed: tf.Tensor, most: float, rate: int) -> tf.Tensor:
    """Move each sound by up to ``most`` seconds each way; zeros come in."""
    import tensorflow as tf

    steps = round(most * rate)
    padded = tf.pad(samples, [[0, 0], [steps, steps]])
    starts = tf.random.stateless_uniform([tf.shape(samples)[0], 1], seed, 0, 2 * steps + 1, tf.int32)
    return tf.gather(padded, starts + tf.range(tf.shape(samples)[1])[None], axis=1, batch_dims=1)


def _noisy(samples: tf.Tensor, seed: tf.Tensor, most: float, _: int) -> tf.Tensor:
    """White noise, for each sound of a standard deviation of 0 to ``most``; samples stay in -1..1."""
    import tensorflow as tf

    deviation = tf.random.stateless_uniform([tf.shape(samples)[0], 1], seed, 0, most)
    noise = tf.random.stateless_normal(tf.shape(samples), seed + STREAM // 2)
    return tf.clip_by_value(samples + deviation * noise, -1.0, 1.0)


def _masked(x: tf.Tensor, seed: tf.Tensor, most: int, shape: tuple[int, ...], axis: int) -> tf.Tensor:
    """Blank up to ``most`` neighbouring frames or bands of each spectrogram (SpecAugment, Park et al. 2019,
    arXiv:1904.08779). They get the spectrogram's mean, which is zero in the paper's normalized ones.

    Args:
        shape: of a spectrogram, whatever shape the model takes it in.
        axis: of the frames or bands in [batch, *shape].
    """
    import tensorflow as tf

    spectrograms = tf.reshape(x, [-1, *shape])
    count, size = tf.shape(x)[0], shape[axis - 1]
    width = tf.random.stateless_uniform([count, 1], seed, 0, most + 1, tf.int32)
    room = tf.cast(size - width + 1, tf.float32)
    first = tf.cast(tf.random.stateless_uniform([count, 1], seed + STREAM // 2) * room, tf.int32)
    places = tf.range(size)[None]
    blank = tf.expand_dims((places >= first) & (places < first + width), 3 - axis)
    return tf.reshape(tf.where(blank, tf.reduce_mean(spectrograms, [1, 2], keepdims=True), spectrograms), tf.shape(x))


# (images, seed [2], value of the key in [augment]) -> images
ImageChange = Callable[["tf.Tensor", "tf.Tensor", Any], "tf.Tensor"]
# Key of [augment] → its change; in the order in which they are made.
IMAGE_CHANGES: dict[str, ImageChange] = {
    "flip": _flip,
    "shift": _shift,
    "cutout": _cutout,
}


# (samples [batch, samples], seed [2], value of the key, rate in Hz) -> samples
SoundChange = Callable[["tf.Tensor", "tf.Tensor", Any, int], "tf.Tensor"]
# Key of [augment] → its change of raw samples, before the front end.
SOUND_CHANGES: dict[str, SoundChange] = {"time_shift": _move, "noise": _noisy}
# Key of [augment] → the axis that it blanks of spectrograms [frames, bands].
MASKS = {"time_mask": 0, "band_mask": 1}

# Changes after which a pixel is elsewhere.
MOVING = {"flip", "shift"}


def _stays(labels: tf.TensorSpec, images: tf.TensorSpec) -> bool:
    """Whether labels are of parts of an image, and cannot be moved with it."""
    return labels.shape.rank > 2 and labels.shape[1:3] != images.shape[1:3]


def _moved(parts: Structure, key: str, seed: tf.Tensor, value: Any) -> Structure:
    """Labels or weights of pixels, changed as their images are; those of whole images as they are."""
    import tensorflow as tf

    def moved(part: tf.Tensor) -> tf.Tensor:
        if part.shape.rank is None or part.shape.rank < 3:
            return part
        with_channels = part if part.shape.rank == 4 else part[..., None]
        changed = IMAGE_CHANGES[key](with_channels, seed, value)
        return changed if part.shape.rank == 4 else changed[..., 0]

    return tf.nest.map_structure(moved, parts)


def _check_mixable(x_spec: Structure, y_spec: Structure) -> None:
    import tensorflow as tf

    if not all(spec.dtype.is_floating for spec in tf.nest.flatten(x_spec)):
        raise RecipeError(
            "[augment] mixup is for inputs that are real numbers.",
            expected="inputs in floating point, not whole numbers such as those of words.",
            fix="leave mixup out.",
        )
    if not isinstance(y_spec, tf.TensorSpec) or y_spec.shape.rank is None or y_spec.shape.rank > 2:
        raise RecipeError("[augment] mixup is for one label per sample.", fix="leave mixup out.")


def _mixup(x: Structure, y: tf.Tensor, w: Sequence[tf.Tensor], seed: tf.Tensor, alpha: float) -> Structure:
    """Mix each sample with the next one of the batch; batches are shuffled, so that is any other."""
    import tensorflow as tf

    def log_gamma_draw(seed: tf.Tensor) -> tf.Tensor:
        # Gamma(a) = Gamma(a + 1) × U^(1/a), in logarithms: for a small alpha both draws would be zero.
        shape, uniform = [tf.shape(y)[0], 1], tf.random.stateless_uniform([tf.shape(y)[0], 1], seed + 1)
        large = tf.random.stateless_gamma(shape, seed, alpha + 1.0)
        return tf.math.log(large) + tf.math.log(tf.maximum(uniform, 1e-30)) / alpha

    share = tf.sigmoid(log_gamma_draw(seed) - log_gamma_draw(seed + STREAM // 2))

    def mixed(values: tf.Tensor) -> tf.Tensor:
        first = tf.cast(tf.reshape(share, [-1] + [1] * (len(values.shape) - 1)), values.dtype)
        return first * values + (1 - first) * tf.roll(values, 1, 0)

    weights = tf.reshape(tf.cast(w[0], tf.float32), [-1, 1]) if w else tf.ones_like(share)
    pairs = _pair(y, tf.roll(y, 1, 0), share * weights, (1 - share) * tf.roll(weights, 1, 0))
    return tf.nest.map_structure(mixed, x), pairs


def _pair(first: tf.Tensor, second: tf.Tensor, share: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    width = math.prod(first.shape[1:])
    rows = [tf.reshape(tf.cast(labels, tf.float32), [-1, width]) for labels in (first, second)]
    return tf.concat([*rows, share, other], -1)


def _unpair(pairs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Labels, the partners' labels, the share of the first [batch, 1], that of the second."""

    width = (pairs.shape[-1] - 2) // 2
    return pairs[:, :width], pairs[:, width:-2], pairs[:, -2:-1], pairs[:, -1:]
