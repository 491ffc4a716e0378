"""Atomic writes: a final name holds the whole new content or what was there before."""

import os
from pathlib import Path

import pytest

from edgeprune.errors import OutputError
from edgeprune.files import atomic_path, locked, output_errors, sha256_file, write_bytes


def test_a_failed_write_keeps_the_old_content_and_leaves_nothing_behind(tmp_path):
    """Whatever happens while writing, the old file stays whole and no temporary file remains."""
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(FileNotFoundError), atomic_path(path) as temporary:
        temporary.write_bytes(Path("missing").read_bytes())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_one_message():
    """/dev/full refuses every write as a full disk does."""
    path = Path("/dev/full")
    with pytest.raises(OutputError, match="no space left"), output_errors(path), open(path, "wb", buffering=0) as file:
        file.write(b"x")


def test_a_path_through_a_file_is_one_message(tmp_path):
    """A folder cannot be made below a file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="--out"):
        write_bytes(tmp_path / "file" / "below", b"x")


def _through_itself(folder):
    (folder / "circle").symlink_to("circle")
    return folder / "circle" / "out"


@pytest.mark.parametrize(
    "place",
    [
        lambda folder: Path("/proc/none/out"),
        lambda folder: folder / ("long" * 200) / "out",
        _through_itself,
    ],
    ids=["where no folder can be", "too long a name", "a link to itself"],
)
def test_a_folder_that_cannot_be_made_is_one_message(place, tmp_path):
    """The operating system has many reasons; each ends in a sentence that names the path and what to do."""
    path = place(tmp_path)
    with pytest.raises(OutputError, match=r"Cannot write .*\n?.*--out"):
        write_bytes(path, b"x")
    with pytest.raises(OutputError), locked(path):
        pass


def test_a_file_elsewhere_that_is_missing_is_no_matter_of_the_output(tmp_path):
    """What a stage reads is not what it writes: such an error is for whoever reads."""
    with pytest.raises(FileNotFoundError), output_errors(tmp_path / "out"):
        (tmp_path / "data").read_bytes()


def test_sha256_is_that_of_the_content(tmp_path):
    """The digest is the one everybody knows for 'abc'."""
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc").startswith("ba7816bf8f01cfea")
