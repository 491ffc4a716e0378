"""What inspect says about a model: groups, why channels stay, and what was not counted."""

import io

import numpy as np
from rich.console import Console

from edgeprune.cli.tables import inspection_tables
from edgeprune.prune.inspection import inspect_model


def _printed(found):
    console = Console(width=200, file=io.StringIO())
    for table in inspection_tables(found):
        console.print(table)
    return console.file.getvalue()


def test_partly_frozen_groups_say_why(L):
    """A group of which some channels stay lists the reasons with their numbers, and how many can go."""
    import tf_keras

    i = L.image()
    x, y = L.Conv2D(4, 1, name="a")(i), L.Conv2D(7, 1, name="b")(i)
    model = tf_keras.Model(i, L.Conv2D(1, 1, name="head")(L.Add(name="sum")([L.Concatenate()([x, i]), y])))
    found = inspect_model(model)
    group = found["groups"][0]
    assert (group["size"], group["prunable"], group["frozen"]) == (7, 4, None)
    ((reason, number),) = group["reasons"].items()
    assert number == 3
    assert "'sum'" in reason
    assert f"3: {reason}" in _printed(found)


def test_uncounted_layers_are_marked(L):
    """A layer whose MACs no rule knows has a question mark in place of a number."""
    import tf_keras

    class Own(tf_keras.layers.Layer):
        def call(self, x):
            return x

    i = L.image()
    found = inspect_model(tf_keras.Model(i, L.head(Own(name="own")(i))))
    assert found["uncounted"] == ["own"]
    printed = _printed(found)
    assert "missing in the sum" in printed
    assert next(line for line in printed.splitlines() if " own " in line).rstrip(" │┃").endswith("?")


def test_weights_that_are_no_numbers_are_said(L):
    """A NaN among the weights is in the note, so that no figure is read as one about a working model."""
    import tf_keras

    i = L.image()
    model = tf_keras.Model(i, L.Conv2D(1, 1, name="head")(i))
    kernel, *rest = model.get_layer("head").get_weights()
    model.get_layer("head").set_weights([kernel * np.nan, *rest])
    assert "'head'" in inspect_model(model)["note"]
    assert "NaN or infinite" in inspect_model(model)["note"]
