"""Columns of CSV and Parquet files, chunk by chunk."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.data.tables.rules import NUMBER, SEPARATORS, read_rows
from edgeprune.errors import DataError

SUFFIXES = (".csv", ".parquet")
CHUNK_ROWS = 8192
PROBLEMS_SHOWN = 5
DECIMAL_COMMA = "write numbers with a decimal point: 0.5, not 0,5."
# What tables write where there is no value.
MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Consecutive rows.

    Attributes:
        lines: int64 [rows], in the file; of Parquet the number of the row, from 1.
        cells: column → its values: texts of a CSV file; texts, numbers or None, or an array of numbers of Parquet.
    """

    lines: np.ndarray
    cells: Mapping[str, Sequence[Any] | np.ndarray]


@dataclasses.dataclass(frozen=True)
class TableFile:
    """A CSV file with a header, in UTF-8, or a Parquet file.

    Attributes:
        columns: the names, in the order of the file.
    """

    path: Path
    columns: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> TableFile:
        """Read the names of the columns.

        Raises:
            DataError: the file cannot be read, has no header, or names a column twice.
        """
        with _readable(path):
            parquet = path.suffix == ".parquet"
            names = _parquet(path).schema_arrow.names if parquet else next(read_rows(path), (1, []))[1]
        if "" in names and any(names) and not any(map(is_number, names)):
            raise DataError(
                f"The file {path} has {len(names)} columns, and column {names.index('') + 1} has no name.",
                expected="a name for every column.",
                fix="write its name into the first line; if it is the index of a pandas table, save it without: "
                "to_csv(PATH, index=False).",
            )
        # A single name like this has other separators in it, or is a remark.
        single = len(names) == 1 and not parquet and re.search(r"\||\S\s+\S", names[0])
        if not names or single or any(map(is_number, names)) or "" in names:
            given = f"begins with {_some(names)}" if names else "is empty"
            raise DataError(
                f"The file {path} {given}: there is no line with the names of the columns.",
                expected=f"a first line with a name for every column, separated by one of {SEPARATORS!r}.",
                fix="write the names of the columns above the values"
                + (", and separate columns so." if single else "."),
            )
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise DataError(f"The file {path} has two columns {twice[0]!r}.", expected="a name of its own for each.")
        return cls(path, tuple(names))

    @property
    def place(self) -> str:
        """What a row is called in messages: ``line`` of a text, ``row`` of Parquet."""
        return "row" if self.path.suffix == ".parquet" else "line"

    def chunks(self, names: Iterable[str]) -> Iterator[Chunk]:
        """The rows in order, CHUNK_ROWS at a time.

        Raises:
            DataError: the file is damaged, a line has too few or too many values, or a column of Parquet has
                several values in a row.
        """
        names = list(dict.fromkeys(names))
        with _readable(self.path):
            yield from self._parquet_chunks(names) if self.place == "row" else self._csv_chunks(names)

    def _csv_chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        rows = read_rows(self.path)
        next(rows)
        places = [self.columns.index(name) for name in names]
        while part := list(itertools.islice(rows, CHUNK_ROWS)):
            for line, cells in part:
                if len(cells) != len(self.columns):
                    raise DataError(
                        f"Line {line} of {self.path} has {len(cells)} values; the header names {len(self.columns)} "
                        "columns.",
                        expected="a value for every column in every line; texts with separators in quotes.",
                        fix="correct this line.",
                    )
            columns = list(zip(*(cells for _, cells in part), strict=True))
            yield Chunk(
                np.array([line for line, _ in part], np.int64),
                {name: columns[place] for name, place in zip(names, places, strict=True)},
            )

    def _parquet_chunks(self, names: Sequence[str]) -> Iterator[Chunk]:
        done, schema = 0, _parquet(self.path).schema_arrow
        for name in names:
            kind = schema.field(name).type
            if kind.num_fields:  # lists and structures
                raise DataError(
                    f"The column {name!r} of {self.path} is of type {kind}.",
                    expected="a number or a text in every row.",
                    fix="write its values as columns of their own, or leave it out: ignore = "
                    f"[{json.dumps(name)}] under [data.table].",
                )
        for batch in _parquet(self.path).iter_batches(CHUNK_ROWS, columns=list(names)):
            cells = {name: _from_arrow(batch.column(name)) for name in names}
            yield Chunk(np.arange(done + 1, done + 1 + batch.num_rows, dtype=np.int64), cells)
            done += batch.num_rows

    def digest(self) -> bytes:
        """sha256 over the content."""
        with _readable(self.path), self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()


