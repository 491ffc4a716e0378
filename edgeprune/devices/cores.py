"""Processor cores that the emulated board can be, and whose time can be simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.errors import UsageError
from edgeprune.target import Target


@dataclass(frozen=True)
class Core:
    """A core.

    Attributes:
        name: of the core, as targets name it in ``cpu.model``.
        qemu: QEMU's name.
        llvm: LLVM's name of the core whose scheduling model is used.
        ways: associativity of the caches, from the first level on.
        info: the lines of /proc/cpuinfo for each core; None for those of ``emulator.toml``.
        compared: whether estimates were compared with measured times (benchmarks/results/simulated_latency.md).
    """

    name: str
    qemu: str
    llvm: str
    ways: tuple[int, ...]
    info: str | None
    compared: bool


# Ways: Arm, "Cortex-A72 MPCore Processor Technical Reference Manual", chapters 6 and 7; "Cortex-A76 Core Technical
# Reference Manual", chapters A6 and A7, and for its third level "DynamIQ Shared Unit Technical Reference Manual".
# Information of the Cortex-A76: register MIDR_EL1 in the same manual; features as Linux names them on a Raspberry Pi 5.
CORES = {
    core.name: core
    for core in (
        Core("Cortex-A72", "cortex-a72", "cortex-a72", (2, 16), None, compared=True),
        Core(
            "Cortex-A76",
            "cortex-a76",
            "neoverse-n1",
            (4, 8, 16),
            "BogoMIPS\t: 108.00\n"
            "Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp "
            "cpuid asimdrdm lrcpc dcpop asimddp\n"
            "CPU implementer\t: 0x41\n"
            "CPU architecture: 8\n"
            "CPU variant\t: 0x4\n"
            "CPU part\t: 0xd0b\n"
            "CPU revision\t: 1\n",
            compared=False,
        ),
    )
}
DEFAULT = CORES["Cortex-A72"]


def core_of(target: Target) -> Core:
    """The core of a board.

    Raises:
        UsageError: its core cannot be simulated, or the board's facts are not enough for it.
    """
    cpu = target.cpu
    core = next((core for name, core in CORES.items() if cpu is not None and name in cpu.model), None)
    if cpu is None or core is None:
        raise UsageError(
            f"The core of {target.name} cannot be simulated.",
            expected=f"a target with one of these cores: {', '.join(CORES)}; for example --target rpi4.",
        )
    if cpu.l1d_bytes is None or cpu.l2_bytes is None or cpu.memory_bandwidth_bytes_per_s is None:
        raise UsageError(
            f"The facts of {target.name} are not enough to simulate it.",
            expected="l1d_bytes, l2_bytes and memory_bandwidth_bytes_per_s in [cpu].",
        )
    return core


def caches_of(target: Target) -> Sequence[tuple[int, int]]:
    """Bytes and ways of each level of a board's caches; :func:`core_of` says whether they are known."""
    cpu = target.cpu
    assert cpu is not None
    sizes = [size for size in (cpu.l1d_bytes, cpu.l2_bytes, cpu.l3_bytes) if size]
    return list(zip(sizes, core_of(target).ways, strict=False))
