"""Tables: columns become inputs and targets, windows and groups hold, and every bad cell is named before training."""

import csv
import re

import numpy as np
import pytest
from PIL import Image

from edgeprune.data import InputSpec, load_data
from edgeprune.data.tables.rules import table_samples
from edgeprune.data.tables.table import in_words
from edgeprune.errors import DataError
from edgeprune.recipe.config import DataConfig

ROWS = 60


def write(path, rows, header):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def rows(count=ROWS, first=0):
    """a counts, b is its square, zone and kind are texts, who has five values."""
    return [
        (i, i * i / 7, ("north", "south", "east")[i % 3], ("cat", "dog")[i % 2], f"p{i % 5}", i / 3)
        for i in range(first, first + count)
    ]


HEADER = ("a", "b", "zone", "kind", "who", "price")


def load(path, shape=(2,), dtype="float32", seed=0, classes=None, **table):
    spec = InputSpec((shape,), dtypes=(dtype,))
    return load_data(str(path), DataConfig(table=table, classes=classes), spec, seed=seed)


def values(split):
    """(x, y) of all samples, in order."""
    batches = list(split.batches(7).as_numpy_iterator())
    return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "t" / "train.csv", rows(), HEADER)
    shuffled = [(price, kind, a, b, zone, who) for a, b, zone, kind, who, price in rows(12, 100)]
    write(tmp_path / "t" / "test.csv", shuffled, ("price", "kind", "a", "b", "zone", "who"))
    return tmp_path / "t"


NUMBERS = {"target": "price", "ignore": ("zone", "kind", "who")}


def test_columns_are_found_by_name_and_keep_the_order_of_the_training_table(folder):
    """Columns that have no other use are inputs; the test table may have another order."""
    data = load(folder, **NUMBERS)
    x, y = values(data.test)
    assert np.array_equal(x, np.array([(i, i * i / 7) for i in range(100, 112)], np.float32))
    assert np.array_equal(y, np.arange(100, 112, dtype=np.float32) / np.float32(3))
    assert (data.train.size, data.validation.size, data.test.size) == (54, 6, 12)
    assert in_words(data.preprocessing["table"]) == "2 columns (a, b); target price"


def test_one_file_is_split(folder):
    """20 % of the rows of a single table become test, 10 % of the rest validation; none is lost."""
    data = load(folder / "train.csv", **NUMBERS)
    parts = [values(split)[0][:, 0] for split in (data.train, data.validation, data.test)]
    assert [len(part) for part in parts] == [43, 5, 12]
    assert sorted(np.concatenate(parts)) == list(range(ROWS))


@pytest.mark.parametrize(("separator", "start"), [(";", ""), ("\t", ""), (",", "\ufeff")])
def test_other_separators_and_the_mark_of_a_spreadsheet(tmp_path, separator, start):
    """Semicolons and tabs separate, too, and a byte order mark is no part of a name."""
    lines = ["a,b,price", *(f"{i},{i + 0.5},{i}" for i in range(ROWS))]
    path = tmp_path / "t.csv"
    path.write_text(start + "\n\n".join(lines).replace(",", separator), encoding="utf-8")
    x, y = values(load(path, target="price").train)
    assert np.array_equal(x, np.stack([y, y + 0.5], 1))


