"""Ready-to-run example code for a .tflite, with its preprocessing and quantization filled in.

A new snippet is a template in this folder and an entry in :data:`_KINDS`.
"""

from __future__ import annotations

import inspect
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgeprune.data.images.pixels import frame, framed, palette, read_image, resize_image, write_mask
from edgeprune.data.sound import front_end, wav
from edgeprune.data.tables import rules as table_rules
from edgeprune.files import JsonObject, write_bytes
from edgeprune.target import Target
from edgeprune.tasks import decoding
from edgeprune.tasks.detection import Head, source_file
from edgeprune.tflite.graph import Tensor


def _compiler(target: Target) -> str | None:
    return target.compiler.name if target.compiler else None


def _is_android(target: Target) -> bool:
    return target.runtime.package in ("tensorflow-lite", "litert")


# API of LiteRT on Android → the library that has it; documentation shows the same (tests/snippets/test_snippets.py).
ANDROID = {
    "Interpreter": "com.google.ai.edge.litert:litert:1.4.0",
    "CompiledModel": "com.google.ai.edge.litert:litert:2.3.0",
}
# Kotlin's template → the API that it uses.
_APIS = {"android.kt.jinja": "Interpreter", "compiled.kt.jinja": "CompiledModel"}
# File name, template, and whether a target gets it. Plain Python runs on any machine with one of the runtimes.
_KINDS: tuple[tuple[str, str, Callable[[Target], bool]], ...] = (
    ("run_{name}.py", "python.py.jinja", lambda target: True),
    ("run_{name}_coral.py", "coral.py.jinja", lambda target: _compiler(target) == "edgetpu"),
    ("{camel}Classifier.kt", "android.kt.jinja", _is_android),
    ("{camel}CompiledModel.kt", "compiled.kt.jinja", _is_android),
)


def write_snippets(
    model: Path,
    target: Target,
    preprocessing: Mapping[str, Any],
    inputs: Sequence[str],
    outputs: Sequence[str],
    labels: Sequence[str] | None,
    front: Path | None = None,
    mask: Mapping[str, Any] | None = None,
    head: Head | None = None,
) -> list[Path]:
    """Write the snippets for ``target`` beside a .tflite.

    Args:
        model: the .tflite.
        preprocessing: ``scale``, ``mean`` and ``std`` of ``x = (pixel * scale - mean) / std``, ``color`` of images,
            ``sound``, the front end of sound files, and ``table``, as :class:`edgeprune.data.tables.table.OpenedTable`
            states it.
        inputs, outputs: names of the model's inputs and outputs, in the order of the Keras model.
        labels: names of the classes, if the model's only output is one of several classes, or boxes.
        mask: ``names`` and ``threshold`` (of one value per pixel), if the model's only output has a class per pixel.
        front: the layers of Keras that stay on the host, where the model was cut behind lookups.
        head: what a detector's outputs mean; None: it is none.

    Returns:
        The files written.
    """
    facts = _facts(model, preprocessing, inputs, outputs, labels)
    facts["mask"] = {**mask, "palette": palette(len(mask["names"]))} if mask else None
    used = (read_image, resize_image, *((frame, framed) if head else ()), *((write_mask,) if mask else ()))
    facts["pixels"] = "\n\n\n".join(inspect.getsource(function).rstrip() for function in used)
    written = []
    facts["front"] = _on_host(model, front, [entry["shape"][1:] for entry in facts["inputs"]]) if front else None
    if front:
        written.append(model.parent / facts["front"]["file"])
    facts["boxes"] = _boxes(model, head) if head else None
    written += [model.parent / name for name in facts["boxes"]["files"]] if head else []
    table = preprocessing.get("table") or {}
    facts["table"] = _table(model, table, facts) if "columns" in table else None
    if facts["table"]:
        written.append(model.parent / facts["table"]["file"])
    for pattern, template, wanted in _KINDS:
        # Kotlin has no NumPy: its snippet covers what an app feeds most, one image, and no boxes.
        api = _APIS.get(template)
        if (
            not wanted(target)
            or (api and not _takes_one_image(facts))
            or (api == "CompiledModel" and not _plain(facts))
        ):
            continue
        path = _path(model, pattern)
        android = {"api": api, "library": ANDROID[api], "kind": path.stem} if api else {}
        write_bytes(path, render(template, {**facts, **android}).encode())
        written.append(path)
    return written


def snippet_paths(model: Path) -> list[Path]:
    """Where :func:`write_snippets` puts code for a .tflite, on one target or another."""
    return [_path(model, pattern) for pattern, *_ in _KINDS]


def _path(model: Path, pattern: str) -> Path:
    return model.parent / pattern.format(name=identifier(model.stem), camel=_camel(model.stem))


def _facts(
    model: Path,
    preprocessing: Mapping[str, Any],
    inputs: Sequence[str],
    outputs: Sequence[str],
    labels: Sequence[str] | None,
) -> JsonObject:
    from edgeprune.tflite.flatbuffer import read

    content = read(model)
    graph = content.subgraphs[0]
    signature = content.signatures[0] if content.signatures else None
    order = [signature.inputs[name] for name in inputs] if signature else list(graph.inputs)
    ends = [signature.outputs[name] for name in outputs] if signature else list(graph.outputs)
    return {
        "file": model.name,
        "inputs": [{"name": name, **_tensor(graph.tensors[i])} for name, i in zip(inputs, order, strict=True)],
        # The converter may have put another output first.
        "outputs": [
            {"name": name, "place": graph.outputs.index(i), **_tensor(graph.tensors[i])}
            for name, i in zip(outputs, ends, strict=True)
        ],
        "bgr": preprocessing.get("color") == "bgr",
        "scale": preprocessing["scale"],
        "mean": list(preprocessing["mean"]),
        "std": list(preprocessing["std"]),
        "labels": list(labels) if labels else None,
        "sound": preprocessing.get("sound"),
        "sound_code": _code_of(front_end, "# Hz → mel") + "\n\n" + _code_of(wav, "# Format codes"),
    }


