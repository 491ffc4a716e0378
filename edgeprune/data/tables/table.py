"""Tables: rows of CSV and Parquet files as samples, windows over time, or names of images with their targets."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.images.folder import SPLIT_FOLDERS, like_splits
from edgeprune.data.labels import MOST_CLASSES
from edgeprune.data.preprocess import Preprocessing
from edgeprune.data.spec import InputSpec, Shape
from edgeprune.data.split import Split
from edgeprune.data.survey import check_integers
from edgeprune.data.tables.columns import SUFFIXES, Chunk, Problems, TableFile, is_missing, is_number, numbers, texts
from edgeprune.data.tables.store import ListedImages, Rows, TableStore
from edgeprune.errors import DataError
from edgeprune.files import JsonObject
from edgeprune.models.types import Structure

if TYPE_CHECKING:
    from edgeprune.recipe.config import TableConfig

COLUMNS_SHOWN = 30


@dataclasses.dataclass(frozen=True)
class OpenedTable:
    """What :func:`open_table` found.

    Attributes:
        stores: by split, or one named ``whole``.
        class_names: of text targets, in the order of their numbers.
        stated: how a row becomes a sample, for the manifest and for scripts on a device.
        identity: sha256 over the files, and over path, size and modification time of images.
    """

    stores: Mapping[str, TableStore | ListedImages]
    class_names: tuple[str, ...] | None
    stated: JsonObject
    identity: bytes


def table_files(path: Path) -> dict[str, Path] | None:
    """The tables of a source by split: a file alone, or train.csv and test.csv of a folder; None if it is no table."""
    if path.suffix in SUFFIXES and path.is_file():
        return {"whole": path}
    found = [(split, path / f"{name}{suffix}") for name, split in SPLIT_FOLDERS.items() for suffix in SUFFIXES]
    found = [(split, file) for split, file in found if file.is_file()]
    files = dict(found)
    if "train" not in files:
        return None
    if alike := like_splits(file for file in path.iterdir() if file.suffix in SUFFIXES):
        raise DataError(
            f"The folder {path} has {', '.join(alike)} beside {files['train'].name}, which would be overlooked.",
            expected="train.csv, val.csv (or valid.csv, validation.csv) and test.csv, or .parquet.",
            fix="call tables of samples so, and move others elsewhere.",
        )
    if len(found) > len(files):
        names = ", ".join(file.name for _, file in found)
        raise DataError(f"The folder {path} has {names}.", expected="one table for each split.")
    if "test" not in files:
        raise DataError(
            f"The folder {path} has {files['train'].name} and no table for testing.",
            expected="train.csv and test.csv (and val.csv), or .parquet.",
            fix=f"name the file alone, and 20 % of its samples become test: --data {files['train']}",
        )
    return files


def open_table(
    files: Mapping[str, Path],
    config: TableConfig,
    classes: tuple[str, ...] | None,
    spec: InputSpec,
    preprocessing: Preprocessing,
) -> OpenedTable:
    """Read tables. All values are looked at once; numbers go to a temporary file as float32, which is memory-mapped.

    In memory are a chunk of 8,192 rows, and for each row 8 bytes for its line, target, group and place in time.

    Args:
        files: as :func:`table_files` gives them.
        config: ``[data.table]``.
        classes: ``[data] classes``: of text targets, in the order of their numbers.
        spec: the model's inputs.
        preprocessing: with size and color for a table of images.

    Raises:
        DataError: columns that are missing or not named, cells that cannot be used, with file, line and column, or
            samples that do not fit the model.
    """
    tables = {split: TableFile.open(path) for split, path in files.items()}
    first = tables.get("train") or tables["whole"]
    layout = _Layout.of(first, config, tables)
    coding = _Coding.of(first, layout, config, classes)
    if config.image is None:
        _check_shape(layout, coding, spec, first, config.window)
    read = {split: _read(table, layout, coding, spec, split) for split, table in tables.items()}
    targets = _structured({split: rows.targets for split, rows in read.items()}, config)
    identity = hashlib.sha256(repr(config).encode())
    for split, table in sorted(tables.items()):
        identity.update(split.encode() + table.digest())
    stores: dict[str, TableStore | ListedImages] = {}
    for split, rows in read.items():
        if config.image is None:
            stores[split] = TableStore(tables[split], rows, targets[split], config)
        else:
            stores[split] = images = ListedImages(tables[split], rows, targets[split], preprocessing)
            identity.update(images.listing)
    return OpenedTable(stores, coding.classes, _stated(layout, coding, config), identity.digest())


def normalized(preprocessing: Preprocessing, train: Split, stated: JsonObject) -> Preprocessing:
    """With mean and std of the number columns over all rows of ``train``, as ``normalize`` of ``[data.table]`` says.

    A column that never changes, and the numbers of categories, stay as they are.

    Raises:
        DataError: mean, std or scale are given as well, or the model takes integers.
    """
    if "columns" not in stated or stated["normalize"] == "none":
        return preprocessing
    if not preprocessing.identity:
        raise DataError(
            f"[data] sets scale, mean or std, and [data.table] normalize = {stated['normalize']!r} computes them.",
            expected="one of them.",
            fix="leave out normalize, if the model was trained with the numbers in [data]; else these.".replace(
                "'", '"'
            ),
        )
    if not preprocessing.spec.dtypes[0].startswith(("float", "bfloat")):
        raise DataError(
            f"[data.table] normalize = {stated['normalize']!r}, but the model takes {preprocessing.spec.dtypes[0]}.",
            fix='write normalize = "none".',
        )
    assert isinstance(train.store, TableStore)
    offset, spread = train.store.ranges(train.index, stated["normalize"])
    number = np.concatenate([[column["encode"] == "number"] * _width(column) for column in stated["columns"]])
    offset = np.where(number, offset, 0.0)
    spread = np.where(number & (spread > 0), spread, 1.0)
    return dataclasses.replace(preprocessing, mean=tuple(map(float, offset)), std=tuple(map(float, spread)))


def in_words(stated: JsonObject) -> str:
    """What the report says of the columns."""
    target = stated["target"]
    named = target.items() if isinstance(target, Mapping) else ((None, name) for name in target)
    goals = ", ".join(column if output in (None, column) else f"{column} for {output}" for output, column in named)
    goals = f"target {goals}" if goals else "no targets"
    if "columns" not in stated:
        return f"images named in column {stated['image']}; {goals}"
    names = [f"{c['name']} ({c['encode']})" if c["encode"] != "number" else c["name"] for c in stated["columns"]]
    shown = ", ".join(names[:COLUMNS_SHOWN]) + (", ..." if len(names) > COLUMNS_SHOWN else "")
    parts = [f"{len(names)} columns ({shown})", goals]
    if stated["window"]:
        parts.append(f"windows of {stated['window']} rows, one every {stated['stride']}, with the last row's target")
    if stated["group"]:
        parts.append(f"grouped by {stated['group']}")
    how = {"standard": "mean and standard deviation", "minmax": "minimum and range", "none": ""}[stated["normalize"]]
    return "; ".join([*parts, *([f"number columns normalized by {how} of the training table"] if how else [])])


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Which column is what."""

    features: tuple[str, ...]
    targets: tuple[str, ...]
    group: str | None
    image: str | None

    @property
    def used(self) -> tuple[str, ...]:
        return (*self.features, *self.targets, *(name for name in (self.group, self.image) if name))

    @classmethod
    def of(cls, first: TableFile, config: TableConfig, tables: Mapping[str, TableFile]) -> _Layout:
        if config.target is None:
            raise DataError(
                f"Which column of {first.path} is the target? It has: {_listed(first.columns)}.",
                expected="the column that the model predicts, in the recipe.",
                fix=f'write in the recipe:\n  [data.table]\n  target = "{first.columns[-1]}"',
            )
        targets = tuple(config.target.values() if isinstance(config.target, Mapping) else config.target)
        others = (*targets, *(name for name in (config.group, config.image) if name), *config.ignore)
        for name in (*others, *config.categories):
            if name not in first.columns:
                raise DataError(
                    f"[data.table] names the column {name!r}, and {first.path} has: {_listed(first.columns)}.",
                    expected="the name of a column.",
                    fix="correct it in the recipe.",
                )
        uses = (*targets, *config.ignore, *([config.image] if config.image else []))
        twice = [name for name in uses if uses.count(name) > 1 or name in config.categories]
        if twice:
            raise DataError(f"[data.table] names the column {twice[0]!r} twice.", expected="one use for a column.")
        features = () if config.image else tuple(name for name in first.columns if name not in others)
        layout = cls(features, targets, config.group, config.image)
        if not features and not config.image:
            raise DataError(f"The table {first.path} has no column left for the inputs.")
        for table in tables.values():
            missing = [name for name in layout.used if name not in table.columns]
            if missing:
                raise DataError(
                    f"The table {table.path} has no column {missing[0]!r}, as {first.path} has.",
                    expected=f"the columns {_listed(layout.used)}, in any order.",
                )
        return layout


