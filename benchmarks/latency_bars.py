"""How large the error of latency estimates may be, by board, and which data would help where it is larger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.hardware.latency.fit import COVERED

# Median absolute error on architectures left out, at most, by the start of the device's name; where nothing is named,
# there is no bar.
BARS = {"rpi4": 0.15, "pixel": 0.20, "edgetpu": 0.25, "coral": 0.25}
MIN_RANK = 0.95
NEAR = 0.1  # of the share in the range, from what it is meant to be
CLOSES = {
    "edgetpu-bus-unknown": "a sweep whose host and bus are named, with the compiler's logs of its models.",
    "coral-usb-rpi4": "ten int8 models of several architectures on that host: there is one file.",
    "coral-usb-x86": "the compiler's log of Inception-ResNet V2, which is published with less time than the link needs "
    "for its parameters, and a few models of 3 to 7 MB.",
    "coral-dev": "the compiler's log of Inception-ResNet V2, and a few models of 3 to 7 MB.",
    "rpi4": "more architectures than the three that were published.",
    "pixel4": "more architectures than the three that were published.",
}


@dataclass(frozen=True)
class Row:
    """What was found on one device; None where it takes more files or architectures to say."""

    device: str
    kernels: str
    architectures: int
    files: int
    error: float
    median_error: float
    rank: float | None
    covered: float | None

    @property
    def bar(self) -> float | None:
        return next((bar for start, bar in BARS.items() if self.device.startswith(start)), None)

    def misses(self) -> list[str]:
        """Each bar that is not met, in words."""
        found = []
        if self.bar is not None and self.error > self.bar:
            found.append(f"median error {self.error:.1%}, bar {self.bar:.0%}")
        if self.bar is not None and self.rank is not None and self.rank < MIN_RANK - 1e-9:
            found.append(f"rank correlation {self.rank:.3f}, bar {MIN_RANK}")
        if self.covered is not None and abs(self.covered - COVERED) > NEAR:
            found.append(f"{self.covered:.0%} in the range, meant for about {COVERED:.0%}")
        return found


def table(rows: Sequence[Row]) -> list[str]:
    """The table of devices, with the bar on the median error, and whether it and that on ranks are met."""
    lines = [
        "| device | kernels | architectures | files | median error | of the median architecture | rank correlation | "
        "in the range | bar | met |",
        "|---" * 10 + "|",
    ]
    for row in rows:
        rank = "–" if row.rank is None else f"{row.rank:.3f}"
        covered = "–" if row.covered is None else f"{row.covered:.0%}"
        bar, met = "–", "–"
        if row.bar is not None:
            bar, met = f"{row.bar:.0%}", "no" if any("bar" in miss for miss in row.misses()) else "yes"
        lines.append(
            f"| {row.device} | {row.kernels} | {row.architectures} | {row.files} | {row.error:.1%} | "
            f"{row.median_error:.1%} | {rank} | {covered} | {bar} | {met} |"
        )
    return lines


def misses(rows: Sequence[Row]) -> list[str]:
    """A line for each device that misses something, with what data would close it."""
    lines = []
    for row in rows:
        if found := row.misses():
            lines.append(f"- {row.device}, {row.kernels}: {'; '.join(found)}. Would close it: {_closes(row)}")
    return lines or ["None."]


def _closes(row: Row) -> str:
    return CLOSES.get(row.device, "more architectures.")
