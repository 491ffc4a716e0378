"""Where the milliseconds of a target's files come from before any of them is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from edgeprune.hardware.compilers import TIMERS
from edgeprune.target import Target

Source = Literal["coefficients", "compiler"]
# Source → whether a target has it; the first that it has is taken.
_HAS: dict[Source, Callable[[Target], bool]] = {
    "coefficients": lambda target: target.latency is not None,
    "compiler": lambda target: target.compiler is not None and target.compiler.name in TIMERS,
}


def latency_source(target: Target) -> Source | None:
    """Coefficients of a model of latency, or the compiler's own estimate; None: nothing is known about its speed."""
    return next((source for source, has in _HAS.items() if has(target)), None)
