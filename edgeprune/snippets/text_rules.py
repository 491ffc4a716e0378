"""Texts and categories → the numbers that a model takes, in plain Python: this file becomes a part of the snippets.

It computes what Keras' layers do for the settings that ``edgeprune.snippets.text`` writes rules for, on bytes of UTF-8
as TensorFlow does: only the letters A to Z have lower case, only spaces, tabs and line ends split.
"""

# mypy: allow-untyped-defs

import numpy as np

PUNCTUATION = b"!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~'"


def tokens(text, rule):
    """The words, characters or groups of words of one text, as bytes."""
    raw = text.encode("utf-8") if isinstance(text, str) else bytes(text)
    if rule["lower"]:
        raw = raw.lower()
    if rule["strip"]:
        raw = raw.translate(None, PUNCTUATION)
    words = {
        "whitespace": raw.split,
        "character": lambda: [letter.encode("utf-8") for letter in raw.decode("utf-8", "replace")],
        None: lambda: [raw],
    }[rule["split"]]()
    groups = [(words[i : i + n]) for n in rule["ngrams"] for i in range(len(words) - n + 1)]
    return [b" ".join(group) for group in groups] if rule["ngrams"] else words


def encode(value, rule, shape):
    """The numbers of one sample for one input of this shape, without the batch."""
    if rule["kind"] == "as it is":
        return np.asarray(value).reshape(shape)
    places = rule.setdefault("places", {})
    if not places:
        places.update({_key(word): place for place, word in enumerate(rule["vocabulary"])})
    items = np.asarray(value).reshape(-1).tolist()
    if rule["kind"] == "text":
        found = [places.get(word, rule["unknown"]) for text in items for word in tokens(text, rule)]
    else:
        found = [places.get(_key(item), rule["unknown"]) for item in items]
    if None in found:
        raise ValueError(f"{value!r} is not in the vocabulary, which has no place for other words.")
    if rule["mode"] == "int":
        size = int(np.prod(shape))
        return np.array((found + [0] * size)[:size]).reshape(shape)
    counts = np.bincount(np.array(found, int), minlength=shape[-1]).reshape(shape)
    return counts if rule["mode"] == "count" else np.minimum(counts, 1)


def _key(word):
    return word.encode("utf-8") if isinstance(word, str) else word