@dataclasses.dataclass(frozen=True)
class _Coding:
    """How cells become numbers.

    Attributes:
        columns: of the inputs, as :mod:`edgeprune.data.tables.rules` reads them.
        texts: the targets that are classes given as texts.
        classes: of the only target, if it is one.
    """

    columns: tuple[JsonObject, ...]
    texts: frozenset[str]
    classes: tuple[str, ...] | None

    @classmethod
    def of(cls, first: TableFile, layout: _Layout, config: TableConfig, classes: tuple[str, ...] | None) -> _Coding:
        head = next(first.chunks(layout.used), None)
        if head is None:
            raise DataError(f"The table {first.path} has no rows below the names of its columns.")
        text_targets = {name for name in layout.targets if not _begins_with_number(head, name)}
        if text_targets and len(layout.targets) > 1:
            raise DataError(
                f"The target {min(text_targets)!r} of {first.path} begins with the text "
                f"{head.cells[min(text_targets)][0]!r}, and there are {len(layout.targets)} targets.",
                expected="numbers; class names where there is one target.",
                fix="write the numbers of the classes into the table.",
            )
        open_columns = [name for name, how in config.categories.items() if isinstance(how, str)]
        wanted = [*open_columns, *(text_targets if classes is None else ())]
        found = _distinct(first, wanted) if wanted else {}
        columns: list[JsonObject] = []
        for name in layout.features:
            how = config.categories.get(name)
            if how is None:
                columns.append({"name": name, "encode": "number"})
            else:
                encode, values = (how, found[name]) if isinstance(how, str) else (how.encode, list(how.values))
                columns.append({"name": name, "encode": encode, "values": values})
        named = classes if classes is not None else tuple(v for name in text_targets for v in found[name])
        return cls(tuple(columns), frozenset(text_targets), named if text_targets else None)