def _code_of(module: ModuleType, start: str) -> str:
    """The source of a module of NumPy alone from a line on, for a script that imports NumPy as ``np``."""
    text = Path(str(module.__file__)).read_text("utf-8")
    return text[text.index(start) :]


def _on_host(model: Path, path: Path, shapes: Sequence[Sequence[int]]) -> JsonObject:
    """What comes before the file, written beside it: as rules in JSON, else the layers themselves."""
    from edgeprune.models.formats import read_model_file
    from edgeprune.models.front import load_front
    from edgeprune.snippets.text import plain_rules, rules_code

    front = load_front(path)
    rules = plain_rules(front, shapes)
    file = model.with_name(f"{model.stem}-text.{'json' if rules else 'keras'}")
    write_bytes(file, json.dumps(rules, indent=1).encode() if rules else path.read_bytes())
    given = zip(front.names, front.shapes, front.dtypes, strict=True)
    return {
        "file": file.name,
        "rules": rules,
        "code": rules_code(),
        "keras": "keras" if read_model_file(path).is_keras3 else "tf_keras",
        "given": [{"name": n, "shape": list(shape), "text": dtype == "string"} for n, shape, dtype in given],
    }


def _boxes(model: Path, head: Head) -> JsonObject:
    """What the scripts need to find boxes; anchors and the user's function are written beside the model."""
    code = Path(decoding.__file__).read_text("utf-8")
    found: JsonObject = {
        "code": code[code.index("def detect(") :],
        "head": head.facts,
        "order": list(head.order),
        "resize": head.resize,
        "fill": head.fill,
        "anchors": None,
        "module": None,
        "files": [],
    }
    if head.anchors is not None:
        found["anchors"] = f"{model.stem}-anchors.npy"
        content = io.BytesIO()
        np.save(content, head.anchors)
        write_bytes(model.with_name(found["anchors"]), content.getvalue())
        found["files"].append(found["anchors"])
    if head.function is not None:
        found["module"], found["function"] = f"{identifier(model.stem)}_boxes", head.function.__name__
        name = f"{found['module']}.py"
        write_bytes(model.with_name(name), source_file(head.function).read_bytes())
        found["files"].append(name)
    return found


def _table(model: Path, table: JsonObject, facts: Mapping[str, Any]) -> JsonObject:
    """The columns that become inputs, written beside the file, and the code that reads them."""
    file = model.with_name(f"{model.stem}-table.json")
    scaling = {key: facts[key] for key in ("mean", "std")}
    write_bytes(file, json.dumps({**table, **scaling, "labels": facts["labels"]}, indent=1).encode())
    text = Path(table_rules.__file__).read_text("utf-8")
    code = "\n".join(line.partition("  # type: ignore")[0] for line in text[text.index("SEPARATORS") :].splitlines())
    return {"file": file.name, "code": code}


def _takes_one_image(facts: Mapping[str, Any]) -> bool:
    return all(facts[what] is None for what in ("front", "sound", "boxes")) and [
        len(entry["shape"]) for entry in facts["inputs"]
    ] == [4]


def _plain(facts: JsonObject) -> bool:
    """Whether Kotlin's buffers of CompiledModel take and give the numbers: one output, floats or signed bytes."""
    return len(facts["outputs"]) == 1 and all(
        entry["dtype"] in ("float32", "int8") for entry in (*facts["inputs"], *facts["outputs"])
    )


def _tensor(tensor: Tensor) -> JsonObject:
    quantization = tensor.quantization if tensor.dtype != "float32" else None
    return {
        "tensor": tensor.name,
        "shape": list(tensor.shape),
        "size": tensor.size,
        "dtype": tensor.dtype,
        "scale": quantization.scale[0] if quantization else None,
        "zero_point": quantization.zero_point[0] if quantization else None,
    }


def render(template: str, facts: Mapping[str, Any]) -> str:
    """A template of this folder, filled in."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["kotlin"] = _kotlin
    environment.filters["c_bytes"] = lambda row: "".join(f"0x{byte:02x}," for byte in row)
    environment.filters["c_string"] = _c_string
    environment.filters["real"] = _real
    environment.filters["python"] = repr
    return environment.get_template(template).render(facts)


def _kotlin(value: Any) -> str:
    """A Kotlin literal: a string, or a number as Float."""
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
        return f'"{escaped}"'
    return f"{float(value)!r}f"


def _c_string(text: str) -> str:
    """A C string literal, in UTF-8; escapes end with their three digits."""
    plain = {byte: chr(byte) for byte in range(32, 127) if chr(byte) not in '"\\?'}
    return '"' + "".join(plain.get(byte, f"\\{byte:03o}") for byte in text.encode()) + '"'


def _real(tensor: Tensor) -> str:
    """How a stored number becomes a real one."""
    if tensor.quantization is None or tensor.dtype == "float32":
        return "as stored"
    return f"{tensor.quantization.scale[0]:.6g} * (stored - {tensor.quantization.zero_point[0]})"


def identifier(name: str) -> str:
    """A name with letters, digits and underscores only."""
    return "".join(character if character.isalnum() else "_" for character in name)


def _camel(name: str) -> str:
    words = "".join(character if character.isalnum() else " " for character in name).split()
    joined = "".join(word[:1].upper() + word[1:] for word in words)
    return joined if joined[:1].isalpha() else f"Model{joined}"
