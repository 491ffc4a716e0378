"""On how many threads matrices are factored.

A factorization waits for all of its threads at every block of columns. Where other programs want the same cores, the
threads wait for each other most of the time: for 1152 terms on two busy cores, a Cholesky factorization took 0.3 to
0.5 s with two threads, and 0.012 s with one. Products of matrices, which wait once, keep their threads.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager

import threadpoolctl


def one_thread() -> AbstractContextManager[object]:
    """A context in which NumPy and SciPy factor matrices on one thread."""
    return _libraries().limit(limits=1, user_api="blas")


@functools.cache
def _libraries() -> threadpoolctl.ThreadpoolController:
    import scipy.linalg  # noqa: F401 - with its library there, as only loaded ones are found

    return threadpoolctl.ThreadpoolController()