def _read(table: TableFile, layout: _Layout, coding: _Coding, spec: InputSpec, split: str) -> Rows:
    """All cells of a table as numbers."""
    problems, names, codes = Problems(table), layout.used, dict[str, int]()
    width = sum(map(_width, coding.columns))
    lines, groups, images = [], [], []
    targets: list[list[np.ndarray]] = [[] for _ in layout.targets]
    with tempfile.TemporaryFile() as file:
        for chunk in table.chunks(names):
            block = np.empty((len(chunk.lines), width), np.float32)
            done = 0
            for column in coding.columns:
                cells = _encoded(chunk, column, problems)
                with np.errstate(over="ignore"):
                    block[:, done : done + cells.shape[1]] = cells
                done += cells.shape[1]
            if not layout.image:
                check_integers((block,), spec, split)
            file.write(block.data)
            for name, parts in zip(layout.targets, targets, strict=True):
                parts.append(_target(chunk, name, coding, problems))
            if layout.group:
                given = _present(chunk, layout.group, problems)
                groups.append(np.array([codes.setdefault(cell, len(codes)) for cell in given], np.int64))
            if layout.image:
                images += _present(chunk, layout.image, problems)
            lines.append(chunk.lines)
        problems.finish()
        if not lines:
            raise DataError(f"The table {table.path} has no rows below the names of its columns.")
        count = sum(map(len, lines))
        file.flush()
        values = np.memmap(file, np.float32, "r", shape=(count, width)) if width else np.empty((count, 0), np.float32)
    return Rows(
        values,
        [np.concatenate(parts) for parts in targets],
        np.concatenate(lines),
        np.array(list(codes), object)[np.concatenate(groups)] if groups else None,
        images if layout.image else None,
    )


def _encoded(chunk: Chunk, column: JsonObject, problems: Problems) -> np.ndarray:
    """[rows, numbers of the column]."""
    name = column["name"]
    if column["encode"] == "number":
        return numbers(
            chunk,
            name,
            problems,
            f"if the column has texts, write categories.{name} = 'one-hot' or "
            f"'index' under [data.table]; if it is no input, ignore = ['{name}'].",
        )[:, np.newaxis]
    known = {value: place for place, value in enumerate(column["values"])}
    places = _places(
        chunk,
        name,
        known,
        problems,
        f"name all values, in the order of the model: categories.{name} = "
        f"{{ encode = '{column['encode']}', values = [...] }} under [data.table].",
    )
    return places[:, np.newaxis] if column["encode"] == "index" else np.eye(len(known), dtype=np.float32)[places]


def _target(chunk: Chunk, name: str, coding: _Coding, problems: Problems) -> np.ndarray:
    if name not in coding.texts:
        return numbers(chunk, name, problems, f"the target {name!r} begins with a number, so all must be numbers.")
    known = {value: place for place, value in enumerate(coding.classes or ())}
    return _places(chunk, name, known, problems, "name all classes in [data] classes, in the order of the model.")


def _places(chunk: Chunk, name: str, known: Mapping[str, int], problems: Problems, fix: str) -> np.ndarray:
    cells = texts(chunk, name)
    for line, cell in zip(chunk.lines, cells, strict=True):
        if cell not in known or is_missing(cell):
            problems.add(int(line), name, cell, "is none of the known values", fix)
    return np.array([known.get(cell, 0) for cell in cells], np.int64)


