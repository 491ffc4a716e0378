"""Cycles of single instructions and short blocks by LLVM's models, beside what the cores' manuals say of them."""

import pytest

from edgeprune.devices import cycles as llvm
from edgeprune.devices.cycles import cycles
from edgeprune.errors import MissingError

# Machine code: add x0, x0, x1; fmla v0.4s, v1.4s, v2.4s; bl; ret; udf #0; a word that is no instruction.
ADD, FMLA, BL, RET, UDF, NOTHING = 0x8B010000, 0x4E22CC20, 0x94000002, 0xD65F03C0, 0, 0xFFFFFFFF
# fmla into v3 to v6, each of its own.
INDEPENDENT = (0x4E22CC23, 0x4E22CC24, 0x4E22CC25, 0x4E22CC26)


@pytest.fixture(autouse=True)
def _installed():
    try:
        llvm.require_llvm()
    except MissingError as error:
        pytest.skip(str(error))


def code(*words):
    return b"".join(word.to_bytes(4, "little") for word in words)


def test_a_chain_takes_its_latency_and_independent_instructions_their_turn():
    """A sum that needs the last one waits a cycle; an FMLA that needs the last one 4, others start each cycle."""
    one, eight, chained, independent = cycles(
        [code(ADD), code(*[ADD] * 8), code(FMLA), code(*INDEPENDENT)], "cortex-a72"
    )
    assert one == pytest.approx(1, abs=0.1)
    assert eight == pytest.approx(8, abs=0.1)
    assert chained == pytest.approx(4, abs=0.2)
    assert independent <= 4.2


def test_calls_cost_a_branch():
    """What is called is a block of its own: a call and a return at the end of a block take no 100 cycles."""
    call, back = cycles([code(ADD, BL), code(ADD, RET)], "cortex-a72")
    assert call < 3
    assert back < 3


def test_what_cannot_be_analyzed_takes_no_time():
    """Words that are no instructions, and those that no model has, are left out; the others count."""
    nothing, refused, mixed, plain = cycles(
        [code(NOTHING), code(UDF), code(ADD, UDF, NOTHING), code(ADD)], "cortex-a72"
    )
    assert (nothing, refused) == (0, 0)
    assert mixed == plain > 0


def test_an_unknown_core_and_a_missing_analyzer_are_errors(monkeypatch):
    """The message names the core, or the package to install."""
    with pytest.raises(MissingError, match="no-such-core"):
        cycles([code(ADD)], "no-such-core")
    monkeypatch.setattr(llvm, "find", lambda name: None)
    with pytest.raises(MissingError, match="apt install llvm"):
        cycles([code(ADD)], "cortex-a72")
