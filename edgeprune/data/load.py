"""Open a data source, whatever its kind, and split it into train, validation and test."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.code import load_function
from edgeprune.data.arrays import ArrayStore
from edgeprune.data.batches import with_datasets
from edgeprune.data.duplicates import shared_samples
from edgeprune.data.function import call_function, source_hash
from edgeprune.data.grouping import hold_out_groups, hold_out_last
from edgeprune.data.images.boxes import has_boxes, open_boxes
from edgeprune.data.images.folder import IMAGES, open_folder, size_of_images, split_folders
from edgeprune.data.images.masks import VOID
from edgeprune.data.images.pairs import has_masks, open_pairs
from edgeprune.data.labels import hold_out
from edgeprune.data.npz import Samples, read_npz
from edgeprune.data.parts import Part, is_dataset, read_parts
from edgeprune.data.preprocess import Preprocessing, resolve_preprocessing
from edgeprune.data.sizes import common_spec
from edgeprune.data.sound.folder import open_sound, unstated
from edgeprune.data.spec import InputSpec
from edgeprune.data.split import Data, Split, Store, Timed, check_groups
from edgeprune.data.stream import StreamStore
from edgeprune.data.tables.table import normalized, open_table, table_files
from edgeprune.data.targets import TargetFacts, merge_targets
from edgeprune.data.words import through_front, whole_spec
from edgeprune.errors import DataError
from edgeprune.files import JsonObject
from edgeprune.models.types import Structure

if TYPE_CHECKING:
    from edgeprune.data.source import DataSource
    from edgeprune.recipe.config import BoxesConfig, DataConfig

TEST_SHARE = 0.2  # of a source that has no splits
SOURCES = """one of these:
  a folder of images or sound files, in a folder for each class (or without classes: no labels);
  a folder of images/ and masks/, or of images/ and boxes (COCO, Pascal VOC or YOLO);
  a .csv or .parquet file, or a folder with train.csv and test.csv;
  an .npz file; package.module:function or file.py:function; demo."""


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A source: stores named train, test and perhaps validation, or one named whole."""

    name: str
    stores: Mapping[str, Store]
    preprocessing: Preprocessing
    identity: bytes
    class_names: tuple[str, ...] | None = None
    void: int | None = None
    boxes: BoxesConfig | None = None  # how images with boxes are resized
    table: JsonObject | None = None  # how a row becomes a sample
    notes: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


def load_data(source: DataSource, config: DataConfig, input_spec: InputSpec, *, seed: int = 0) -> Data:
    """Open a data source and split it. Image files are looked at, and not kept; arrays and datasets are read once.

    Where the source has no splits, 20 % become test, stratified by class where labels are known; where it has no
    validation split, ``config.validation`` of train. Both by seed.

    Args:
        source: a path, name or function in the words of the command line (``SRC``); a function without arguments; or
            what such a function may return: a dict, a tuple, an array, a tf.data.Dataset; see
            :func:`edgeprune.data.parts.read_parts`. ``{"x_train": ...}`` works like .npz. Sample weights are the third
            of (x, y, w); data without labels are x alone, which for several inputs is a dict or ``((a, b),)``, because
            two arrays are (x, y).
        config: size, color, classes, masks, broken, scale, mean, std, validation.
        input_spec: what the model takes, ``InputSpec.of(model)``. Open sizes become those that all samples have.
        seed: decides which samples are held out.

    Raises:
        DataError: the source is missing or damaged, does not fit the model, has too few samples, or
            values that are not finite.
    """
    input_spec = _with_recipe_size(config, input_spec)
    opened = _open(source, config, input_spec)
    splits = {name: Split(store, opened.preprocessing, np.arange(store.size)) for name, store in opened.stores.items()}
    group = config.group or (config.table.group if config.table else None)
    check_groups(splits, opened.name, f"group = {json.dumps(group)}")
    if "whole" in splits:
        splits["train"], splits["test"] = _carve(splits.pop("whole"), TEST_SHARE, "test", opened.name, seed)
    preprocessing = opened.preprocessing
    if opened.table:
        preprocessing = normalized(preprocessing, splits["train"], opened.table)
        splits = {name: dataclasses.replace(split, preprocessing=preprocessing) for name, split in splits.items()}
    if "validation" not in splits:
        splits["train"], splits["validation"] = _carve(
            splits["train"], config.validation, "validation", opened.name, seed
        )
    _check(splits, opened.name)
    settled = common_spec(input_spec, splits, opened.name)
    splits = {name: split.for_inputs(settled) for name, split in splits.items()}
    targets = _targets(opened.stores, opened.name)
    if config.classes:
        _check_names(config.classes, targets, opened.name)
    class_names = config.classes or opened.class_names
    stated = preprocessing.as_dict()
    if opened.boxes:
        stated |= {"resize": opened.boxes.resize, "fill": opened.boxes.fill}
    if opened.table:
        stated["table"] = opened.table
    facts = {"seed": seed, "validation": config.validation, "classes": class_names, **stated}
    facts |= {"group": config.group} if config.group else {}
    return Data(
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        class_names=class_names,
        fingerprint=hashlib.sha256(opened.identity + json.dumps(facts, sort_keys=True).encode()).hexdigest(),
        source=opened.name,
        preprocessing=stated,
        targets=targets,
        void=opened.void,
        boxes=opened.boxes,
        notes=(*opened.notes, *shared_samples(splits)),
        said=opened.said,
    )


