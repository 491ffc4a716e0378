"""Split and Data, through which edgeprune reads a data source; Store, which each kind of source implements."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from edgeprune.data.preprocess import Preprocessing
from edgeprune.data.spec import InputSpec, Shape
from edgeprune.errors import DataError
from edgeprune.files import JsonObject
from edgeprune.models.types import Structure

if TYPE_CHECKING:
    import tensorflow as tf

    from edgeprune.recipe.config import BoxesConfig


# (x, y, w) of a batch → (y, w); ``()`` where there are no labels or weights.
Relabel = Callable[[Structure, Structure, Structure], tuple[Structure, Structure]]

# Fixed, not AUTOTUNE, which may fill half of the machine's memory with batches of large images.
BATCHES_AHEAD = 2


class Store(Protocol):
    """Samples in memory (:class:`Held`), or in files or a tf.data.Dataset of the user (:class:`Streamed`)."""

    @property
    def size(self) -> int:
        """Number of samples."""

    @property
    def labels(self) -> np.ndarray | None:
        """int64 (size,), or None when the targets are not one class per sample."""

    @property
    def targets(self) -> Structure:
        """A structure like y whose leaves are :class:`~edgeprune.data.targets.TargetFacts`; ``()`` without labels."""

    @property
    def groups(self) -> np.ndarray | None:
        """What samples belong to that must not be on both sides of a split (speaker, patient, drive), texts (size,);
        None: every sample stands for itself."""

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shape that all samples have, for each input."""


@runtime_checkable
class Timed(Protocol):
    """A store whose samples may be windows over time, which overlap."""

    def spans(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Where these samples begin, and end, int64 (samples,) each; None: they are no windows."""


@runtime_checkable
class Streamed(Protocol):
    """A store that reads its samples batch by batch."""

    def batches(
        self, index: np.ndarray, batch_size: int, *, shuffle_seed: int | None, drop_remainder: bool
    ) -> tf.data.Dataset:
        """Batches ``((input, ...), y, w)`` of the samples in ``index``, not preprocessed.

        y is ``()`` for data without labels, w is ``()`` for data without sample weights.
        """


@runtime_checkable
class Held(Protocol):
    """A store that holds its samples in memory: a batch of any of them is read without a pipeline."""

    def take(self, rows: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], Structure, Structure]:
        """``(inputs, y, w)`` of these samples, int64 (batch,), not preprocessed; traced into a graph or not."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Some samples of a store, preprocessed on the way out.

    Attributes:
        store: where the samples are.
        preprocessing: what is done to each batch.
        index: int64 (size,), the samples of the store that belong to this split.
        relabel: (x, y, w) of a batch, preprocessed → the (y, w) that :meth:`batches` yields in their place; traced
            into the tf.data graph. None leaves them as the source has them.
    """

    store: Store = dataclasses.field(repr=False)
    preprocessing: Preprocessing = dataclasses.field(repr=False)
    index: np.ndarray = dataclasses.field(repr=False)
    relabel: Relabel | None = dataclasses.field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.index)

    @property
    def labels(self) -> np.ndarray | None:
        """The class of each sample, int64 (size,), or None when the targets are not one class per sample."""
        return None if self.store.labels is None else self.store.labels[self.index]

    @property
    def groups(self) -> np.ndarray | None:
        """The group of each sample, (size,), or None; see :attr:`Store.groups`."""
        return None if self.store.groups is None else self.store.groups[self.index]

    @property
    def spec(self) -> InputSpec:
        """The inputs of the model that the batches are made for."""
        return self.preprocessing.spec

    def for_inputs(self, spec: InputSpec) -> Split:
        """The same samples for a model of these inputs, whose sizes they have."""
        return dataclasses.replace(self, preprocessing=dataclasses.replace(self.preprocessing, spec=spec))

    def subset(self, indices: np.ndarray) -> Split:
        """The samples at these positions of the split. Nothing is read or copied.

        Raises:
            IndexError: a position outside the split.
        """
        return dataclasses.replace(self, index=self.index[np.asarray(indices, np.int64)])

    def batches(
        self,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        indices: np.ndarray | None = None,
        drop_remainder: bool = False,
        repeat: bool = False,
    ) -> tf.data.Dataset:
        """Stream the split; the order is a function of the arguments alone.

        Epoch ``e`` of a training is ``batches(b, shuffle_seed=epoch_seed(seed, e))``, so training can resume anywhere.
        Wrap what consumes the batches in :func:`edgeprune.data.data_errors`.

        Args:
            batch_size: samples per batch; the last batch may be smaller.
            shuffle_seed: None keeps the order of the split. A tf.data.Dataset source is shuffled in windows of
                128 MiB, everything else as a whole.
            indices: only these positions of the split, in this order. A tf.data.Dataset source keeps its own order and
                gives each position once.
            drop_remainder: leave out a smaller last batch.
            repeat: start again after the end, without end, in the same order.

        Returns:
            A dataset of (x, y), or (x, y, w) where there are sample weights. x: float32 (batch, *sample shape), or of
            the model's integer type; for several inputs a tuple in model order. y: as the source has it, samples
            first; int64 (batch,) for folders; ``()`` without labels. w: as the source has it, samples first.

        Raises:
            DataError: an image is damaged (found here for small images, else while iterating).
            IndexError: a position outside the split.
        """
        import tensorflow as tf

        chosen = self if indices is None else self.subset(indices)
        store = chosen.store
        if isinstance(store, Held):  # read and preprocessed in one: half as much to trace and to start
            taken = ordered(chosen.index, shuffle_seed)
            batches = tf.data.Dataset.from_tensor_slices(taken).batch(batch_size, drop_remainder=drop_remainder)
            each: Callable[..., tuple[Structure, ...]] = lambda rows: self._finish(*store.take(rows))  # noqa: E731
        else:
            assert isinstance(store, Streamed)
            batches = store.batches(chosen.index, batch_size, shuffle_seed=shuffle_seed, drop_remainder=drop_remainder)
            each = self._finish
        each = tf.autograph.experimental.do_not_convert(each)
        batches = batches.map(each, num_parallel_calls=BATCHES_AHEAD, deterministic=True)
        options = tf.data.Options()
        options.deterministic = True
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return (batches.repeat() if repeat else batches).prefetch(BATCHES_AHEAD).with_options(options)

    def sample(self, indices: np.ndarray) -> tuple[Structure, ...]:
        """The samples at these positions as one batch of :meth:`batches`: without its pipeline, which takes longer to
        set up than a few samples take to read.

        Raises:
            DataError, IndexError: as :meth:`batches`, and while reading as its dataset.
        """
        chosen = self.subset(indices)
        if isinstance(store := chosen.store, Held):
            return self._finish(*store.take(chosen.index))
        assert isinstance(store, Streamed)
        batch = store.batches(chosen.index, len(indices), shuffle_seed=None, drop_remainder=False)
        return self._finish(*next(iter(batch)))

    def relabelled(self, sample: tuple[Structure, ...]) -> tuple[Structure, ...]:
        """What :meth:`sample` gives of this split, from what it gave of the split without ``relabel``."""
        x, y, *w = sample
        return self._labelled(x, y, w[0] if w else ())

    def _finish(self, inputs: tuple[tf.Tensor, ...], y: Structure, w: Structure) -> tuple[Structure, ...]:
        """A batch of the store as those who read the split take it."""
        return self._labelled(self.preprocessing.apply(inputs), y, w)

    def _labelled(self, x: Structure, y: Structure, w: Structure) -> tuple[Structure, ...]:
        y, w = (y, w) if self.relabel is None else self.relabel(x, y, w)
        return (x, y) if isinstance(w, tuple) and not w else (x, y, w)

    def inputs(self, batch_size: int, *, indices: np.ndarray | None = None) -> tf.data.Dataset:
        """The x of :meth:`batches`; labels that a model would have to give (``relabel``) are not made."""
        batches = dataclasses.replace(self, relabel=None).batches(batch_size, indices=indices)
        return batches.map(lambda x, *_: x)


@dataclasses.dataclass(frozen=True)
class Data:
    """A data source, split and ready to stream. Training reads train and validation only.

    Attributes:
        train, validation, test: disjoint splits.
        class_names: in the order of the labels, or None when the source does not name classes.
        fingerprint: sha256 hex; changes when the samples, the preprocessing, the seed or the validation share change.
        source: the source as given, printable.
        preprocessing: resolved size, color, scale, mean, std, for the manifest; of images with boxes also ``resize``
            and ``fill``; of tables ``table``, as :class:`edgeprune.data.tables.table.OpenedTable` states it.
        targets: facts of the targets of all three splits, in the structure of y; ``()`` for data without labels.
        void: the class number of what does not count, where the source says which; else None.
        boxes: how images with boxes were resized; None for other data.
        notes: what the user should know about the data, one sentence each: warnings of the report.
        said: what the reader decided, for the user; nothing to be warned of.
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...] | None
    fingerprint: str
    source: str
    preprocessing: JsonObject
    targets: Structure = ()
    void: int | None = None
    boxes: BoxesConfig | None = None
    notes: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


