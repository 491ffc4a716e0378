"""Cycles of blocks of instructions by ``llvm-mca``, the machine code analyzer of LLVM.

It knows the scheduling models of processors: how long an instruction takes, and which others can start beside it. Data
is always in the first cache, and branches are always predicted; both are left to those who use the cycles.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeprune.errors import MissingError
from edgeprune.external import execute, find

ANALYZER, ASSEMBLER = "llvm-mca", "llvm-mc"
PACKAGE = "llvm"
# Each block is analyzed as the body of a loop, as those that run often are.
ITERATIONS = 100
_FIX = f"sudo apt install {PACKAGE}"
_TRIPLE = "-mtriple=aarch64-linux-gnu"
_OPTIONS = (f"-iterations={ITERATIONS}", "-all-views=false", "-summary-view")
_TIMEOUT_S = 900
_INVALID = re.compile(r"^<?[^:\n]+>?:(\d+):\d+: warning: (?:invalid|potentially undefined) instruction", re.MULTILINE)
_CYCLES = re.compile(r"^\[\d+\] Code Region - (\d+)$.*?^Total Cycles:\s+(\d+)$", re.MULTILINE | re.DOTALL)
_REFUSED = re.compile(r"error: found an? (?:unsupported )?instruction[^$]*?note: instruction:\s+(\S+)")
# llvm-mca takes a call for 100 cycles that nothing passes, and counts what it calls as a block of its own here.
_CALLS = {"bl": "b", "blr": "br", "ret": "br\tx30"}


def require_llvm() -> None:
    """Make sure that LLVM's tools are installed.

    Raises:
        MissingError: they are not.
    """
    missing = [name for name in (ASSEMBLER, ANALYZER) if find(name) is None]
    if missing:
        raise MissingError(f"Cycles need {' and '.join(missing)} of LLVM, which cannot be found here.", fix=_FIX)


def version() -> str:
    """The release of LLVM, for example '14.0.6'."""
    require_llvm()
    printed = execute([ANALYZER, "--version"], timeout_s=60, fix=_FIX).stdout.decode("utf-8", "replace")
    found = re.search(r"version (\d[\w.]*)", printed)
    return found[1] if found else "unknown"


def cycles(blocks: Sequence[bytes], cpu: str) -> list[float]:
    """Cycles that one run of each block takes in a loop.

    Args:
        blocks: machine code of AArch64, 4 bytes per instruction.
        cpu: a processor that LLVM knows, such as 'cortex-a72'.

    Raises:
        MissingError: LLVM is not installed, or does not know the processor.
    """
    require_llvm()
    lines = _disassemble(blocks, cpu)
    # It stops at the first instruction that the model of the core does not have, such as `udf`.
    code, refused = 1, set[str]()
    while code != 0:
        kept = [[line for line in block if line.split()[0] not in refused] for block in lines]
        code, printed, errors = _run([ANALYZER, _TRIPLE, f"-mcpu={cpu}", *_OPTIONS], "\n".join(_regions(kept)))
        found = _REFUSED.search(errors) if code != 0 else None
        if code != 0 and (found is None or found[1] in refused):
            said = " ".join(errors.split())[:300]
            raise MissingError(f"{ANALYZER} does not analyze the code for {cpu}: {said}", expected="LLVM 14 or newer.")
        refused.update(found.groups() if found else ())
    known = {int(number): int(total) / ITERATIONS for number, total in _CYCLES.findall(printed)}
    return [known.get(number, 0.0) for number in range(len(blocks))]


def _disassemble(blocks: Sequence[bytes], cpu: str) -> list[list[str]]:
    """The instructions of each block as text; those that LLVM cannot read are left out."""
    words = sorted({block[i : i + 4] for block in blocks for i in range(0, len(block), 4)})
    text = "\n".join(" ".join(f"0x{byte:02x}" for byte in word) for word in words)
    code, printed, errors = _run([ASSEMBLER, "--disassemble", "-triple=aarch64-linux-gnu", f"-mcpu={cpu}"], text)
    if code != 0:
        raise MissingError(f"{ASSEMBLER} ended with exit code {code}: {errors.strip()[-300:]}", fix=_FIX)
    invalid = {int(line) - 1 for line in _INVALID.findall(errors)}
    valid = [word for number, word in enumerate(words) if number not in invalid]
    names = [line.strip() for line in printed.splitlines() if line.startswith("\t") and not line.startswith("\t.")]
    known = dict(zip(valid, names, strict=True))
    return [[known[word] for i in range(0, len(block), 4) if (word := block[i : i + 4]) in known] for block in blocks]


def _regions(blocks: Sequence[Sequence[str]]) -> Iterator[str]:
    for number, lines in enumerate(blocks):
        if lines:
            yield f"# LLVM-MCA-BEGIN {number}"
            yield from map(_without_call, lines)
            yield "# LLVM-MCA-END"


def _without_call(line: str) -> str:
    name, _, operands = line.partition("\t")
    replaced = _CALLS.get(name)
    return line if replaced is None else replaced if "\t" in replaced else f"{replaced}\t{operands}"


def _run(command: list[str], text: str) -> tuple[int, str, str]:
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
        source = Path(folder) / "code.s"
        source.write_text(text + "\n", "utf-8")
        ended = execute([*command, source], timeout_s=_TIMEOUT_S, fix=_FIX)
    if ended.code is None:
        raise MissingError(f"{command[0]} did not end within {_TIMEOUT_S} s.", fix=_FIX)
    return ended.code, ended.stdout.decode("utf-8", "replace"), ended.stderr.decode("utf-8", "replace")