def _open(source: DataSource, config: DataConfig, spec: InputSpec) -> _Opened:
    if not isinstance(source, (str, Path)):
        return _open_object(source, config, spec)
    name, path = str(source), Path(source)
    if name == "demo":
        return _open_demo(config, spec)
    if path.is_dir() and config.sound:
        preprocessing = resolve_preprocessing(config, spec, images=False, sound=True)
        sounds, classes, identity = open_sound(path, config.sound, spec, config.classes, config.group)
        return _Opened(name, sounds, preprocessing, identity, classes)
    # Tables may lie beside images with boxes, and be meant by [data.table] alone.
    if config.table is None and path.is_dir() and has_boxes(path):
        return _open_boxes(name, path, config, spec)
    tables = None if config.table is None and (path / "train").is_dir() else table_files(path)
    if tables:
        return _open_table(name, tables, config, spec)
    if path.is_dir() and config.table is None:
        if error := unstated(path, spec):
            raise error
        return (_open_pairs if has_masks(path, config) else _open_images)(name, path, config, spec)
    if path.is_file() and path.suffix == ".npz":
        preprocessing = resolve_preprocessing(config, spec, images=False)
        arrays, identity = read_npz(path, whole_spec(spec).names)
        return _Opened(name, _stores(arrays, spec), preprocessing, identity)
    if not path.exists() and ":" in name.replace("://", ""):
        return _open_object(load_function(name, DataError), config, spec, name)
    if config.table and path.exists():
        raise DataError(
            f"[data.table] is for tables, and {name} is none.",
            expected="a .csv or .parquet file, or a folder with train.csv and test.csv.",
            fix="name the table, or leave [data.table] out of the recipe.",
        )
    raise DataError(
        f"The data source {name} {'is a file of another kind' if path.exists() else 'does not exist'}.",
        expected=SOURCES,
        fix="check the path; relative paths start at the working folder.",
    )


def _open_images(name: str, path: Path, config: DataConfig, spec: InputSpec) -> _Opened:
    preprocessing = resolve_preprocessing(_with_size(config, spec, path, ""), spec, images=True)
    found = open_folder(path, preprocessing, config)
    return _Opened(name, found.stores, preprocessing, found.identity, found.class_names, notes=found.notes)


def _open_pairs(name: str, path: Path, config: DataConfig, spec: InputSpec) -> _Opened:
    preprocessing = resolve_preprocessing(_with_size(config, spec, path, "images"), spec, images=True)
    found = open_pairs(path, preprocessing, config, spec.outputs[0] if len(spec.outputs) == 1 else None)
    return _Opened(name, found.stores, preprocessing, found.identity, void=VOID, notes=found.notes)


def _open_boxes(name: str, path: Path, config: DataConfig, spec: InputSpec) -> _Opened:
    preprocessing = resolve_preprocessing(config, spec, images=True)
    stores, classes, identity, said, notes = open_boxes(path, preprocessing, config.classes, config.boxes, config.group)
    return _Opened(name, stores, preprocessing, identity, classes, boxes=config.boxes, notes=notes, said=(said,))


def _open_table(name: str, files: Mapping[str, Path], config: DataConfig, spec: InputSpec) -> _Opened:
    from edgeprune.recipe.config import TableConfig

    if config.group:
        raise DataError(
            f"[data] group is for paths of files, and {name} is a table.",
            expected="the name of the column whose values stay together.",
            fix='take it out, and write in the recipe:\n  [data.table]\n  group = "COLUMN"',
        )
    table = config.table or TableConfig()
    preprocessing = resolve_preprocessing(config, spec, images=table.image is not None)
    opened = open_table(files, table, config.classes, spec, preprocessing)
    return _Opened(
        name,
        opened.stores,
        preprocessing,
        opened.identity,
        opened.class_names,
        table=opened.stated,
    )


def _with_recipe_size(config: DataConfig, spec: InputSpec) -> InputSpec:
    """The inputs; images of any size in the size that the recipe names, whatever the source."""
    if not config.size or len(spec.shapes) != 1 or len(spec.shapes[0]) != 3:
        return spec
    given = (*config.size, spec.shapes[0][2])
    shape = tuple(size if own is None else own for own, size in zip(spec.shapes[0], given, strict=True))
    return dataclasses.replace(spec, shapes=(shape,))


