"""Long matrices of one property: a few members run always, the others with `make test-all`."""

from collections.abc import Iterable
from typing import Any

import pytest


def representatives(members: Iterable[Any], *always: Any) -> list[Any]:
    """Parameters for a test: those in ``always`` as they are, the others marked as slow. Tuples are several values."""
    listed = list(members)
    assert all(one in listed for one in always), always
    slow = pytest.mark.slow
    return [
        one if one in always else pytest.param(*(one if isinstance(one, tuple) else (one,)), marks=slow)
        for one in listed
    ]
