"""On how many threads matrices are factored."""

import numpy as np
import scipy.linalg
import threadpoolctl

from edgeprune.reconstruction import moments, rounding
from edgeprune.reconstruction.threads import one_thread


def blas_threads():
    return {one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"}


def test_matrices_are_factored_on_one_thread_and_multiplied_on_as_many_as_before(monkeypatch):
    """Threads of a factorization wait for each other, which takes most of its time where cores are shared."""
    square = np.eye(3) * 2
    before, seen = blas_threads(), []
    plain = scipy.linalg.cho_factor
    monkeypatch.setattr(scipy.linalg, "cho_factor", lambda *a, **k: seen.append(blas_threads()) or plain(*a, **k))
    np.testing.assert_allclose(moments._solve(square, np.ones((3, 1))), 0.5)
    np.testing.assert_allclose(rounding._inverse_factor(square), np.eye(3) / np.sqrt(2))
    assert seen == [{1}, {1}]
    assert blas_threads() == before


def test_a_context_in_a_context_ends_where_it_was():
    before = blas_threads()
    with one_thread(), one_thread():
        assert blas_threads() == {1}
    assert blas_threads() == before