class Problems:
    """Cells of a file that have no value of the kind that their column has; all are counted, the first are named."""

    def __init__(self, file: TableFile):
        self._file = file
        self._count = 0
        self._shown: list[str] = []
        self._fixes: dict[str, None] = {}

    def add(self, line: int, column: str, cell: Any, what: str, fix: str) -> None:
        """Remember a cell.

        Args:
            what: is wrong with it, where it is there at all.
            fix: the line to write, or what to do.
        """
        missing = is_missing(cell)
        self._count += 1
        if self._count <= PROBLEMS_SHOWN:
            said = "no value" + (f" ({cell!r})" if cell not in ("", None) else "") if missing else f"{cell!r} {what}"
            self._shown.append(f"{self._file.place} {line}, column {column!r}: {said}")
        self._fixes[
            f"fill in or remove rows without a value, or leave the column out: ignore = [{column!r}] under "
            "[data.table]."
            if missing
            else fix
        ] = None

    def finish(self) -> None:
        """Raise the DataError that names them, if there are any."""
        if not self._count:
            return
        more = f"; and {self._count - PROBLEMS_SHOWN} more" if self._count > PROBLEMS_SHOWN else ""
        places = "value" if self._count == 1 else "values"
        raise DataError(
            f"The table {self._file.path} has {self._count} {places} that cannot be used: "
            f"{'; '.join(self._shown)}{more}.",
            expected="a finite number in every row of a number column, a known text in every row of a category.",
            fix=" ".join(list(self._fixes)[:3]).replace("'", '"'),
        )


def numbers(chunk: Chunk, column: str, problems: Problems, fix: str) -> np.ndarray:
    """float64 [rows] of a number column; cells that are none become problems."""
    cells = chunk.cells[column]
    if isinstance(cells, np.ndarray):
        values = cells.astype(np.float64)
    else:
        try:
            values = np.fromiter(map(float, cells), np.float64, len(cells))
            if any(map(_odd, cells)):
                raise ValueError
        except (TypeError, ValueError):
            values = np.array([float(cell) if is_number(cell) else np.nan for cell in cells], np.float64)
    with np.errstate(over="ignore"):
        bad = np.flatnonzero(~np.isfinite(values.astype(np.float32)))
    for i in bad:
        cell = cells[int(i)]
        what = "is no number that float32 can hold" if is_number(cell) else "is no number"
        comma = isinstance(cell, str) and is_number(cell.replace(",", ".", 1))
        problems.add(int(chunk.lines[i]), column, cell, what, DECIMAL_COMMA if comma and "," in cell else fix)
    return values


def texts(chunk: Chunk, column: str) -> list[str]:
    """The cells of a column of texts; missing ones are empty."""
    return ["" if is_missing(cell) else str(cell) for cell in chunk.cells[column]]


def is_missing(cell: Any) -> bool:
    """Whether a cell stands for no value."""
    return cell is None or str(cell).lower() in MISSING


def _odd(cell: Any) -> bool:
    return isinstance(cell, str) and not NUMBER(cell)


def is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return not _odd(cell) and not is_missing(cell)


def _from_arrow(column: Any) -> Sequence[Any] | np.ndarray:
    values = column.to_numpy(zero_copy_only=False) if column.null_count == 0 else np.array(None)
    return values if values.dtype.kind in "biuf" else column.to_pylist()


def _parquet(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            f"Reading {path} needs pyarrow, which is not installed.",
            fix="pip install 'edgeprune[parquet]', or write the table as CSV.",
        ) from None
    return pyarrow.parquet.ParquetFile(path)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(
            f"The file {path} is not UTF-8: {error.reason}.",
            expected="a table as text in UTF-8, or a Parquet file.",
            fix="save it again in UTF-8, for example: iconv -f LATIN1 -t UTF-8 OLD.csv > NEW.csv",
        ) from None
    except (csv.Error, OSError, ValueError) as error:  # pyarrow's errors are ValueError and OSError, too
        raise DataError(
            f"The table {path} cannot be read: {str(error).rstrip('.')}.",
            expected="a CSV file with a header, or a Parquet file.",
        ) from None


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
