"""Union-find over channels."""

import numpy as np

from edgeprune.prune.channels.units import FIXED, Units


def test_united_units_have_one_representative():
    """Uniting is transitive, and the representative is the smallest of the united units."""
    units = Units()
    a, b, c = units.new(3), units.new(3), units.new(3)
    units.unite(c, b, "")
    units.unite(b, a, "")
    np.testing.assert_array_equal(units.find(c), a)
    assert len(np.unique(units.find(np.concatenate([a, b, c])))) == 3


def test_the_first_reason_stays_with_the_united_units():
    """A frozen unit freezes what it is united with, before or afterwards, for the first reason given."""
    units = Units()
    a, b, c = units.new(2), units.new(2), units.new(2)
    units.freeze(b[:1], "first")
    units.freeze(b[:1], "second")
    units.unite(a, b, "")
    units.unite(b, c, "")
    assert [units.reason(unit) for unit in c.tolist()] == ["first", None]


def test_what_meets_fixed_positions_is_frozen_but_not_united():
    """A unit tied to a fixed position is frozen for the reason given; two such units stay apart."""
    units = Units()
    a = units.new(2)
    units.unite(a, np.full(2, FIXED), "meets the input")
    assert [units.reason(unit) for unit in a.tolist()] == ["meets the input"] * 2
    assert len(set(units.find(a).tolist())) == 2
    assert units.reason(FIXED) == "not prunable"


def test_growing_keeps_everything():
    """Many units made in small portions are all different and keep what was united."""
    units = Units()
    parts = [units.new(size) for size in range(1, 60)]
    units.unite(parts[3], parts[3][::-1], "")
    everything = np.concatenate(parts)
    assert len(set(everything.tolist())) == len(everything) == len(units) - 1
    assert len(np.unique(units.find(everything))) == len(everything) - 2
