"""Folders of sound files: listed, all looked at once, then streamed through the front end in TensorFlow."""

from __future__ import annotations

import copy
import functools
import hashlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.data.file_store import DECODERS, Contents, FileStore, in_threads, read_in_batches
from edgeprune.data.guard import unreadable
from edgeprune.data.images.folder import IMAGES, FileKind, groups_of_files, labels_of, list_files
from edgeprune.data.sound import front_end as in_numpy
from edgeprune.data.sound.wav import UNKNOWN_LENGTH, chunks
from edgeprune.data.spec import InputSpec, Shape
from edgeprune.data.split import ordered
from edgeprune.errors import DataError, MissingError
from edgeprune.models.types import Structure
from edgeprune.recipe.config import SoundConfig

if TYPE_CHECKING:
    import tensorflow as tf

_FOREIGN = (".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma", ".au")
SOUNDS = FileKind("sound file", "WAV", "WAV", (".wav", ".wave"), _FOREIGN)
FORMATS = ("WAV", "WAVEX", "RF64")  # in the words of soundfile, which reads others whatever their name is
KEEP_READ_BYTES = 256 * 2**20  # the whole source, as float32 at the recipe's rate
FILES_NAMED = 20  # in the message about files that cannot be read
LOUDEST = 16  # of floats, whose full scale is 1; beyond, they are whole numbers that were written as floats
BLOCK = 2**16  # samples of a file that are looked at at once
# Read beyond the stated length before resampling, in seconds: longer than the filter, so that the end is no other than
# that of the whole file.
MARGIN = 0.25

# (raw samples float32 [batch, samples], number of the batch) → samples of the same shape.
Change = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]


def open_sound(
    root: Path, sound: SoundConfig, spec: InputSpec, order: tuple[str, ...] | None = None, group: str | None = None
) -> tuple[dict[str, SoundStore], tuple[str, ...] | None, bytes]:
    """List a folder of WAV files, laid out as :func:`edgeprune.data.images.folder.open_folder` says, and read all once.

    Args:
        spec: the model's inputs, which must be what the front end gives.
        order, group: as for images.

    Returns:
        (stores, class names or None, a hash over path and content of every file).

    Raises:
        DataError: the model takes something else; files that are empty, damaged, cut off, not audio, or not finite,
            all of them; or as ``open_folder``.
        MissingError: the packages of the extra ``audio`` are not installed.
    """
    _packages()
    shape = fitting_shape(sound, spec)
    listings, classes = list_files(root, SOUNDS, order)
    names = {split: [name for files in listing.values() for name, *_ in files] for split, listing in listings.items()}
    every = sorted(name for some in names.values() for name in some)
    identity = _look_at_all(root, every)
    keep_read = len(every) * sound.length * 4 <= KEEP_READ_BYTES
    stores = {
        split: SoundStore(
            root,
            names[split],
            labels_of(listing, classes)[1],
            sound,
            shape,
            keep_read=keep_read,
            groups=groups_of_files(listing, group),
        )
        for split, listing in listings.items()
    }
    return stores, classes, identity


