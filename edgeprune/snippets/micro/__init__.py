"""Sources for a microcontroller: the file as a C array, what the interpreter needs, and programs around both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.files import write_bytes

if TYPE_CHECKING:
    from edgeprune.artifact import MicroFacts

# Template → where it goes; NAME is the model's. An Arduino sketch is a folder of its own, with everything in it.
_FILES = (
    ("model_data.h.jinja", ("model_data.h", "arduino/NAME/model_data.h", "esp-idf/main/model_data.h")),
    ("model_data.cc.jinja", ("model_data.cc", "arduino/NAME/model_data.cpp", "esp-idf/main/model_data.cc")),
    ("model_runner.h.jinja", ("model_runner.h", "arduino/NAME/model_runner.h", "esp-idf/main/model_runner.h")),
    ("sketch.ino.jinja", ("arduino/NAME/NAME.ino",)),
    ("main.cc.jinja", ("esp-idf/main/main.cc",)),
    ("main.cmake.jinja", ("esp-idf/main/CMakeLists.txt",)),
    ("component.yml.jinja", ("esp-idf/main/idf_component.yml",)),
    ("project.cmake.jinja", ("esp-idf/CMakeLists.txt",)),
    ("README.md.jinja", ("README.md",)),
)
_BYTES_IN_A_LINE = 16


def write_sources(
    folder: Path, name: str, model: Path, facts: MicroFacts, labels: Sequence[str] | None = None
) -> list[Path]:
    """Write the sources of a file for a microcontroller.

    Args:
        folder: where they go.
        name: of the model.
        model: the file as it is flashed.
        facts: what it takes, and the methods that register its operators.
        labels: names of the classes, if the first output is one of several classes.

    Returns:
        The files written.
    """
    from edgeprune.snippets import identifier, render
    from edgeprune.tflite.flatbuffer import parse

    content = model.read_bytes()
    graph = parse(content).subgraphs[0]
    given: Mapping[str, Any] = {
        "name": identifier(name),
        "rows": [content[start : start + _BYTES_IN_A_LINE] for start in range(0, len(content), _BYTES_IN_A_LINE)],
        "size": len(content),
        "facts": facts,
        "input_bytes": [graph.tensors[index].nbytes for index in graph.inputs],
        "inputs": [graph.tensors[index] for index in graph.inputs],
        "outputs": [graph.tensors[index] for index in graph.outputs],
        "labels": list(labels) if labels else None,
    }
    written = []
    for template, places in _FILES:
        text = render(f"micro/{template}", given).encode()
        for place in places:
            path = folder / place.replace("NAME", given["name"])
            write_bytes(path, text)
            written.append(path)
    return written