def _present(chunk: Chunk, name: str, problems: Problems) -> list[str]:
    cells = texts(chunk, name)
    for line, cell in zip(chunk.lines, cells, strict=True):
        if not cell:
            problems.add(int(line), name, cell, "", "")
    return cells


def _distinct(table: TableFile, names: Sequence[str]) -> dict[str, list[str]]:
    """The texts of columns, sorted; as numbers where all are numbers, as what encoded a column of numbers did."""
    found: dict[str, set[str]] = {name: set() for name in names}
    for chunk in table.chunks(names):
        for name in names:
            found[name].update(texts(chunk, name))
            if len(found[name]) > MOST_CLASSES:
                raise DataError(
                    f"The column {name!r} of {table.path} has more than {MOST_CLASSES:,} different texts, such as "
                    f"{min(found[name] - {''})!r} in the first {chunk.lines[-1]:,} lines.",
                    expected="classes or categories; or numbers alone.",
                    fix="if these are numbers, repair the first rows; else leave the column out.",
                )
    return {name: _sorted(values - {""}) for name, values in found.items()}


def _sorted(values: Iterable[str]) -> list[str]:
    listed = sorted(values)
    return sorted(listed, key=float) if all(map(is_number, listed)) else listed


def _structured(targets: Mapping[str, list[np.ndarray]], config: TableConfig) -> dict[str, Structure]:
    """Targets by split in the form of y: whole numbers as int64 where a column has nothing else in any split."""
    whole = [
        all(((array == np.floor(array)) & (np.abs(array) < 2**53)).all() for array in arrays)
        for arrays in zip(*targets.values(), strict=True)
    ]
    made: dict[str, Structure] = {}
    for split, arrays in targets.items():
        typed = [a.astype(np.int64 if is_whole else np.float32) for a, is_whole in zip(arrays, whole, strict=True)]
        if isinstance(config.target, Mapping):
            made[split] = {name: array[:, np.newaxis] for name, array in zip(config.target, typed, strict=True)}
        else:
            made[split] = () if not typed else typed[0] if len(typed) == 1 else np.stack(typed, axis=1)
    return made


def _check_shape(layout: _Layout, coding: _Coding, spec: InputSpec, table: TableFile, window: int | None) -> None:
    features, stated = sum(map(_width, coding.columns)), _listed(layout.features)
    found = f"{features} numbers in a row ({stated})"
    if len(spec.shapes) != 1 or len(spec.shapes[0]) not in (1, 2):
        raise DataError(
            f"The table {table.path} gives {found}; the model has inputs of shape {list(spec.shapes)}.",
            expected="a model with one input, [features] or [window, features].",
            fix="give the data by a function, file.py:function, that returns arrays.",
        )
    wanted = spec.shapes[0]
    if wanted[-1] not in (None, features):
        raise DataError(
            f"The table {table.path} gives {found}; the model's input {spec.names[0]!r} takes {wanted[-1]}.",
            expected=f"{wanted[-1]} numbers in a row.",
            fix="leave columns out that are no inputs: ignore = [...] under [data.table]; texts that are categories "
            'become several numbers with categories.COLUMN = "one-hot".',
        )
    if (len(wanted) == 2) != (window is not None) or (window and wanted[0] not in (None, window)):
        rows = f"windows of {window} rows" if window else "single rows"
        line = f"window = {wanted[0] or 64}" if len(wanted) == 2 else None
        raise DataError(
            f"The table {table.path} is read as {rows}; the model takes {_described(wanted)}.",
            expected=f"samples of shape {list(wanted)}.".replace("None", "any"),
            fix=f"write in the recipe:\n  [data.table]\n  {line}" if line else "leave window out of the recipe.",
        )


def _described(shape: Shape) -> str:
    if len(shape) == 1:
        return f"{shape[0]} numbers"
    return f"windows of {'any number of' if shape[0] is None else shape[0]} rows with {shape[1]} numbers each"


def _stated(layout: _Layout, coding: _Coding, config: TableConfig) -> JsonObject:
    target = dict(config.target) if isinstance(config.target, Mapping) else list(layout.targets)
    if layout.image:
        return {"image": layout.image, "target": target, "group": layout.group}
    return {
        "columns": list(coding.columns),
        "target": target,
        "group": layout.group,
        "window": config.window,
        "stride": (config.stride or config.window) if config.window else None,
        "normalize": config.normalize,
    }


def _width(column: JsonObject) -> int:
    return len(column["values"]) if column["encode"] == "one-hot" else 1


def _begins_with_number(head: Chunk, name: str) -> bool:
    cells = head.cells[name]
    present = next((cell for cell in cells if not is_missing(cell)), 0)
    return is_number(present)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:COLUMNS_SHOWN]) + (", ..." if len(names) > COLUMNS_SHOWN else "")
