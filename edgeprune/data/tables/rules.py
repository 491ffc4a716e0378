"""How a line of a CSV file becomes numbers; scripts for devices have a copy of all that follows the imports.

A column is ``{"name": ..., "encode": "number"}``, or ``"index"`` or ``"one-hot"`` with its ``"values"`` in their order.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

import collections
import csv
import itertools
import math
import re

import numpy as np

SEPARATORS = ",;\t"
# Python's float() also takes 1_000, which no other reader of tables does.
NUMBER = re.compile(r"[^_]*").fullmatch
LARGEST = float(np.finfo(np.float32).max)


def read_rows(path):
    """(line, cells) of every line that is not empty, the header first. The separator is what the header has most of."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        separator = max(SEPARATORS, key=re.sub('"[^"]*"', "", first).count)
        reader = csv.reader(itertools.chain([first], file), delimiter=separator, strict=True)
        line = 1
        try:
            for cells in reader:
                if cells:
                    yield reader.line_num, [cell.strip() for cell in cells]
                line = reader.line_num + 1
        except csv.Error as error:
            raise csv.Error(f"line {line}: {error}") from None


def encode_cell(cell, column):
    """The numbers of one cell; ValueError if it has none."""
    if column["encode"] == "number":
        value = float(cell) if NUMBER(cell) else math.nan
        if not abs(value) <= LARGEST:  # NaN is not, either
            raise ValueError(f"{cell!r} is no number that float32 can hold")
        return [value]
    if cell not in column["values"]:
        raise ValueError(f"{cell!r} is none of {', '.join(column['values'])}")
    place = column["values"].index(cell)
    return [float(place)] if column["encode"] == "index" else [float(i == place) for i in range(len(column["values"]))]


def table_samples(path, table):
    """(line, float32 [features] or [window, features]) of every row, or of every window that ends with it.

    A window is made of consecutive rows of a group; one begins every ``stride`` rows.
    """
    rows = read_rows(path)
    _, header = next(rows, (1, []))
    missing = [column["name"] for column in table["columns"] if column["name"] not in header]
    if missing:
        raise ValueError(f"it has no column {missing[0]!r}")
    places = [header.index(column["name"]) for column in table["columns"]]
    group = header.index(table["group"]) if table["group"] in header else None
    window = table["window"]
    seen = collections.Counter()  # type: ignore[var-annotated]
    held = collections.defaultdict(lambda: collections.deque(maxlen=window))  # type: ignore[var-annotated]
    for line, cells in rows:
        if len(cells) != len(header):
            raise ValueError(f"line {line} has {len(cells)} values for {len(header)} columns")
        numbers = []
        for place, column in zip(places, table["columns"], strict=True):
            try:
                numbers += encode_cell(cells[place], column)
            except ValueError as error:
                raise ValueError(f"line {line}, column {column['name']!r}: {error}") from None
        if window is None:
            yield line, np.array(numbers, np.float32)
            continue
        key = None if group is None else cells[group]
        held[key].append(numbers)
        seen[key] += 1
        if seen[key] >= window and (seen[key] - window) % table["stride"] == 0:
            yield line, np.array(held[key], np.float32)
