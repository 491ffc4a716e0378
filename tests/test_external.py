import logging
import sys

import pytest

from edgeprune.errors import ConversionError, MissingError
from edgeprune.external import call, find


def test_output_is_kept_and_the_command_logged(caplog):
    """Both streams come back in one text, and the command is logged as a shell would take it."""
    with caplog.at_level(logging.INFO, "edgeprune.external"):
        done = call(
            [sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr)"], timeout_s=60, fix=""
        )
    assert sorted(done.text.split()) == ["err", "out"]
    assert "running: " in caplog.text
    assert "'import sys;" in caplog.text


def test_a_command_that_is_not_there():
    """A missing program is a missing tool, with what to do."""
    with pytest.raises(MissingError, match="no-such-tool cannot be started") as error:
        call(["no-such-tool"], timeout_s=5, fix="install it.")
    assert error.value.exit_code == 3
    assert "install it." in str(error.value)
    assert find("no-such-tool") is None


def test_a_command_that_hangs():
    """A program that does not end is killed."""
    with pytest.raises(MissingError, match=r"did not end within 0\.5 s"):
        call([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.5, fix="")


def test_a_command_that_fails():
    """An exit code other than 0 is an error with the last lines of the output."""
    code = "print('first'); [print(i) for i in range(50)]; print('the reason'); raise SystemExit(7)"
    with pytest.raises(ConversionError, match="exit code 7") as error:
        call([sys.executable, "-c", code], timeout_s=60, fix="")
    assert "the reason" in str(error.value)
    assert "\nfirst\n" not in str(error.value)


def test_a_python_program_that_raises():
    """Of a traceback, the exception is quoted with its lines, and no line of the program's code."""
    with pytest.raises(ConversionError, match=r"ValueError: no such thing\nsecond line") as error:
        call([sys.executable, "-c", "raise ValueError('no such thing\\nsecond line')"], timeout_s=60, fix="")
    assert "Traceback" not in str(error.value)
    assert "File " not in str(error.value)