def _with_size(config: DataConfig, spec: InputSpec, root: Path, below: str) -> DataConfig:
    """The config; for a model of images of any size, with the size of all images where it names none.

    Args:
        below: the folder of the images in that of a split.
    """
    if config.size or len(spec.shapes) != 1 or len(spec.shapes[0]) != 3 or None not in spec.shapes[0][:2]:
        return config
    folders = [folder / below for folder in split_folders(root, IMAGES).values()]
    return config.model_copy(update={"size": size_of_images(root, folders, spec.shapes[0], config)})


def _open_demo(config: DataConfig, spec: InputSpec) -> _Opened:
    from edgeprune.data.demo import CLASS_NAMES, demo_splits

    preprocessing = resolve_preprocessing(config, spec, images=False)
    arrays, identity = demo_splits()
    parts = {split: Samples(x, y) for split, (x, y) in arrays.items()}
    return _Opened("demo", _stores(parts, spec), preprocessing, identity, CLASS_NAMES)


def _open_object(source: object, config: DataConfig, spec: InputSpec, name: str | None = None) -> _Opened:
    preprocessing = resolve_preprocessing(config, spec, images=False)
    identity = b""
    if callable(source):
        name = name or f"{source.__module__}:{getattr(source, '__qualname__', type(source).__name__)}"
        identity = source_hash(source)
        if not inspect.isgeneratorfunction(source):  # which yields batches
            source = call_function(source, name)
    name = name or type(source).__name__
    source = with_datasets(source, whole_spec(spec), name)
    stores = _stores(read_parts(source, whole_spec(spec), name), spec)
    identity += b"".join(split.encode() + store.digest() for split, store in sorted(stores.items()))
    return _Opened(name, stores, preprocessing, identity)


def _stores(parts: Mapping[str, Part], spec: InputSpec) -> dict[str, ArrayStore | StreamStore]:
    return {
        name: StreamStore(part, spec, name) if is_dataset(part) else ArrayStore(part, spec, name)
        for name, part in through_front(parts, spec).items()
    }


def _carve(split: Split, share: float, into: str, name: str, seed: int) -> tuple[Split, Split]:
    """Hold a share of the samples out, stratified where labels are known: (kept, held out)."""
    if isinstance(split.store, StreamStore) and not split.store.stable:
        raise DataError(
            f"The dataset of {name} gives other samples, or another order, each time; "
            f"no {into} part can be taken from it.",
            expected=f"a dataset that is the same in every pass, or a {into} dataset of its own.",
            fix="remove .shuffle() and random augmentation (edgeprune shuffles by itself; "
            "image_dataset_from_directory takes shuffle=False), "
            f"or return a separate {into} dataset.",
        )
    count = round(split.size * share)
    if count < 1 or count >= split.size:
        raise DataError(
            f"The data of {name} have too few samples: {share:.0%} of {split.size} for {into} leaves one part empty.",
            expected=f"enough samples for all parts, or a {into} part of its own.",
        )
    groups, spans = split.groups, split.store.spans(split.index) if isinstance(split.store, Timed) else None
    if groups is not None and (spans is None or len(set(groups)) > 1):
        kept, held = hold_out_groups(groups, split.labels, count, seed=seed, where=name)
    elif spans is not None:
        kept, held = hold_out_last(*spans, count, where=name)
    else:
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


def _targets(stores: Mapping[str, Store], name: str) -> Structure:
    """The facts of the targets of all stores."""
    (first, facts), *others = ((split, store.targets) for split, store in stores.items())
    for split, more in others:
        try:
            facts = merge_targets(facts, more)
        except (ValueError, TypeError):
            raise DataError(
                f"The labels y of {name} differ in form: {first} has {_outline(stores[first].targets)}, "
                f"{split} has {_outline(more)}.",
                expected="the same form in all splits, or no labels in any.",
            ) from None
    return facts


def _outline(targets: Structure) -> str:
    if isinstance(targets, TargetFacts):
        return f"an array {['samples', *targets.shape]}".replace("'", "")
    if isinstance(targets, Mapping):
        return "{" + ", ".join(f"{key}: {_outline(facts)}" for key, facts in targets.items()) + "}"
    return f"({', '.join(map(_outline, targets))})" if targets else "none"


def _check_names(names: tuple[str, ...], targets: Structure, name: str) -> None:
    """The names of ``[data] classes`` belong to class numbers 0, 1, 2, ..., or to the columns of rows."""
    if targets == ():
        raise DataError(
            f"[data] classes names {len(names)} classes, but {name} has no labels.",
            fix="remove classes from the recipe.",
        )
    if not isinstance(targets, TargetFacts):
        return
    numbers = targets.whole and targets.shape in ((), (1,))
    columns = targets.shape[0] if targets.rows and len(targets.shape) == 1 else None
    if (numbers and not 0 <= targets.low <= targets.high < len(names)) or columns not in (None, len(names)):
        raise DataError(
            f"[data] classes names {len(names)} classes, but the labels of {name} "
            + (f"go from {targets.low:g} to {targets.high:g}." if numbers else f"have {columns} columns."),
            expected=f"classes from 0 to {len(names) - 1}, in the order of the names.",
            fix="name all classes in [data] classes, or correct the labels.",
        )