def groups_of_paths(paths: Sequence[str], pattern: str | None) -> np.ndarray | None:
    """The group of each file: what a regular expression finds in its path; None without one.

    Args:
        paths: relative to the source.
        pattern: searched for in the path with ``/`` between folders. Its groups, if it has any, are what counts of it.

    Returns:
        str (files,).

    Raises:
        DataError: paths without a match.
    """
    if pattern is None:
        return None
    matches = [re.search(pattern, Path(path).as_posix()) for path in paths]
    missing = [path for path, match in zip(paths, matches, strict=True) if not match]
    if missing:
        raise DataError(
            f"[data] group = {pattern!r} finds nothing in the paths of {len(missing)} of {len(paths)} files: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}.",
            expected="a regular expression that says of every file what it belongs to.",
            fix="correct it; it is searched for in the path below the data's folder, and its first (…) is the group.",
        )
    return np.array(["/".join(match.groups("") or [match.group()]) for match in matches if match], str)


def check_groups(splits: Mapping[str, Split], name: str, line: str) -> None:
    """Raise DataError if a group is in two splits, which only a source with splits of its own can have.

    Args:
        line: what asks for groups in the recipe.
    """
    seen: dict[str, set[str]] = {}
    for split, part in splits.items():
        found = set() if part.groups is None else set(part.groups.tolist())
        for other, groups in seen.items():
            if common := sorted(found & groups):
                raise DataError(
                    f"{len(common)} of {len(found)} groups in the {split} part of {name} are in {other} as well: "
                    f"{', '.join(common[:5])}{', ...' if len(common) > 5 else ''}.",
                    expected=f"splits that have no group in common, as {line} in the recipe asks for: figures on "
                    f"{split} would not show how the model does on new ones.",
                    fix="put the samples of all splits into one folder or table, which is then split by groups; or "
                    f"move those of these groups; or, if {split} may have them as well, take {line} out of the recipe.",
                )
        seen[split] = found


def epoch_seed(seed: int, epoch: int) -> int:
    """A shuffle seed in [0, 2**32) for an epoch (0, 1, ...), unrelated to those of other epochs and seeds."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def ordered(index: np.ndarray, shuffle_seed: int | None) -> np.ndarray:
    """``index`` as it is, or permuted by the seed."""
    return index if shuffle_seed is None else np.random.default_rng(shuffle_seed).permutation(index)
