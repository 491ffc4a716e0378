"""What the pages for beginners tell to type: every command of docs/start.md and docs/tasks/ is run as it stands there.

A page is run from its top to its end in one folder, which holds `examples`, the archives that the page names, and, of
the reader's own, a `model.keras` with a folder `images`. A ```console block shows commands behind `$`, and what
they print: the shown lines must come in this order, where figures are free and `…` is anything.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pytest
from PIL import Image

from edgeprune.cli import edgeprune as command_line

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT / "docs")): path.read_text("utf-8")
    for path in [ROOT / "docs" / "start.md", *sorted((ROOT / "docs" / "tasks").glob("*.md"))]
}
NUMBER = re.compile(r"\d[\d,.]*")
# What a test does not run: it changes the machine, or its shell.
NOT_RUN = re.compile(r"pip install|python3 -m venv")


class Step(NamedTuple):
    """A command, and the lines that the page shows of its output."""

    command: str
    shown: list[str]


def steps(text: str) -> list[Step]:
    """The commands of a page's blocks, in their order."""
    found = []
    for language, block in re.findall(r"^```(sh|console)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if language == "sh" or line.startswith("$ "):
                found.append(Step(line.removeprefix("$ "), []))
            else:
                found[-1].shown.append(line)
    return [step for step in found if step.command.strip()]


def pattern(line: str) -> str:
    """A regular expression for a shown line: figures are free, `…` is anything, spaces are of any width."""
    parts = re.split(rf"({NUMBER.pattern}|…|\s+)", line.strip())
    free = {"…": ".*", **{part: r"\s+" for part in parts if part.isspace()}}
    return "".join(free.get(part) or (r"\d[\d,.]*" if NUMBER.fullmatch(part) else re.escape(part)) for part in parts)


def missing(shown: list[str], printed: str) -> str | None:
    """The first shown line that is not printed behind those before it."""
    lines = iter(printed.splitlines())
    return next((line for line in shown if not any(re.search(pattern(line), one) for one in lines)), None)


def test_shown_output_is_compared_in_order_with_free_figures():
    """Other figures pass; other words, a missing line and another order do not."""
    printed = "file     bytes\nfloat32  52,362\nint8     9.5 kB\n"
    assert missing(["file bytes", "float32 1,000", "…8 7.25 kB"], printed) is None
    assert missing(["file sizes"], printed) == "file sizes"
    assert missing(["int8 1 kB", "float32 1"], printed) == "float32 1"
    assert missing(["…", "…", "…", "…"], printed) == "…"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_one_that_exists(page):
    """edgeprune's own commands and options, scripts and their options, and extras of pip are what they are called."""
    extras = re.findall(r"^([\w-]+) =$", (ROOT / "setup.cfg").read_text("utf-8"), re.MULTILINE)
    found = steps(PAGES[page])
    assert found
    for step in found:
        words = shlex.split(step.command)
        if words[0] == "edgeprune":
            command = command_line.get_command(click.Context(command_line), words[1])
            assert command, step.command
            command.make_parser(click.Context(command)).parse_args(words[2:])
        elif words[:2] == ["pip", "install"]:
            named = re.search(r"\[(.+)\]", words[2])
            assert set(named[1].split(",") if named else []) <= set(extras), step.command
        elif words[0] == "python":
            script = (ROOT / words[1]).read_text("utf-8")
            assert [word for word in words if word.startswith("--") and f'"{word}"' not in script] == []
        else:
            assert NOT_RUN.search(step.command), step.command


@pytest.fixture
def folder(shared, tmp_path):
    """What a reader has: the examples, the archives that pages name, images by class, and a model for them."""
    import tf_keras

    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for path in [
        *shared.glob("data/*.tar.gz"),
        *shared.glob("models/*.tar.gz"),
        *shared.glob("models/*.tflite"),
    ]:
        (tmp_path / path.name).symlink_to(path)
    random = np.random.default_rng(0)
    for name, mean in (("dark", 60), ("bright", 190)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(60):
            pixels = np.clip(random.normal(mean, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    layers = tf_keras.layers
    body = [layers.Conv2D(filters, 3, activation="relu") for filters in (16, 32)]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(2, activation="softmax")]
    model = tf_keras.Sequential([layers.Input((16, 16, 3)), layers.Rescaling(1 / 255), *body, *head])
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    data = tf_keras.utils.image_dataset_from_directory(tmp_path / "images", image_size=(16, 16))
    model.fit(data, epochs=5, verbose=0)
    model.save(tmp_path / "model.keras")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_command_runs_as_it_is_written(page, folder):
    """From the top of the page to its end; `check` may also end with 1, which says that something will not run."""
    (folder / "bin").mkdir()
    for name, arguments in (("python", ""), ("edgeprune", "-m edgeprune ")):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}"$@"\n')
        program.chmod(0o755)
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    for step in [step for step in steps(PAGES[page]) if not NOT_RUN.search(step.command)]:
        done = subprocess.run(
            step.command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800
        )
        allowed = (0, 1) if step.command.startswith("edgeprune check") else (0,)
        assert done.returncode in allowed, f"{step.command}\n{done.stdout}{done.stderr}"
        assert missing(step.shown, done.stdout) is None, f"{step.command}\n{done.stdout}"
    shutil.rmtree(folder / "runs", ignore_errors=True)
