"""Whether the Python bytecode in a model file, of Lambda layers, is of the Python that runs here.

Keras writes the bytecode of a lambda without the version of Python that it is for, which changes it in every release.
Code of another release crashes the interpreter, or computes something else. So it is read in a process of its own,
without being run, and must be what this Python's compiler makes: instructions that it has, each followed by the empty
cache entries that it reserves.
"""

from __future__ import annotations

import binascii
import codecs
import marshal
import opcode
import platform
from collections.abc import Iterator
from types import CodeType

from edgeprune.errors import ModelError
from edgeprune.models.types import ConfigValue
from edgeprune.workers import Worker, WorkerDied

_READER = Worker("the process that reads Python bytecode")


def refuse_foreign_code(path: object, config: ConfigValue) -> None:
    """Raise for the first bytecode in a model's configuration that is not of this Python.

    Raises:
        ModelError: naming the layer.
    """
    for layer, code in _codes(config, "model"):
        try:
            fits = _READER.call(is_of_this_python, _decoded(code))
        except WorkerDied:
            fits = False
        if not fits:
            raise ModelError(
                f"{path}: the code of the layer {layer!r} (Lambda) was written by another version of Python than "
                f"{platform.python_version()}, which runs here, or is damaged.",
                expected="bytecode of this Python: Keras stores lambdas as such, and it differs between versions",
                fix="replace the Lambda by a Keras layer or a named function; or load and save the model again in "
                f"Python {'.'.join(platform.python_version_tuple()[:2])}, with the layer made from its source.",
            )


def _codes(config: ConfigValue, layer: str) -> Iterator[tuple[str, str]]:
    """Every piece of bytecode, with the name of the layer that holds it."""
    if isinstance(config, list | tuple):
        for item in config:
            yield from _codes(item, layer)
    if not isinstance(config, dict):
        return
    if isinstance(config.get("name"), str):
        layer = config["name"]
    if config.get("class_name") == "__lambda__" and isinstance(config.get("config"), dict):
        yield layer, str(config["config"].get("code"))
    for key in ("function", "output_shape", "mask"):
        if config.get(f"{key}_type") == "lambda" and isinstance(config.get(key), list | tuple) and config[key]:
            yield layer, str(config[key][0])
    for value in config.values():
        yield from _codes(value, layer)


def _decoded(code: str) -> bytes:
    """As Keras decodes it."""
    try:
        return codecs.decode(code.encode("ascii"), "base64")
    except (UnicodeEncodeError, binascii.Error):
        return code.encode("raw_unicode_escape")


def is_of_this_python(raw: bytes) -> bool:
    """Whether bytes are the bytecode of a function of this Python. Damaged bytes can end the process."""
    try:
        code = marshal.loads(raw)
    except (ValueError, TypeError, EOFError, MemoryError, OverflowError):
        return False
    return isinstance(code, CodeType) and _fits(code)


def _fits(code: CodeType) -> bool:
    content, place, resumes = code.co_code, 0, False
    while place < len(content):
        number = content[place]
        name = opcode.opname[number]
        cached = _caches(number)
        caches = content[place + 2 : place + 2 + 2 * cached]
        known = not name.startswith("<") and name != "CACHE"
        if not known or len(caches) != 2 * cached or any(caches):
            return False
        resumes |= name == "RESUME"
        place += 2 + 2 * cached
    return resumes and all(_fits(constant) for constant in code.co_consts if isinstance(constant, CodeType))


def _caches(number: int) -> int:
    entries = getattr(opcode, "_inline_cache_entries", {})
    return entries.get(opcode.opname[number], 0) if isinstance(entries, dict) else entries[number]