def test_parquet_holds_the_same_samples(folder, tmp_path):
    """Parquet files of the same columns give the same inputs, targets and classes; a null is named with its row."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({name: list(column) for name, column in zip(HEADER, zip(*rows(), strict=True), strict=True)})
    pq.write_table(table, tmp_path / "t.parquet")
    columns = {"ignore": ("price", "who"), "target": "kind", "categories": {"zone": "one-hot"}}
    one, other = (load(path, (5,), **columns) for path in (folder / "train.csv", tmp_path / "t.parquet"))
    for name in ("train", "validation", "test"):
        for a, b in zip(values(getattr(one, name)), values(getattr(other, name)), strict=True):
            assert np.array_equal(a, b)
    assert one.class_names == other.class_names == ("cat", "dog")
    pq.write_table(table.set_column(1, "b", pa.array([1.0, None] * 30)), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"30 values .*row 2, column 'b': no value"):
        load(tmp_path / "t.parquet", (5,), **columns)


def test_texts_become_numbers_by_a_sorted_or_a_stated_table(folder):
    """One-hot and index, sorted unless the recipe lists the values; integer inputs take them."""
    data = load(folder, (4,), target="price", ignore=("kind", "who", "b"), categories={"zone": "one-hot"})
    x, _ = values(data.test)
    zones = [("north", "south", "east")[i % 3] for i in range(100, 112)]
    assert np.array_equal(x[:, 1:], [[zone == name for name in ("east", "north", "south")] for zone in zones])
    stated = {"zone": {"encode": "index", "values": ("south", "north", "east")}}
    data = load(folder, (2,), "int32", target="price", ignore=("kind", "who", "b"), categories=stated)
    x, _ = values(data.test)
    assert x.dtype == np.int32
    assert x[:, 1].tolist() == [stated["zone"]["values"].index(zone) for zone in zones]


def test_targets_of_texts_are_classes(folder):
    """Class names are sorted, or in the order of [data] classes."""
    options = {"ignore": ("zone", "who", "price"), "target": "kind"}
    data = load(folder, **options)
    assert data.class_names == ("cat", "dog")
    assert values(data.test)[1].tolist() == [i % 2 for i in range(100, 112)]
    data = load(folder, classes=("dog", "cat"), **options)
    assert values(data.test)[1].tolist() == [1 - i % 2 for i in range(100, 112)]


def test_several_targets(folder):
    """Several columns are a row of numbers; a table gives each to an output; [] is data without labels."""
    options = {"ignore": ("zone", "who", "kind")}
    x, y = values(load(folder, (1,), target=("b", "price"), **options).test)
    assert np.allclose(y, np.stack([x[:, 0] ** 2 / 7, x[:, 0] / 3], 1))
    data = load(folder, (1,), target={"one": "b", "two": "price"}, **options)
    _, y = next(data.test.batches(12).as_numpy_iterator())
    assert {name: array.shape for name, array in y.items()} == {"one": (12, 1), "two": (12, 1)}
    assert load(folder, (3,), target=(), **options).targets == ()


@pytest.mark.parametrize("stride", [None, 1, 3])
def test_windows_are_consecutive_rows_of_a_group(tmp_path, stride):
    """Rows of groups that take turns are put together; windows are in the order of their last rows, whose targets they
    have, and a reader of the file line by line finds the same."""
    path = write(tmp_path / "w.csv", [(i, -i, f"p{i % 3}", i % 4) for i in range(90)], ("a", "b", "who", "label"))
    data = load(path, (5, 2), target="label", group="who", window=5, stride=stride)
    found = [values(split) for split in (data.train, data.validation, data.test)]
    step = stride or 5
    expected = sorted(
        tuple(range(group + 3 * start, group + 3 * (start + 5), 3))
        for group in range(3)
        for start in range(0, 30 - 5 + 1, step)
    )
    assert sorted(tuple(int(v) for v in x[:, 0]) for xs, _ in found for x in xs) == expected
    for xs, ys in found:
        assert np.array_equal(ys, xs[:, -1, 0] % 4)
        assert (np.diff(xs[:, -1, 0]) > 0).all()
        assert np.array_equal(xs[..., 1], -xs[..., 0])
    read = list(table_samples(path, data.preprocessing["table"]))
    assert sorted(tuple(int(v) for v in x[:, 0]) for _, x in read) == expected
    assert [line for line, _ in read] == [int(x[-1, 0]) + 2 for _, x in read]


def test_groups_stay_together(folder):
    """No value of the group column is in two splits, by whatever seed."""
    for seed in range(4):
        data = load(folder / "train.csv", seed=seed, target="price", group="who", ignore=("zone", "kind"))
        owners = [{int(a) % 5 for a in values(split)[0][:, 0]} for split in (data.train, data.validation, data.test)]
        assert sorted(owner for part in owners for owner in part) == list(range(5))
        assert all(owners)


def test_overlapping_windows_without_groups_are_split_in_time(tmp_path):
    """The last windows are held out, and no row is in two splits."""
    path = write(tmp_path / "w.csv", [(i, i) for i in range(300)], ("a", "label"))
    data = load(path, (8, 1), target="label", window=8, stride=1)
    seen = [set(values(split)[0].reshape(-1).tolist()) for split in (data.train, data.validation, data.test)]
    assert max(seen[0]) < min(seen[1]) <= max(seen[1]) < min(seen[2])
    assert max(seen[2]) == 299
    assert data.test.size == round(0.2 * 293)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("how", ["standard", "minmax"])
def test_normalization_is_of_the_training_table(folder, how, window):
    """Test rows, and categories, do not change by what test has; every training row counts once."""
    shape = (4, 4) if window else (4,)
    options = {"target": "price", "ignore": ("b", "kind", "who"), "categories": {"zone": "one-hot"}, "window": window}
    data = load(folder, shape, normalize=how, **options)
    a = np.arange(ROWS)
    mean, std = (a.mean(), a.std()) if how == "standard" else (0, ROWS - 1)
    assert np.allclose(data.preprocessing["mean"], [mean, 0, 0, 0])
    assert np.allclose(data.preprocessing["std"], [std, 1, 1, 1])
    x, _ = values(data.test)
    assert np.allclose(x[..., 0].reshape(-1), (np.arange(100, 112) - mean) / std, atol=1e-6)
    assert set(x[..., 1:].reshape(-1).tolist()) == {0, 1}


def test_a_column_that_never_changes_passes_normalization(tmp_path):
    """It becomes zero; nothing is divided by zero."""
    path = write(tmp_path / "c.csv", [(i, 5, i) for i in range(ROWS)], ("a", "five", "label"))
    x, _ = values(load(path, target="label", normalize="standard").train)
    assert set(x[:, 1].tolist()) == {0}


def test_the_fingerprint_follows_content_and_recipe(folder):
    """The same table is the same data, wherever the clock stands; one other digit, or another column, is not."""
    first = load(folder, **NUMBERS).fingerprint
    content = (folder / "test.csv").read_bytes()
    (folder / "test.csv").write_bytes(content)
    assert load(folder, **NUMBERS).fingerprint == first
    (folder / "test.csv").write_bytes(content.replace(b"100", b"101", 1))
    assert load(folder, **NUMBERS).fingerprint != first
    assert load(folder, target="a", ignore=("zone", "kind", "who")).fingerprint != first


def test_images_that_a_table_names(tmp_path):
    """Pixels of the files, relative to the table, with the targets of their rows; missing ones are named."""
    for i in range(40):
        path = tmp_path / "images" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(path)
    listed = [(f"images/{i}.png", i / 10, -i, i // 8) for i in reversed(range(40))]
    table = write(tmp_path / "list.csv", listed, ("file", "angle", "speed", "drive"))
    options = {"image": "file", "target": ("angle", "speed"), "group": "drive"}
    data = load(table, (8, 8, 3), **options)
    drives = []
    for split in (data.train, data.validation, data.test):
        x, y = values(split)
        assert np.allclose(y, np.stack([x[:, 0, 0, 0] / 10, -x[:, 0, 0, 0]], 1))
        drives.append({int(v) // 8 for v in x[:, 0, 0, 0]})
    assert sorted(drive for part in drives for drive in part) == list(range(5))
    (tmp_path / "images" / "39.png").unlink()
    (tmp_path / "images" / "37.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 values .*line 2, .*names no file; line 4, .*a file of 0 bytes"):
        load(table, (8, 8, 3), **options)


BAD_CELLS = {
    "text": ("7,abc", "line 3, column 'b': 'abc' is no number(.|\n)*categories.b"),
    "nothing": ("7,", "line 3, column 'b': no value(.|\n)*fill in"),
    "NaN": ("7,NaN", "line 3, column 'b': no value .'NaN'"),
    "infinity": ("7,1e99", "line 3, column 'b': '1e99' is no number that float32 can hold"),
    "separator of thousands": ("7,1_000", "line 3, column 'b': '1_000' is no number"),
    "a decimal comma": ('7,"0,5"', "line 3, column 'b': '0,5' is no number(.|\n)*decimal point: 0.5"),
    "a date": ("7,2026-11-27", "line 3, column 'b': '2026-11-27' is no number(.|\n)*categories.b"),
    "too few": ("7", "Line 3 of .* has 1 values; the header names 2 columns"),
    "too many": ("7,8,9", "Line 3 of .* has 3 values"),
    "open quote": ('7,"8', "cannot be read: line 3: unexpected end of data"),
}


@pytest.mark.parametrize("case", BAD_CELLS)
def test_a_bad_cell_is_one_message_with_file_line_and_column(tmp_path, case):
    """Before anything is trained; the reader line by line refuses the same cells."""
    line, message = BAD_CELLS[case]
    path = tmp_path / "bad.csv"
    path.write_text(f"y,b\n1,1\n{line}\n3,3\n")
    with pytest.raises(DataError, match=message) as error:
        load(path, (1,), target="y")
    assert "bad.csv" in str(error.value)
    stated = {"columns": [{"name": "b", "encode": "number"}], "group": None, "window": None}
    with pytest.raises((ValueError, csv.Error)):
        list(table_samples(path, stated))


def test_all_bad_cells_are_counted_and_the_first_named(tmp_path):
    """A table of 20,000 rows with one bad cell in ten: one message, five places."""
    path = write(tmp_path / "t.csv", [(i if i % 10 else "?", i) for i in range(20000)], ("a", "y"))
    with pytest.raises(DataError, match=r"2000 values .*and 1995 more") as error:
        load(path, (1,), target="y")
    assert re.findall(r"line (\d+)", str(error.value)) == ["2", "12", "22", "32", "42"]


REFUSED = {
    "no target": ({}, (2,), 'Which column .* a, b, zone, kind, who, price(.|\n)*target = "price"'),
    "unknown column": ({"target": "prise"}, (2,), "names the column 'prise'.* a, b, zone"),
    "twice": ({"target": "price", "ignore": ("price",)}, (2,), "'price' twice"),
    "too many columns": (
        {"target": "price", "ignore": ("zone", "kind")},
        (2,),
        r"3 numbers in a row \(a, b, who\).*takes 2",
    ),
    "rows for windows": (NUMBERS, (8, 2), "as single rows; the model takes windows of 8(.|\n)*window = 8"),
    "windows for rows": ({**NUMBERS, "window": 4}, (2,), "windows of 4 rows; the model takes 2 numbers"),
    "other windows": ({**NUMBERS, "window": 4}, (8, 2), "windows of 4 rows; the model takes windows of 8"),
    "images": (NUMBERS, (8, 8, 3), r"one input, \[features\] or \[window, features\]"),
    "long windows": ({**NUMBERS, "window": 61}, (61, 2), "no group of 61 rows.* longest has 60"),
    "integers": ({**NUMBERS, "dtype": "int32"}, (2,), "values from .* for input"),
    "a class that train lacks": (
        {
            "target": "price",
            "ignore": ("kind", "who", "b"),
            "categories": {"zone": {"encode": "index", "values": ("north", "east")}},
        },
        (2,),
        "20 values .*'south' is none of the known values(.|\n)*categories.zone",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_one_message(folder, case):
    """Columns and models that do not fit are a DataError with what was found and expected."""
    options, shape, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        load(folder, shape, **options)


def test_other_sources_and_missing_parts(folder, tmp_path):
    """No header, no rows, no test table, a folder that is none: one message each."""
    (tmp_path / "no_header.csv").write_text("1,2\n3,4\n")
    with pytest.raises(DataError, match="no line with the names"):
        load(tmp_path / "no_header.csv", target="y")
    (tmp_path / "empty.csv").write_text("a,b,y\n")
    with pytest.raises(DataError, match="has no rows"):
        load(tmp_path / "empty.csv", target="y")
    (tmp_path / "latin.csv").write_bytes(b"a,b,y\n1,2,\xe9\n")
    with pytest.raises(DataError, match=r"is not UTF-8(.|\n)*iconv"):
        load(tmp_path / "latin.csv", target="y")
    (folder / "test.csv").unlink()
    with pytest.raises(DataError, match=r"no table for testing(.|\n)*--data .*train\.csv"):
        load(folder, **NUMBERS)
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"\[data.table\] is for tables"):
        load(tmp_path / "other", **NUMBERS)


@pytest.mark.parametrize(("cell", "kind"), [([1, 2], "list<.*int64>"), ({"a": 1}, "struct<a: int64>")])
def test_columns_of_parquet_with_several_values_in_a_row_are_refused(tmp_path, cell, kind):
    """By their type, and not cell by cell; such a column that is not used does not matter."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    table = {"odd": [cell] * 40, "b": list(range(40)), "y": [0, 1] * 20}
    parquet.write_table(pyarrow.table(table), path)
    with pytest.raises(DataError, match=rf"column 'odd' of .*t.parquet is of type {kind}(.|\n)*ignore = \[\"odd\"\]"):
        load(path, (2,), target="y")
    assert load(path, (1,), target="y", ignore=("odd",)).train.size == 29


