"""Errors for users."""

import pickle

from edgeprune.errors import ModelError


def test_what_a_message_quotes_from_a_file_is_cut():
    """A name of any length in a file makes no message of any length; advice stays whole."""
    error = ModelError(f"the layer {'a' * 100_000!r} is unknown", expected="another.", fix="b" * 500)
    assert len(error.what) < 200
    assert "100,00" in error.what
    assert "b" * 500 in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
