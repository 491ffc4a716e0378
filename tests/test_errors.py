"""Errors for users."""

import pickle

from edgeprune.errors import ModelError


def test_what_a_message_quotes_from_a_file_is_cut():
    """A name of any length in a file makes no message of any length."""
    name = "a" * 100_000
    error = ModelError(f"the layer {name!r} is unknown", expected=f"not {name}.", fix=f"put {name} into a file.")
    assert len(str(error)) < 600
    assert "100,00" in error.what
    assert str(error).endswith("into a file.")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
