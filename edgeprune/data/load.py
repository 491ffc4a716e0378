"""Open a data source, whatever its kind, and split it into train, validation and test."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.code import load_function
from edgeprune.data.arrays import ArrayStore
from edgeprune.data.folder import open_folder
from edgeprune.data.function import call_function, source_hash
from edgeprune.data.labels import hold_out
from edgeprune.data.npz import EXPECTED, named_splits, read_npz
from edgeprune.data.preprocess import Preprocessing, resolve_preprocessing
from edgeprune.data.spec import InputSpec
from edgeprune.data.split import Data, Split, Store
from edgeprune.data.stream import StreamStore
from edgeprune.errors import DataError

if TYPE_CHECKING:
    from edgeprune.data.source import DataSource
    from edgeprune.recipe.config import DataConfig

TEST_SHARE = 0.2  # of a source that has no splits
SOURCES = "a folder of class folders, an .npz file, package.module:function, file.py:function, or demo."
RETURNS = (
    "a dict with train and test (and validation), a tuple (train, test) or (train, validation, test), or one dataset; "
    "each a tf.data.Dataset of (x, y), or arrays (x, y)."
)


# The samples of one split as the user gives them, not checked yet: a tf.data.Dataset, or arrays (x, y).
Part = Any


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A source: stores named train, test and perhaps validation, or one named all."""

    name: str
    stores: Mapping[str, Store]
    preprocessing: Preprocessing
    identity: bytes
    class_names: tuple[str, ...] | None = None


def load_data(source: DataSource, config: DataConfig, input_spec: InputSpec, *, seed: int = 0) -> Data:
    """Open a data source and split it. Image files are listed, not read; arrays and datasets are read once.

    Where the source has no splits, 20 % become test, stratified by class where labels are known; where it has no
    validation split, ``config.validation`` of train. Both by seed.

    Args:
        source: a path, name or function in the words of the command line (``SRC``); a function without arguments; or
            what such a function may return: a dict, a tuple, a tf.data.Dataset. ``{"x_train": ...}`` works like .npz.
            ``((a, b), (c, d))`` is train and test; several inputs together with several outputs need the dict form.
        config: size, color, scale, mean, std, validation.
        input_spec: what the model takes, ``InputSpec.of(model)``.
        seed: decides which samples are held out.

    Raises:
        DataError: the source is missing or damaged, does not fit the model, or has too few samples or classes.
    """
    opened = _open(source, config, input_spec)
    splits = {name: Split(store, opened.preprocessing, np.arange(store.size)) for name, store in opened.stores.items()}
    if "all" in splits:
        splits["train"], splits["test"] = _carve(splits.pop("all"), TEST_SHARE, "test", opened.name, seed)
    if "validation" not in splits:
        splits["train"], splits["validation"] = _carve(
            splits["train"], config.validation, "validation", opened.name, seed
        )
    _check(splits, opened.name)
    preprocessing = opened.preprocessing.as_dict()
    facts = {"seed": seed, "validation": config.validation, **preprocessing}
    return Data(
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        class_names=opened.class_names,
        fingerprint=hashlib.sha256(opened.identity + json.dumps(facts, sort_keys=True).encode()).hexdigest(),
        source=opened.name,
        preprocessing=preprocessing,
    )


def _open(source: DataSource, config: DataConfig, spec: InputSpec) -> _Opened:
    if not isinstance(source, (str, Path)):
        return _open_object(source, config, spec)
    name, path = str(source), Path(source)
    if name == "demo":
        return _open_demo(config, spec)
    if path.is_dir():
        preprocessing = resolve_preprocessing(config, spec, images=True)
        stores, classes, identity = open_folder(path, preprocessing)
        return _Opened(name, stores, preprocessing, identity, classes)
    if path.is_file() and path.suffix == ".npz":
        preprocessing = resolve_preprocessing(config, spec, images=False)
        arrays, identity = read_npz(path)
        return _Opened(name, _stores(arrays, spec), preprocessing, identity)
    if not path.exists() and ":" in name.replace("://", ""):
        return _open_object(load_function(name, DataError), config, spec, name)
    raise DataError(
        f"The data source {name} {'is a file, but no .npz file' if path.exists() else 'does not exist'}.",
        expected=SOURCES,
        fix="check the path; relative paths start at the working folder.",
    )


def _open_demo(config: DataConfig, spec: InputSpec) -> _Opened:
    from edgeprune.data.demo import CLASS_NAMES, demo_splits

    preprocessing = resolve_preprocessing(config, spec, images=False)
    arrays, identity = demo_splits()
    return _Opened("demo", _stores(arrays, spec), preprocessing, identity, CLASS_NAMES)