class SoundStore(FileStore):
    """WAV files of any rate, width and number of channels as what the front end makes of them.

    Channels are averaged. Other rates are resampled by soxr (HQ). Longer files are cut at the end, shorter ones get
    zeros there.

    Args:
        root: the folder that ``names`` are relative to.
        labels: int64 (files,); None: without labels.
        shape: of a model input, which the front end's values are reshaped to.
        keep_read: for small data only: files * samples * 4 bytes; see :class:`~edgeprune.data.file_store.Contents`.
        groups: of the files, (files,), which are kept together where a part is held out.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        labels: np.ndarray | None,
        sound: SoundConfig,
        shape: tuple[int, ...],
        *,
        keep_read: bool,
        groups: np.ndarray | None = None,
    ):
        super().__init__(root, names, () if labels is None else labels, labels, groups)
        self.shapes: tuple[Shape, ...] = (shape,)
        self.sound = sound
        # Shared by the changed stores.
        self._contents = Contents(self._samples, self.size, (sound.length,), "float32", keep=keep_read)
        self._change: Change | None = None

    def changed(self, change: Change) -> SoundStore:
        """The same files with raw samples that are changed before the front end, for training."""
        other = copy.copy(self)
        other._change = change
        return other

    def batches(
        self, index: np.ndarray, batch_size: int, *, shuffle_seed: int | None, drop_remainder: bool
    ) -> tf.data.Dataset:
        """See :class:`edgeprune.data.split.Streamed`.

        Raises:
            DataError: a file cannot be read any more (only where all files are read here).
        """
        import tensorflow as tf

        order = ordered(index, shuffle_seed)
        self._contents.prepare(order)

        def read(positions: tf.Tensor) -> tuple[tf.Tensor, Structure]:
            return self._contents.of(positions), self._labels_of(positions)

        raw = read_in_batches(order, batch_size, read, drop_remainder=drop_remainder)

        @tf.autograph.experimental.do_not_convert
        def through_front(number: tf.Tensor, batch: Structure) -> tuple[tuple[tf.Tensor], Structure, Structure]:
            samples, y = batch
            values = front_end(samples if self._change is None else self._change(samples, number), self.sound)
            return (tf.reshape(values, [-1, *self.shapes[0]]),), y, ()

        return raw.enumerate().map(through_front, num_parallel_calls=DECODERS, deterministic=True)

    @functools.cached_property
    def _shown(self) -> dict[str, Any]:
        changes = {"front": "log-mel", "transpose": True}
        if self.sound.front == "raw":
            changes |= {"low": 0.0, "high": self.sound.rate / 2, "frame": min(self.sound.frame, self.sound.length)}
        return self.sound.model_copy(update=changes).resolved()

    @property
    def heard(self) -> str:
        """What :meth:`spectrogram` shows, in words."""
        shown = self._shown
        return f"{shown['low']:,.0f} to {shown['high']:,.0f} Hz from below, over {shown['seconds']:g} s"

    def spectrogram(self, i: int) -> np.ndarray:
        """What the model hears of a file, to be looked at: float32 [bands, frames], low ones first. Log-mel bands
        whatever the front end is; of raw samples up to half of their rate."""
        return in_numpy.front_end(self._samples(i), self._shown)

    def _samples(self, i: int) -> np.ndarray:
        path = self.path(i)
        try:
            return read_sound(path, self.sound)
        except (OSError, RuntimeError) as error:  # soundfile's own are RuntimeErrors
            raise unreadable("sound file", path, _fault(path)[0] or str(error)) from error


def read_sound(path: str, sound: SoundConfig) -> np.ndarray:
    """One WAV file: channels averaged, resampled, cut or filled up; float32 [samples] of -1..1."""
    soundfile, soxr = _packages()
    with soundfile.SoundFile(path) as file:
        frames = math.ceil((sound.length / sound.rate + MARGIN) * file.samplerate)
        samples = file.read(frames, dtype="float32", always_2d=True).mean(axis=1)
        if file.samplerate != sound.rate:
            samples = soxr.resample(samples, file.samplerate, sound.rate, quality="HQ")
    return in_numpy.fitted(samples, {"samples": sound.length})


def front_end(samples: tf.Tensor, sound: SoundConfig) -> tf.Tensor:
    """:func:`edgeprune.data.sound.front_end.front_end` of a batch, in TensorFlow.

    Args:
        samples: float32 [batch, samples].

    Returns:
        float32 [batch, samples], or [batch, frames, bands], or transposed.
    """
    import tensorflow as tf

    if sound.front == "raw":
        return samples
    facts = sound.resolved()
    *margins, mode = in_numpy.padding(facts)
    x = tf.pad(tf.cast(samples, tf.float64), [[0, 0], margins], mode)
    frames = tf.signal.frame(x, sound.frame, sound.hop) * in_numpy.window(facts)
    mel = tf.abs(tf.signal.rfft(frames, [facts["fft"]])) ** sound.power @ in_numpy.mel_filters(facts)
    if sound.log == "ln":
        bands = tf.math.log(mel + sound.floor)
    else:
        bands = tf.math.log(tf.maximum(mel, sound.floor)) * (10 / math.log(10))
        if sound.top_db:
            bands = tf.maximum(bands, tf.reduce_max(bands, [1, 2], keepdims=True) - sound.top_db)
    if sound.front == "mfcc":
        bands = bands @ in_numpy.cosines(facts)
    return tf.cast(tf.transpose(bands, [0, 2, 1]) if sound.transpose else bands, tf.float32)


def front_shape(sound: SoundConfig) -> tuple[int, ...]:
    """The shape of what the front end gives for one file."""
    if sound.front == "raw":
        return (sound.length,)
    before, after, _ = in_numpy.padding(sound.resolved())
    padded = before + sound.length + after
    shape = (1 + (padded - sound.frame) // sound.hop, _bands(sound))
    return shape[::-1] if sound.transpose else shape


def fitting_shape(sound: SoundConfig, spec: InputSpec) -> tuple[int, ...]:
    """The shape of the model's input, which has the front end's values in their order.

    Axes of size 1 may be anywhere, and a model of one axis takes the frames one after the other.

    Raises:
        DataError: the model takes another number of inputs or another shape; with the lines to write.
    """
    given = front_shape(sound)
    made = f"front = {sound.front!r} gives {list(given)} for {sound.length} samples at {sound.rate} Hz"
    if len(spec.shapes) != 1 or not spec.dtypes[0].startswith(("float", "bfloat")):
        raise DataError(
            f"[data.sound]: {made}; the model takes {len(spec.shapes)} inputs of type {', '.join(spec.dtypes)}.",
            expected="a model with one input of real numbers.",
            fix="give the data as a function (file.py:function) that returns tf.data.Datasets.",
        )
    (wanted,) = spec.shapes
    shape = _filled(wanted, given)
    if shape is not None:
        return shape
    lines = _lines(sound, wanted)
    raise DataError(
        f"[data.sound] {made}; the model takes {list(wanted)}.",
        expected="what the model was trained with.",
        fix=f"if the rest is as in training, write in the recipe:\n  [data.sound]\n  {lines}"
        if lines
        else "state in [data.sound] rate, seconds, front, frame, hop and mels as they were in training.",
    )


def unstated(root: Path, spec: InputSpec) -> DataError | None:
    """The error for a folder of sound files without a ``[data.sound]``; None for any other folder."""
    found = False
    for suffix in (os.path.splitext(name)[1].lower() for _, _, names in os.walk(root) for name in names):
        if suffix in IMAGES.suffixes:
            return None
        found |= suffix in SOUNDS.suffixes
    if not found:
        return None
    wanted = [size for size in spec.shapes[0] if size != 1]
    if len(wanted) < 2:
        lines = ['front = "raw"', "rate = 16000  # Hz", f"samples = {wanted[0] if wanted and wanted[0] else 16000}"]
    else:
        lines = ['front = "log-mel"  # or "mfcc"', "rate = 16000  # Hz", "seconds = 1.0"]
    return DataError(
        f"The folder {root} has sound files, and the recipe does not say how they become inputs of the model.",
        expected="a section [data.sound], as the model was trained; docs/data.md lists its keys.",
        fix="write in the recipe, for example:\n  [data.sound]\n  " + "\n  ".join(lines),
    )


def _filled(wanted: Shape, given: tuple[int, ...]) -> tuple[int, ...] | None:
    """The model's shape without open sizes, if it holds the values of the shape ``given`` in their order."""
    if len(wanted) == 1 and wanted[0] in (None, math.prod(given)):
        return (math.prod(given),)
    if len(wanted) > len(given) + 2:
        return None
    # An axis of size 1 is the model's own, unless the front end has such an axis there.
    shape, left = [], list(given)
    for size in wanted:
        if left and size in (None, left[0]):
            shape.append(left.pop(0))
        elif size == 1 or (size is None and not left):
            shape.append(1)
        else:
            return None
    return tuple(shape) if not left else None