def test_groups_in_two_tables_are_an_error(folder):
    """It names them and the line that asks for groups; without that line the tables are taken. The line for folders is
    none for tables."""
    with pytest.raises(DataError, match=r"5 of 5 groups in the test part .*: p0, p1(.|\n)*take group = \"who\" out"):
        load(folder, target="price", group="who", ignore=("zone", "kind"))
    assert load(folder, target="price", ignore=("zone", "kind", "who")).test.size == 12
    table = {"target": "price", "ignore": ("zone", "kind", "who")}
    with pytest.raises(DataError, match=r"\[data\] group is for paths of files(.|\n)*\[data.table\]\n  group"):
        load_data(str(folder), DataConfig(table=table, group="who"), InputSpec(((2,),)))


def test_categories_that_are_numbers_are_sorted_as_numbers(tmp_path):
    """As whatever encoded a column of numbers for the training of the model: 9 before 10, -1 before 0.5."""
    for column, numbers in (("size", ["0", "9", "10"]), ("step", ["-1", "0.5", "2", "10"])):
        lines = [f"{numbers[i % len(numbers)]},{i % 2}" for i in range(40)]
        (tmp_path / "t.csv").write_text("\n".join([f"{column},y", *lines]))
        data = load(tmp_path / "t.csv", (len(numbers),), target="y", categories={column: "one-hot"})
        assert data.preprocessing["table"]["columns"][0]["values"] == numbers


