"""How far are latency estimates from published measurements, on architectures that the fit has not seen?

python benchmarks/latency_accuracy.py --table published.csv --cache FOLDER [--write]

Rebuilds the models of the table with random weights (once per FOLDER), fits the coefficients of every target, prints
the errors with whole architectures left out, and writes benchmarks/results/latency.md. With --write, the coefficients
go into targets/*.toml.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from latency_bars import Row, misses, table
from latency_data import Point, groups, load, samples

from edgeprune.hardware.latency import prior
from edgeprune.hardware.latency.fit import COMMON, COVERED, EACH, fit, predict, range_factor
from edgeprune.target import Target, load_target, target_names

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "latency.md"
VERSION = "1"
MARK = "# Latency, written by benchmarks/latency_accuracy.py. Seconds for one unit of each kind of work.\n"
# Kernels that an estimate is for unless others are asked for: of today's runtimes, or where these were never measured
# and others were, the measured ones.
DEFAULTS = {"coral-usb": "edgetpu", "coral-dev": "edgetpu", "pixel3": "builtin", "pixel4": "builtin"}
FEW = 10  # files: fewer cannot tell what covers 80 %
ENOUGH = 5  # groups of neighbours: with one left out, a conformal range for 80 % needs four others
ONE_TO_FOUR = "312 and 142 ms, a ratio of 2.19 (google/XNNPACK#814)"
SAME_CHIP = {"each": 0.15, "common": 0.1}  # what it starts from was measured on the same chip behind another host

Prior = Callable[["Lab", str | None], np.ndarray]


@dataclass(frozen=True)
class Fit:
    """Coefficients of one target and set of kernels. ``devices``: of the table; none: derived only."""

    target: str
    kernels: str
    start: Prior
    devices: tuple[str, ...] = ()
    words: str = ""
    each: float = EACH
    common: float = COMMON


def hardware(target: str) -> Prior:
    return lambda lab, without: prior.from_hardware(prior.board(load_target(target)))


def same(target: str, kernels: str) -> Prior:
    return lambda lab, without: lab.solve(target, kernels, without)


def carried(base: str, kernels: str, target: str) -> Prior:
    def start(lab: Lab, without: str | None) -> np.ndarray:
        boards = [prior.board(load_target(name)) for name in (base, target)]
        return prior.scaled(lab.solve(base, kernels, without), *boards)

    return start


def exchanged(target: str, known: str, wanted: str, model: str = "rpi4") -> Prior:
    """Other kernels on the same board: each coefficient changes as it does on ``model``."""

    def start(lab: Lab, without: str | None) -> np.ndarray:
        change = lab.solve(model, wanted, without) - lab.solve(model, known, without)
        return lab.solve(target, known, without) + change

    return start


def with_floor(target: str, seconds: float) -> Prior:
    """Edge TPU coefficients with another time for an inference that does nothing."""

    def start(lab: Lab, without: str | None) -> np.ndarray:
        theta = lab.solve(target, "edgetpu", without).copy()
        theta[prior.EDGETPU_TERMS.index("inferences")] = np.log(seconds)
        return theta

    return start


def board_of(name: str) -> Target:
    """The target of a fit; what is no target of its own has the facts of coral."""
    return load_target(name if name in target_names() else "coral-usb")


SWEEPS = "sweeps of one Edge TPU"
USB_FLOOR_S = 0.28e-3  # ricardodeazambuja/LibrEdgeTPU@be71d6de:docs/HARDWARE_ANALYSIS.md
PCIE_FLOOR_S = 0.109e-3  # the least of Jorgitou98/EdgeTPU-QuantRL-Evaluation@ecd386c3, which is below that of USB
SAME_CORE = "which has the same core, by hardware facts"
ON_RPI4 = "its other kernels, as they differ on rpi4"
NEAREST_CORE = "rpi4 (the nearest core) by hardware facts"
FITS = (
    Fit("rpi4", "builtin", hardware("rpi4"), ("rpi4",), "hardware facts"),
    Fit("rpi4", "xnnpack", same("rpi4", "builtin"), ("rpi4",), "the built-in kernels"),
    Fit("rpi3", "xnnpack", carried("rpi4", "xnnpack", "rpi3"), ("rpi3",), "rpi4 by hardware facts"),
    Fit("rpi3", "builtin", exchanged("rpi3", "xnnpack", "builtin"), ("rpi3",), ON_RPI4),
    Fit("pixel3", "builtin", carried("rpi4", "builtin", "pixel3"), ("pixel3",), "rpi4 by hardware facts"),
    Fit("pixel4", "builtin", carried("rpi4", "builtin", "pixel4"), ("pixel4",), "rpi4 by hardware facts"),
    Fit("pixel3", "xnnpack", exchanged("pixel3", "builtin", "xnnpack"), (), ON_RPI4),
    Fit("pixel4", "xnnpack", exchanged("pixel4", "builtin", "xnnpack"), (), ON_RPI4),
    Fit("rpi5", "builtin", carried("pixel4", "builtin", "rpi5"), (), "pixel4, " + SAME_CORE),
    Fit("rpi5", "xnnpack", carried("pixel4", "xnnpack", "rpi5"), (), "pixel4, " + SAME_CORE),
    Fit("rpi-zero2w", "builtin", carried("rpi3", "builtin", "rpi-zero2w"), (), "rpi3, " + SAME_CORE),
    Fit("rpi-zero2w", "xnnpack", carried("rpi3", "xnnpack", "rpi-zero2w"), (), "rpi3, " + SAME_CORE),
    Fit("android-arm64", "builtin", carried("rpi4", "builtin", "android-arm64"), (), NEAREST_CORE),
    Fit("android-arm64", "xnnpack", carried("rpi4", "xnnpack", "android-arm64"), (), NEAREST_CORE),
    Fit(
        SWEEPS, "edgetpu", lambda lab, without: prior.edgetpu_prior(), ("edgetpu-bus-unknown",), "hardware facts",
        common=0.2,  # the link, the array and the host do not share a speed
    ),
    Fit(
        "coral-usb", "edgetpu", with_floor(SWEEPS, USB_FLOOR_S), ("coral-usb-x86",),
        "sweeps of 132 models on one chip, and the floor of USB", **SAME_CHIP,
    ),
    Fit(
        "coral-dev", "edgetpu", with_floor(SWEEPS, PCIE_FLOOR_S), ("coral-dev",),
        "sweeps of 132 models on one chip, and the floor of PCIe", **SAME_CHIP,
    ),
    Fit("coral-usb on rpi4", "edgetpu", same("coral-usb", "edgetpu"), ("coral-usb-rpi4",), "coral-usb", **SAME_CHIP),
    Fit("coral-dev", "builtin", carried("rpi3", "builtin", "coral-dev"), (), "rpi3, " + SAME_CORE),
    Fit("coral-usb", "builtin", same("rpi4", "builtin"), (), "rpi4, which stands for the unknown host"),
)  # fmt: skip
# Boards predicted without any measurement of their own: how far derived coefficients are off.
TRANSFERS = (
    ("rpi3", "xnnpack", carried("rpi4", "xnnpack", "rpi3")),
    ("pixel3", "builtin", carried("rpi4", "builtin", "pixel3")),
    ("pixel4", "builtin", carried("rpi4", "builtin", "pixel4")),
    ("pixel4", "builtin", carried("pixel3", "builtin", "pixel4")),
    ("pixel3", "builtin", carried("pixel4", "builtin", "pixel3")),
)


class Lab:
    """All points, and fits to them."""

    def __init__(self, points: list[Point]) -> None:
        self.points = points
        self.solve = functools.cache(self._solve)

    def find(self, target: str, kernels: str) -> Fit:
        return next(f for f in FITS if (f.target, f.kernels) == (target, kernels))

    def of(self, one: Fit) -> list[Point]:
        return [p for p in self.points if p.device in one.devices and p.kernels == one.kernels]

    def _solve(self, target: str, kernels: str, without: str | None) -> np.ndarray:
        """Coefficients fitted to all but one family, their prior included."""
        one = self.find(target, kernels)
        start = one.start(self, without)
        points = [p for p in self.of(one) if p.family != without]
        if not points:
            return start
        data = samples(points, board_of(target), kernels)
        return fit(data, start, one.each, one.common)

    def left_out(self, one: Fit) -> np.ndarray:
        """log(predicted / measured) of each point, its family kept out of everything."""
        points = self.of(one)
        data, residuals = samples(points, board_of(one.target), one.kernels), np.zeros(len(points))
        for family in np.unique(groups(points)):
            inside = groups(points) == family
            part = data.take(inside)
            residuals[inside] = np.log(predict(part, self.solve(one.target, one.kernels, family)) / part.seconds)
        return residuals

    def near_left_out(self, one: Fit) -> np.ndarray:
        """log(predicted / measured) of each point by a fit to all that are no neighbours; see :func:`neighbours`."""
        points = self.of(one)
        data = samples(points, board_of(one.target), one.kernels)
        start = one.start(self, None)
        residuals = np.zeros(len(points))
        for near in np.unique(neighbours(points)):
            inside = neighbours(points) == near
            theta = fit(data.take(~inside), start, one.each, one.common)
            part = data.take(inside)
            residuals[inside] = np.log(predict(part, theta) / part.seconds)
        return residuals

    def ranged(self, one: Fit) -> tuple[np.ndarray, np.ndarray]:
        """Residuals that a range is made of, and the neighbours of each.

        A new file may be of an architecture that the board was measured with, or not: each counts once as either.
        """
        both = np.concatenate([self.left_out(one), self.near_left_out(one)])
        return both, np.tile(neighbours(self.of(one)), 2)

    def pooled_factor(self) -> float:
        """The range of all fitted processors together, for those with too few files for one of their own."""
        several = [one for one in FITS if one.kernels != "edgetpu" and len(set(groups(self.of(one)))) > 1]
        parts = [self.ranged(one) for one in several]
        names = [f"{n} {near}" for n, (_, found) in enumerate(parts) for near in found]
        return range_factor(np.concatenate([residuals for residuals, _ in parts]), np.array(names))

    def words_of_coverage(self) -> list[str]:
        """What holds where whole architectures are left out of the range, too; and of boards with too few files."""
        several = [one for one in FITS if len(set(neighbours(self.of(one)))) >= ENOUGH]
        shares = []
        for one in several:
            residuals, near = self.ranged(one)
            shares.append(f"{one.target} {coverage(residuals, near, np.tile(groups(self.of(one)), 2)):.0%}")
        few = [one for one in FITS if one.kernels == "edgetpu" and self.of(one) and one not in several]
        parts = [self.ranged(one) for one in few]
        residuals, near = (np.concatenate(part) for part in zip(*parts, strict=True))
        files = sum(len(self.of(one)) for one in few)
        return [
            f"With the whole architecture left out of the range, too: {', '.join(shares)}. The {files} files of the "
            f"Edge TPU boards with fewer than {ENOUGH} groups, taken together: {coverage(residuals, near, near):.0%}; "
            "their ranges are as wide as their worst error, and say so."
        ]

    def one_to_four(self, target: str, kernels: str) -> list[str]:
        """A line for each file on a board: how much faster four threads are than one."""
        lines, theta = [], self.solve(target, kernels, None)
        for point in self.of(self.find(target, kernels)):
            data = samples([point], board_of(target), kernels)
            one, four = (predict(replace(data, threads=np.array([n])), theta)[0] for n in (1.0, 4.0))
            lines.append(f"| {target} | {kernels} | {point.model} | {point.dtype} | {one / four:.2f} |")
        return lines

    def transferred(self) -> tuple[np.ndarray, np.ndarray]:
        """log(predicted / measured) of whole boards from other boards, and board and family of each."""
        found, names = [], []
        for target, kernels, start in TRANSFERS:
            points = self.of(self.find(target, kernels))
            data = samples(points, load_target(target), kernels)
            found.append(np.log(predict(data, start(self, None)) / data.seconds))
            names += [f"{target} {start} {point.family}" for point in points]
        return np.concatenate(found), np.array(names)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's."""
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1]) if len(a) > 1 else float("nan")


