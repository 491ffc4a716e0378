"""An interrupt that something drops ends the command all the same."""

import os
import signal
import sys

import pytest

from edgeprune.cli import interrupts
from edgeprune.cli.progress import TerminalProgress


class Dropping:
    """Interrupts this process where Python can only write the exception down."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def remembered():
    before, hook = signal.signal(signal.SIGINT, signal.default_int_handler), sys.unraisablehook
    interrupts.remember()
    yield
    sys.unraisablehook = hook
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts.remember()
    sys.unraisablehook = hook
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "report", [lambda p: p.stage(1, 2, "b", False), lambda p: p.begin("b", 3), lambda p: p.advance()]
)
def test_an_interrupt_that_a_finalizer_drops_is_raised_at_the_next_progress(remembered, report, capfd):
    """Whatever reports progress next raises it, and no traceback is written."""
    with TerminalProgress() as progress:
        progress.begin("a", 1)
        Dropping()
        with pytest.raises(KeyboardInterrupt):
            report(progress)
    assert "Traceback" not in capfd.readouterr().err


def test_the_same_interrupt_twice_is_one(remembered):
    """What ends a command at the first is not ended by its echo."""
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_second_interrupt_is_one_of_its_own(remembered, monkeypatch):
    """Whoever presses the keys again, seconds later, does not want to wait for what the first began."""
    monkeypatch.setattr(interrupts, "_SAME_SECONDS", 0.0)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_without_an_interrupt_progress_goes_on(remembered):
    """Nothing is raised that did not come."""
    with TerminalProgress() as progress:
        progress.begin("a", 1)
        progress.advance()
        progress.end()


def test_an_ignored_interrupt_stays_ignored():
    """A background job of a shell ignores SIGINT, and goes on doing so."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupts.remember()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