def _bands(sound: SoundConfig) -> int:
    return sound.coefficients if sound.front == "mfcc" else sound.mels


def _lines(sound: SoundConfig, wanted: Shape) -> str | None:
    """The fewest lines of ``[data.sound]`` with which the front end gives the model's shape."""
    sizes = [size for size in wanted if size != 1]
    if sound.front == "raw":
        if len(sizes) == 1 and sizes[0]:
            return f"samples = {sizes[0]}"
        return 'front = "log-mel"  # or "mfcc"' if len(sizes) == 2 else None
    if len(sizes) != 2:
        return None
    candidates: list[dict[str, Any]] = []
    for transpose in (False, True):
        frames, bands = sizes[::-1] if transpose else sizes
        turned = {} if transpose == sound.transpose else {"transpose": transpose}
        named = {"coefficients" if sound.front == "mfcc" else "mels": bands} if bands and bands != _bands(sound) else {}
        lengths: list[dict[str, Any]] = [{}, {"center": not sound.center}]
        for center in (sound.center, not sound.center):
            before, after, _ = in_numpy.padding({**sound.resolved(), "center": center})
            room, centered = sound.length + before + after - sound.frame, {"center": center}
            if frames and frames > 1:
                samples = sound.hop * (frames - 1) + sound.frame - before - after
                lengths += [{**centered, "hop": room // (frames - 1)}, {**centered, "samples": samples}]
        lengths = [{k: v for k, v in length.items() if (k, v) != ("center", sound.center)} for length in lengths]
        candidates += [{**turned, **named, **length} for length in lengths]
    for changes in sorted(candidates, key=len):
        try:
            changed = SoundConfig.model_validate({**sound.model_dump(exclude={"seconds"}), **changes})
        except ValueError:
            continue
        if _filled(wanted, front_shape(changed)):
            return "\n  ".join(f"{key} = {str(value).lower()}" for key, value in changes.items())
    return None


def _look_at_all(root: Path, names: Sequence[str]) -> bytes:
    """sha256 over path and content of all files.

    Raises:
        DataError: files that cannot be used, all of them.
    """
    digest, faults = hashlib.sha256(), []
    looks = in_threads(_fault, [str(root / name) for name in names])
    for name, (fault, content) in zip(names, looks, strict=True):
        digest.update(os.fsencode(name) + b"\0" + content)
        if fault:
            faults.append(f"{root / name}: {fault}")
    if faults:
        more = f"\n  and {len(faults) - FILES_NAMED} more" if len(faults) > FILES_NAMED else ""
        raise DataError(
            f"{len(faults)} of {len(names)} sound files cannot be used:\n  " + "\n  ".join(faults[:FILES_NAMED]) + more,
            expected="whole WAV files with at least one sample.",
            fix="replace or remove these files.",
        )
    return digest.digest()


def _fault(path: str) -> tuple[str | None, bytes]:
    """What is wrong with a file, or None; and the sha256 of its content."""
    soundfile, _ = _packages()
    try:
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
            if not file.tell():
                return "it is empty (0 bytes)", content
            file.seek(0)
            if file.read(4) == b"RIFF":
                file.seek(0)
                size, announced = os.fstat(file.fileno()).st_size, {n: (p, s) for n, p, s in chunks(file)}
                place, length = announced.get(b"data", (0, 0))
                if length != UNKNOWN_LENGTH and place + length > size:
                    return f"it is cut off: {length} bytes of samples are announced, {size - place} are there", content
        with soundfile.SoundFile(path) as sound:
            if sound.format not in FORMATS:
                return f"it is {sound.format} under the name of a WAV file, which boards do not read", content
            if not sound.frames:
                return "it has no samples", content
            for block in sound.blocks(BLOCK, dtype="float32"):
                if not np.isfinite(block).all():
                    return "it has NaN or infinite samples", content
                if (largest := np.abs(block).max()) > LOUDEST:
                    return f"its samples go up to {largest:,.0f}, and numbers with a point are -1 to 1", content
    except OSError as error:
        return f"{error.strerror}", b""
    except ValueError as error:
        return str(error), content
    except soundfile.LibsndfileError as error:
        return f"it is damaged or no sound ({error.error_string.rstrip('.')})", content
    return None, content


@functools.cache
def _packages() -> tuple[ModuleType, ModuleType]:
    try:
        import soundfile
        import soxr
    except ImportError as error:
        raise MissingError(
            f"Sound files cannot be read: {error}.",
            expected="the packages soundfile and soxr.",
            fix="pip install 'edgeprune[audio]'",
        ) from None
    return soundfile, soxr