def neighbours(points: list[Point]) -> np.ndarray:
    """The group of each point that are much alike: a model in one number format, in all its input sizes."""
    return np.array([f"{point.model} {point.dtype}" for point in points])


def coverage(residuals: np.ndarray, near: np.ndarray, left_out: np.ndarray) -> float:
    """Share of residuals inside a range that was made without their group.

    Args:
        residuals, near: as :meth:`Lab.ranged` returns them.
        left_out: the group of each that is left out together.
    """
    covered = []
    for name in np.unique(left_out):
        inside = left_out == name
        factor = range_factor(residuals[~inside], near[~inside])
        covered += list(np.abs(residuals[inside]) <= np.log(factor))
    return float(np.mean(covered))


@dataclass(frozen=True)
class Errors:
    """Of one device and set of kernels, architectures left out."""

    median: float
    rank: float


def errors(points: list[Point], residuals: np.ndarray) -> Errors:
    measured = np.array([point.ms for point in points])
    return Errors(
        float(np.median(np.abs(np.expm1(residuals)))), rank_correlation(measured, measured * np.exp(residuals))
    )


def device_rows(lab: Lab) -> list[Row]:
    rows = []
    for one in FITS:
        points, residuals = lab.of(one), lab.left_out(one) if one.devices else None
        ranged = lab.ranged(one) if one.devices else None
        for device in one.devices:
            mine = [i for i, point in enumerate(points) if point.device == device]
            assert residuals is not None
            assert ranged is not None
            found = errors([points[i] for i in mine], residuals[mine])
            names = groups([points[i] for i in mine])
            median = np.median([np.median(np.abs(np.expm1(residuals[mine][names == n]))) for n in np.unique(names)])
            rank = None if np.isnan(found.rank) else found.rank
            count = len(np.unique(names))
            covered = coverage(*ranged, ranged[1]) if len(set(ranged[1])) >= ENOUGH else None
            rows.append(Row(device, one.kernels, count, len(mine), found.median, float(median), rank, covered))
    return rows


