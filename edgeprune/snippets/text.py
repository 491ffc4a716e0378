"""What snippets do for a model that looks words up: rules in plain Python where they equal Keras, else its layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import DataError
from edgeprune.files import JsonObject
from edgeprune.models.front import Front, fit, probes

if TYPE_CHECKING:
    from edgeprune.models.types import Operation, Value

# Settings of TextVectorization by what Keras calls them: whether letters become small, and punctuation goes.
_STANDARDIZE = {
    None: (False, False),
    "lower": (True, False),
    "strip_punctuation": (False, True),
    "lower_and_strip_punctuation": (True, True),
}
_MODES = ("int", "one_hot", "multi_hot", "count")


def plain_rules(front: Front, shapes: Sequence[Sequence[int]]) -> list[JsonObject] | None:
    """A rule of :mod:`edgeprune.snippets.text_rules` for each input of the model on the board.

    Args:
        shapes: of these inputs, without the batch.

    Returns:
        The rules; None where the layers have settings that these do not cover, or where they give other numbers.
    """
    rules = [_rule(front, tensor) for tensor in front.model.outputs]
    given = [rule for rule in rules if rule is not None]
    return given if len(given) == len(rules) and _equal(front, given, shapes) else None


def rules_code() -> str:
    """The functions that follow the rules, for a script that imports NumPy as ``np``."""
    text = Path(__file__).with_name("text_rules.py").read_text("utf-8")
    return text[text.index("PUNCTUATION") :]


def _rule(front: Front, tensor: Value) -> JsonObject | None:
    history = tensor._keras_history
    layer = getattr(history, "operation", None) or history.layer
    for place, given in enumerate(front.model.inputs):
        if given is tensor:
            return {"from": place, "kind": "as it is"}
    node = layer._inbound_nodes[history.node_index]
    sources = getattr(node, "input_tensors", None) if not hasattr(node, "keras_inputs") else node.keras_inputs
    places = [i for i, given in enumerate(front.model.inputs) for source in sources or () if source is given]
    make = _RULES.get(type(layer).__name__)
    made = make(layer) if make and len(places) == 1 == len(sources or ()) else None
    return None if made is None else {"from": places[0], **made}


def _text(layer: Operation) -> JsonObject | None:
    standardize, split = layer._standardize, layer._split
    if callable(standardize) or callable(split) or standardize not in _STANDARDIZE or layer._output_mode not in _MODES:
        return None
    if str(getattr(layer, "_encoding", "utf-8")).lower() != "utf-8":
        return None
    lower, strip = _STANDARDIZE[standardize]
    vocabulary = [str(word) for word in layer.get_vocabulary()]
    return {
        "kind": "text",
        "mode": layer._output_mode,
        "lower": lower,
        "strip": strip,
        "split": split,
        "ngrams": list(layer._ngrams or ()),
        "vocabulary": vocabulary,
        "unknown": 1 if layer._output_mode == "int" else 0,
    }


def _table(layer: Operation) -> JsonObject | None:
    if layer.num_oov_indices > 1 or layer.invert or layer.output_mode not in _MODES:
        return None
    words = layer.get_vocabulary()
    known = [int(w) for w in words] if type(layer).__name__ == "IntegerLookup" else [str(w) for w in words]
    masked = layer.mask_token is not None and layer.output_mode == "int"
    unknown = (1 if masked else 0) if layer.num_oov_indices else None
    return {"kind": "table", "mode": layer.output_mode, "vocabulary": known, "unknown": unknown}


_RULES = {"TextVectorization": _text, "StringLookup": _table, "IntegerLookup": _table}


def _equal(front: Front, rules: Sequence[JsonObject], shapes: Sequence[Sequence[int]]) -> bool:
    """Whether the rules give what Keras does, on known and unknown words and on texts that are hard to split."""
    from edgeprune.snippets.text_rules import encode

    samples = probes(front)
    try:
        expected = [fit(array, shape) for array, shape in zip(front.run_all(samples), shapes, strict=True)]
        actual = [_all(encode, samples[rule["from"]], rule, shape) for rule, shape in zip(rules, shapes, strict=True)]
    except (DataError, ValueError):
        return False
    finally:
        for rule in rules:
            rule.pop("places", None)
    return all(np.array_equal(one, other) for one, other in zip(expected, actual, strict=True))


def _all(encode: Any, values: np.ndarray, rule: JsonObject, shape: Sequence[int]) -> np.ndarray:
    return np.stack([encode(value, rule, tuple(shape)) for value in values])
