"""What C libraries write on standard output past Python is held back."""

import subprocess
import sys

PROGRAM = """
import ctypes, re
from edgeprune.chatter import without_lines

c = ctypes.CDLL(None)
with without_lines(re.compile("noise"), descriptor=1):
    c.puts(b"noise of a solver")
    c.puts(b"an answer")
    print("of Python")
print("behind")
"""


def test_only_lines_that_match_are_held_back_on_standard_output():
    """Also where the C library holds its lines back until the end, as in a pipe."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.splitlines()) == ["an answer", "behind", "of Python"]
