"""``edgeprune encode``: what it prints, writes and refuses."""

import re

import pytest
from commands import run

from edgeprune.recipe.load import load_recipe
from edgeprune.tflite.encode import encoded


def test_it_writes_the_file_and_says_what_it_takes(micro_file, tmp_path):
    """Each tensor's code, both sizes and both arenas are printed, and the file is that of the function."""
    pytest.importorskip("tflite_micro", reason="edgeprune[micro] is not installed")
    done = run("encode", micro_file, "--out", "coded.tflite", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    encoding = encoded(micro_file.read_bytes())
    assert (tmp_path / "coded.tflite").read_bytes() == encoding.content
    for text in ("pruned", "huffman", "lut", "plain", f"{encoding.bytes:,}", "arena", "Wrote coded.tflite"):
        assert text in done.stdout


def test_what_does_not_pay_stays_plain(tiny_files, tmp_path):
    """Without --out nothing is written; a file that no code makes smaller is named as such."""
    done = run("encode", tiny_files["int8"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "it stays as it is" in done.stdout
    assert not list(tmp_path.iterdir())


def test_bad_files_are_one_message(tiny_files, tmp_path):
    """A file without int8 weights, and one that is missing, end with a message and write nothing."""
    for file in (tiny_files["float32"], tmp_path / "missing.tflite"):
        done = run("encode", file, "--out", tmp_path / "out.tflite")
        assert done.returncode != 0
        assert str(file) in done.stderr
        assert not (tmp_path / "out.tflite").exists()


def test_its_advice_gives_a_file_that_can_be_encoded(tiny_files, tmp_path):
    """A float file is refused with a recipe that makes int8 weights."""
    recipe = re.search(r"--recipe (\w+)", run("encode", tiny_files["float32"]).stderr)[1]
    assert "int8" in load_recipe(recipe).quantize.modes