def family_rows(lab: Lab) -> list[str]:
    rows = ["| device | kernels | dtype | left out | files | median error | from | to |", "|---" * 8 + "|"]
    for one in FITS:
        points = lab.of(one)
        residuals = lab.left_out(one) if points else np.zeros(0)
        keys = [(p.device, p.kernels, p.dtype, p.family) for p in points]
        for key in sorted(set(keys)):
            part = np.expm1(residuals[[i for i, k in enumerate(keys) if k == key]])
            rows.append(
                f"| {' | '.join(key)} | {len(part)} | {np.median(np.abs(part)):.1%} | {part.min():+.0%} | "
                f"{part.max():+.0%} |"
            )
    return rows


def section(lab: Lab, one: Fit) -> str:
    """The TOML text of one set of coefficients."""
    points, note = lab.of(one), ""
    theta = lab.solve(one.target, one.kernels, None)
    families = sorted(set(groups(points))) if points else []
    if len(families) > 1:
        residuals = lab.left_out(one)
        factor, found = range_factor(*lab.ranged(one)), errors(points, residuals)
        if len(points) < FEW:
            factor = max(factor, lab.pooled_factor()) if one.kernels != "edgetpu" else factor
            note = f'range_note = "{len(points)} files are too few to tell what holds {COVERED:.0%}"\n'
        scores = f"heldout_median_error = {found.median:.3f}\nheldout_rank_correlation = {found.rank:.3f}\n"
    else:
        factor, scores = range_factor(*lab.transferred()), ""
        note = f'range_note = "{"one file was" if points else "no file was"} measured on this board"\n'
    rows = sum(point.rows for point in points)
    how = f"derived from {one.words}" if not points else (
        f"fitted to {len(points)} files, {rows} published latencies of {', '.join(families)}; starting from {one.words}"
    )  # fmt: skip
    text = (
        f'[latency.{one.kernels}]\nhow = "{how}"\norigin = "{"fitted" if points else "derived"}"\n'
        f"measurements = {rows}\nrange_factor = {factor:.3f}\n{note}{scores}"
    )
    if one.kernels == "edgetpu":
        return text + _table("latency.edgetpu.seconds_per", prior.edgetpu_seconds(theta).model_dump())
    seconds, serial = prior.cpu_seconds(theta)
    text += f"serial_fraction = {serial:g}\n"
    return text + "".join(
        _table(f"latency.{one.kernels}.seconds_per.{dtype}", values) for dtype, values in seconds.model_dump().items()
    )