def _open_object(source: object, config: DataConfig, spec: InputSpec, name: str | None = None) -> _Opened:
    preprocessing = resolve_preprocessing(config, spec, images=False)
    identity = b""
    if callable(source):
        name = name or f"{source.__module__}:{getattr(source, '__qualname__', type(source).__name__)}"
        identity = source_hash(source)
        source = call_function(source, name)
    name = name or type(source).__name__
    stores = _stores(_parts(source, name), spec)
    identity += b"".join(split.encode() + store.digest() for split, store in sorted(stores.items()))
    return _Opened(name, stores, preprocessing, identity)


def _stores(parts: Mapping[str, Part], spec: InputSpec) -> dict[str, ArrayStore | StreamStore]:
    return {
        name: StreamStore(part, spec, name) if _is_dataset(part) else ArrayStore(part[0], part[1], spec, name)
        for name, part in parts.items()
    }


def _parts(result: object, name: str) -> dict[str, Part]:
    """The samples by split name, out of a data source in Python or what a data function returned."""
    if isinstance(result, Mapping):
        if {"x", "x_train"} & set(result):
            return dict(named_splits(result, name))
        return _named_parts({("validation" if key == "val" else key): part for key, part in result.items()}, name)
    if _is_dataset(result):
        return {"all": result}
    if isinstance(result, (tuple, list)) and len(result) in (2, 3) and all(map(_is_part, result)):
        names = ("train", "test") if len(result) == 2 else ("train", "validation", "test")
        return dict(zip(names, result, strict=True))
    if isinstance(result, (tuple, list)) and len(result) == 2 and not any(map(_is_dataset, result)):
        return {"all": tuple(result)}
    raise DataError(f"The data of {name} are of type {_describe(result)}.", expected=RETURNS)


def _named_parts(parts: dict[str, Part], name: str) -> dict[str, Part]:
    unknown = set(parts) - {"train", "validation", "test"}
    missing = {"train", "test"} - set(parts)
    if unknown or missing:
        raise DataError(
            f"The data of {name} have the keys {', '.join(map(str, parts)) or '(none)'}.",
            expected=f"train and test (and validation), or {EXPECTED}",
        )
    for key, part in parts.items():
        if not _is_dataset(part) and not (isinstance(part, (tuple, list)) and len(part) == 2):
            raise DataError(f"The {key} data of {name} are of type {_describe(part)}.", expected=RETURNS)
    return parts


def _describe(value: object) -> str:
    inside = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
    return f"{type(value).__name__}{inside}"


def _is_dataset(value: object) -> bool:
    import tensorflow as tf

    return isinstance(value, tf.data.Dataset)


def _is_part(value: object) -> bool:
    """Whether a value is the data of one split and cannot be an array written as nested lists."""
    if not (isinstance(value, (tuple, list)) and len(value) == 2):
        return _is_dataset(value)
    return all(hasattr(item, "shape") or isinstance(item, (tuple, dict)) for item in value)


def _carve(split: Split, share: float, into: str, name: str, seed: int) -> tuple[Split, Split]:
    """Hold a share of the samples out, stratified where labels are known: (kept, held out)."""
    if isinstance(split.store, StreamStore) and not split.store.stable:
        raise DataError(
            f"The dataset of {name} gives other samples, or another order, each time; "
            f"no {into} part can be taken from it.",
            expected=f"a dataset that is the same in every pass, or a {into} dataset of its own.",
            fix="remove .shuffle() and random augmentation (edgeprune shuffles by itself), "
            f"or return a separate {into} dataset.",
        )
    count = round(split.size * share)
    if count < 1 or count >= split.size:
        raise DataError(
            f"The data of {name} have too few samples: {share:.0%} of {split.size} for {into} leaves one part empty.",
            expected=f"enough samples for all parts, or a {into} part of its own.",
        )
    kept, held = hold_out(split.size, split.labels, count, seed=seed)
    return split.subset(kept), split.subset(held)


def _check(splits: Mapping[str, Split], name: str) -> None:
    for part in ("validation", "test"):
        store = splits[part].store
        if isinstance(store, StreamStore) and not store.stable:
            raise DataError(
                f"The {part} dataset of {name} gives other samples, or another order, each time.",
                expected="the same samples in every pass, so that results can be compared.",
                fix="remove .shuffle() and random augmentation from it.",
            )
    labels = splits["train"].labels
    if labels is not None and len(np.unique(labels)) < 2:
        raise DataError(
            f"The train data of {name} have a single class.",
            expected="at least two classes.",
            fix="check the labels; for folders, name the folder that holds the class folders.",
        )