def test_a_table_that_may_be_a_split_is_not_overlooked(folder):
    """valid.csv is validation; dev.csv could be anything."""
    (folder / "valid.csv").write_bytes((folder / "test.csv").read_bytes())
    assert load(folder, **NUMBERS).validation.size == 12
    (folder / "valid.csv").rename(folder / "dev.csv")
    with pytest.raises(DataError, match=r"has dev\.csv beside train\.csv"):
        load(folder, **NUMBERS)


def test_separators_inside_quotes_do_not_count(tmp_path):
    """A name may have more commas than the line has semicolons."""
    lines = ['"a, left, in mm";b;y', *(f"{i};{i * i};{i % 2}" for i in range(40))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    data = load(tmp_path / "t.csv", target="y")
    assert [column["name"] for column in data.preprocessing["table"]["columns"]] == ["a, left, in mm", "b"]


@pytest.mark.parametrize(
    ("header", "said", "fix"),
    [
        (",a,b,y", "column 1 has no name", "index=False"),
        ("a|b|y", "no line with the names", "separate columns so"),
        ("a b y", "no line with the names", "separate columns so"),
        ("# made on Monday", "no line with the names", "above the values"),
        ("1,,2", "no line with the names", "above the values"),
    ],
)
def test_a_first_line_that_names_no_columns_says_what_to_change(tmp_path, header, said, fix):
    """The index that pandas writes, other separators, a remark."""
    (tmp_path / "t.csv").write_text(header + "\n" + "0,1,2,3\n" * 40)
    with pytest.raises(DataError, match=said) as raised:
        load(tmp_path / "t.csv", target="y")
    assert fix in raised.value.fix