def _table(name: str, values: dict[str, float]) -> str:
    return f"\n[{name}]\n" + "".join(f"{key} = {value:g}\n" for key, value in values.items())


def write_targets(lab: Lab) -> None:
    for name in dict.fromkeys(one.target for one in FITS):
        path = ROOT / "targets" / f"{name}.toml"
        if not path.is_file():
            continue
        head = path.read_text(encoding="utf-8").split(MARK)[0].rstrip("\n")
        parts = [section(lab, one) for one in FITS if one.target == name]
        default = DEFAULTS.get(name, "xnnpack")
        top = f'{MARK}[latency]\nversion = "{VERSION}"\nkernels = "{default}"\n'
        path.write_text("\n".join([head, "", top, "\n".join(parts)]), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=ROOT.parent / "shared" / "data" / "latency" / "published.csv")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the .tflite files")
    parser.add_argument("--write", action="store_true", help="write the coefficients into targets/*.toml")
    options = parser.parse_args()
    lab = Lab(load(options.table, options.cache))
    residuals, names = lab.transferred()
    derived, rows = range_factor(residuals, names), device_rows(lab)
    lines = [
        "# Latency estimates against published measurements", "",
        "`python benchmarks/latency_accuracy.py --cache FOLDER --write`", "",
        "Predicted by fits to which no width, depth or input size of the architecture contributed, nor to those that "
        "they start from. Repeats of a measurement are one file with their median. 'In the range': share inside a "
        f"range, meant for {COVERED:.0%}, that was made without the file and its neighbours, which are the same model "
        "and number format in other input sizes; each file counts twice, predicted without its architecture, and "
        f"without its neighbours only. Fewer than {ENOUGH} such groups cannot tell.", "",
        *table(rows), "", *lab.words_of_coverage(), "", "## Misses", "", *misses(rows), "",
        "## By architecture left out", "", *family_rows(lab), "",
        "## Boards without measurements", "",
        "Whole boards predicted from others by hardware facts: median error "
        f"{np.median(np.abs(np.expm1(residuals))):.1%}, {COVERED:.0%} within a factor of {derived:.2f}, which is the "
        "range of derived coefficients.", "",
        "## One and four threads", "",
        "How much faster four threads are than one, as estimated. Published for MobileNetV1 in float on a Raspberry Pi "
        f"4: {ONE_TO_FOUR}.", "",
        "| device | kernels | model | dtype | one thread / four threads |", "|---" * 5 + "|",
        *lab.one_to_four("rpi4", "xnnpack"), "",
    ]  # fmt: skip
    print("\n".join(lines))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines), encoding="utf-8")
    if options.write:
        write_targets(lab)


if __name__ == "__main__":
    main()
