"""Why a Keras could not rebuild a model from a file that reads well: the reason in its words, and what helps."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from edgeprune.errors import ModelError
from edgeprune.models.limits import waits_for_ever
from edgeprune.models.types import ConfigValue

# What h5py, zipfile and zlib raise on bytes that are missing or damaged, beside their error classes.
_DAMAGED = re.compile(
    "truncated|unable to (synchronously )?(open|read)|can't (open|read)|bad crc|file signature|wrong b-tree|"
    "data checksum|incorrect header check|invalid (stored block|distance|code)|end of file|corrupt",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(
    r"(?:Unknown (?P<kind>layer|activation function|initializer|regularizer|constraint|loss|metric)\w*:?|"
    r"Could not (?:locate|find|interpret)(?: class| function| \w+ identifier:?| \w+ function identifier:?)?|"
    r"Could not deserialize class)\s*['\"]?(?P<name>[\w.>]+)",
    re.IGNORECASE,
)
_OPTION = re.compile(
    r"unexpected keyword argument[s]? ['\"](?P<a>\w+)|Unrecognized keyword arguments?[^'\"]*['\"](?P<b>\w+)|"
    r"Keyword argument not understood:['\", ]+(?P<c>\w+)|Invalid dtype: (?P<d>\w+)",
    re.IGNORECASE,
)
_WAITS = re.compile(r"nodes failed to be resolved: \{<\w+ name=(?P<layer>[^,>]+)")
_WEIGHTS = re.compile(
    "shape mismatch|incompatible shape|expected \\d+ (weights|variables|layers)|Layer count mismatch|Weight count|"
    "was never built|A total of \\d+ objects could not be loaded|weights? (list|values)|You are trying to load",
    re.IGNORECASE,
)


def not_rebuilt(path: Path, error: Exception, program: str, version: str, written_by: str) -> ModelError:
    """The error for a file whose model a Keras cannot rebuild.

    Args:
        error: what it raised.
        program: ``"tf_keras"`` or ``"Keras 3"``.
        version: of that program here.
        written_by: the version of Keras that the file states; empty where it states none.
    """
    chain = list(_chain(error))
    text = " | ".join(" ".join(str(one).split()) for one in chain)
    said = _plain(str(chain[-1])) or type(error).__name__
    writer = f"Keras {written_by}" if written_by else "the Keras that wrote it"
    what = f"{path}: {program} {version} cannot rebuild the model"
    if any(isinstance(one, zipfile.BadZipFile | zlib.error | EOFError) for one in chain) or _DAMAGED.search(text):
        return ModelError(
            f"{what}: its weights cannot be read: {said}",
            expected="an undamaged file",
            fix="copy or save the file again; it looks cut short or overwritten.",
        )
    if waits := _WAITS.search(text):
        return waits_for_ever(path, waits["layer"])
    if unknown := _UNKNOWN.search(text):
        return unknown_name(f"{what}: it does not know {unknown['name']!r}.", unknown["name"], program)
    if option := _OPTION.search(text):
        name = next(group for group in option.groups() if group)
        return ModelError(
            f"{what}: a layer has the option {name!r}, which {program} {version} does not know: {said}",
            expected=f"options that both have: the file was written by {writer}",
            fix=f"load it with {writer} in Python, set the option to its default or leave it out, and save it again; "
            "if the layer is your own, its get_config() and __init__() must name the same options.",
        )
    if _WEIGHTS.search(text):
        return ModelError(
            f"{what}: its weights do not fit its architecture: {said}",
            expected="weights of the shapes that the layers have",
            fix="save the model again where it was made, all of it with model.save('NAME.keras'); a layer of your own "
            "must make all its weights in __init__() or build().",
        )
    return ModelError(
        f"{what}: {said}",
        expected=f"a file that {program} {version} reads" + (f"; this one was written by {writer}" * bool(written_by)),
        fix=f"load it in Python with {writer}; if that works, save it again with model.save('NAME.keras').",
    )


def refuse_lost_calls(path: Path, config: ConfigValue) -> None:
    """Raise for the first call in a model's configuration whose tensors tf_keras did not write.

    Raises:
        ModelError: naming the operation.
    """
    if isinstance(config, list):
        for item in config:
            refuse_lost_calls(path, item)
    if not isinstance(config, dict):
        return
    inner = config.get("config")
    if config.get("class_name") == "TFOpLambda" and isinstance(inner, dict) and inner.get("function") == "einsum":
        raise ModelError(
            f"{path}: of the call of tf.einsum {inner.get('name')!r}, the file holds the equation only: tf_keras does "
            "not write the tensors, and cannot read the file either.",
            expected="calls that are whole",
            fix="where the model is made, write tf.matmul for tf.einsum (tf.matmul(x, y, transpose_b=True) for "
            '"bij,bkj->bik"), give it the weights (new.set_weights(old.get_weights())), and save it again; or give '
            "edgeprune the model itself in Python: edgeprune.build(model, ...).",
        )
    for value in config.values():
        refuse_lost_calls(path, value)


def unknown_name(what: str, name: str, program: str) -> ModelError:
    """The error for a class or function that is not Keras' own, with the command that brings it."""
    module = "keras" if program == "Keras 3" else "tf_keras"
    base = name.rpartition(">")[2]
    return ModelError(
        what,
        expected=f"what {module} has, or classes and functions of yours that the command line names",
        fix=f"put {base}, written with {module}, into a Python file, and add --custom-objects FILE.py --trust-model "
        f"(in Python: load_model(..., custom_objects={{{base!r}: {base}}})).",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, the first cause last."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _plain(text: str) -> str:
    """One line without the colours of a terminal, and without the configuration that Keras prints."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())
    return re.split(r"\s*(?:config=\{|Arguments received by)", text)[0][:300]
