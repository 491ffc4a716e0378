"""How a sample becomes a model input: ``x = (pixel * scale - mean) / std``, and the size and color of images."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from edgeprune.data.spec import InputSpec
from edgeprune.errors import DataError
from edgeprune.files import JsonObject
from edgeprune.models.types import Structure

if TYPE_CHECKING:
    import tensorflow as tf

    from edgeprune.recipe.config import DataConfig, SoundConfig

CHANNELS = {"grayscale": 1, "rgb": 3, "bgr": 3}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What is done to every input that is not of an integer type. ``size`` and ``color`` are None except for images.

    Attributes:
        spec: the model's inputs.
        size: (height, width) in pixels.
        color: a key of :data:`CHANNELS`, the order of the channels.
        sound: the front end that sound files have gone through before.
        scale, mean, std: floats; mean and std hold one value, or one per channel.
    """

    spec: InputSpec
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    size: tuple[int, int] | None = None
    color: str | None = None
    sound: SoundConfig | None = None

    @property
    def identity(self) -> bool:
        """Whether numbers pass unchanged."""
        return self.scale == 1 and not any(self.mean) and set(self.std) == {1.0}

    def apply(self, inputs: tuple[tf.Tensor, ...]) -> Structure:
        """Preprocess a batch.

        Args:
            inputs: one tensor per model input, shape (batch, *sample shape), any numeric type.

        Returns:
            The tensor, or for several inputs the tuple of tensors in model order; float32, or the model's integer type.
        """
        batches = tuple(self._apply_one(i, tensor) for i, tensor in enumerate(inputs))
        return batches[0] if len(batches) == 1 else batches

    def _apply_one(self, index: int, tensor: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        tensor = tf.ensure_shape(tensor, (None, *self.spec.shapes[index]))
        if not _is_float(self.spec.dtypes[index]):
            return tf.cast(tensor, self.spec.dtypes[index])
        tensor = tf.cast(tensor, tf.float32)
        if self.identity:
            return tensor
        return (tensor * self.scale - tf.constant(self.mean, tf.float32)) / tf.constant(self.std, tf.float32)

    def as_dict(self) -> JsonObject:
        """The resolved values, for the manifest."""
        return {
            "size": list(self.size) if self.size else None,
            "color": self.color,
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            **({"sound": self.sound.resolved()} if self.sound else {}),
        }


def resolve_preprocessing(config: DataConfig, spec: InputSpec, *, images: bool, sound: bool = False) -> Preprocessing:
    """Fill in what the config leaves open from the model's input, and check that both agree.

    Args:
        images: whether the source is image files, which can be resized and converted.
        sound: whether the source is sound files.

    Raises:
        DataError: values that do not fit the model or the source.
    """
    _check_numbers(config, spec)
    size, color = None, None
    if images:
        size, color = _image_format(config, spec)
    elif config.sound and not sound:
        raise DataError(
            "[data.sound] is set, but the data is not a folder of sound files: arrays and datasets are taken as they "
            "are.",
            fix="remove [data.sound] from the recipe, or name the folder with the WAV files.",
        )
    elif config.group and not sound:
        raise DataError(
            "[data] group is set, but the data is not a folder of files, and has no paths to look at.",
            fix="remove group from the recipe, and return train, validation and test that have no group in common.",
        )
    elif config.color or (config.size and [shape[:2] for shape in spec.shapes] != [config.size]):
        raise DataError(
            "[data] size and color are set, but the data is not a folder of images: arrays and datasets are taken as "
            "they are.",
            fix="remove size and color from the recipe; arrays and datasets must come in the model's input shape, and "
            "where that is open, in one size.",
        )
    return Preprocessing(spec, config.scale, config.mean, config.std, size, color, config.sound)


def _is_float(dtype: str) -> bool:
    return dtype in ("float16", "float32", "float64", "bfloat16")


def _check_numbers(config: DataConfig, spec: InputSpec) -> None:
    if 0 in config.std or not config.std or not config.mean:
        raise DataError(
            f"[data] mean = {list(config.mean)}, std = {list(config.std)}: values are missing or std is zero.",
            expected="one value, or one per channel; std above zero.",
        )
    for name, values in (("mean", config.mean), ("std", config.std)):
        for shape, dtype in zip(spec.shapes, spec.dtypes, strict=True):
            channels = shape[-1] if shape else 1
            if _is_float(dtype) and len(values) not in (1, channels):
                raise DataError(
                    f"[data] {name} has {len(values)} values; the model's input has {channels} channels.",
                    expected=f"one value, or {channels}.",
                    fix=f"correct {name} in the recipe.",
                )
    if not Preprocessing(spec, config.scale, config.mean, config.std).identity and not any(map(_is_float, spec.dtypes)):
        raise DataError(
            f"[data] sets scale, mean or std, but the model takes {spec.dtypes[0]} input, which is passed unchanged.",
            fix="remove scale, mean and std from the recipe.",
        )


def _image_format(config: DataConfig, spec: InputSpec) -> tuple[tuple[int, int], str]:
    """(height, width) and color, from the config or else from the model's input."""
    if len(spec.shapes) != 1 or len(spec.shapes[0]) != 3:
        raise DataError(
            f"A folder of images does not fit a model with inputs of shape {list(spec.shapes)}.",
            expected="one input of shape (height, width, channels).",
            fix="give the data as a function (file.py:function) that returns tf.data.Datasets.",
        )
    height, width, channels = spec.shapes[0]
    colors = {1: "grayscale", 3: "rgb"}
    color = config.color or colors.get(channels or 3)
    if color is None or CHANNELS[color] != (channels or CHANNELS[color]):
        raise DataError(
            f"The model takes {channels} channels; images are read as {color or 'grayscale (1) or rgb (3)'}.",
            expected="a model with 1 or 3 channels in the last dimension, and the color that belongs to it.",
            fix=f"set [data] color = {colors[channels]!r} or leave it out."
            if channels in colors
            else "give the data as a function (file.py:function) that returns tf.data.Datasets.",
        )
    size = config.size or ((height, width) if height and width else None)
    if size is None:
        raise DataError(
            "The model takes images of any size, so the size must be chosen.",
            fix="set [data] size = [height, width] in the recipe.",
        )
    if height not in (None, size[0]) or width not in (None, size[1]) or min(size) < 1:
        raise DataError(
            f"[data] size = {list(size)}, but the model takes images of {height} x {width} pixels (height x width).",
            fix="leave size out of the recipe: images are resized to what the model takes.",
        )
    return size, color
