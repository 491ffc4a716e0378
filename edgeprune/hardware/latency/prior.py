"""The prior of the latency model's coefficients: from hardware facts, or from the coefficients of another board.

Coefficients are held in one vector of logarithms: those for float32, then those for int8, each in the order of
:class:`edgeprune.target.CpuSeconds`, and last the serial fraction.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgeprune.errors import TargetError
from edgeprune.hardware.latency.features import Work
from edgeprune.target import Cpu, CpuLatency, CpuSeconds, EdgeTpuLatency, EdgeTpuSeconds, SecondsByDType, Target

DTYPES = ("float32", "int8")
CPU_TERMS = tuple(CpuSeconds.model_fields)
EDGETPU_TERMS = tuple(EdgeTpuSeconds.model_fields)
COLUMNS = {(dtype, term): i for i, (dtype, term) in enumerate((d, t) for d in DTYPES for t in CPU_TERMS)}
COUNT = len(COLUMNS)

SERIAL_FRACTION = 0.05
# Fraction of the peak rate that kernels reach; depthwise ones wait for loads from memory.
_OF_PEAK = {"conv_macs": 0.6, "dense_macs": 0.5, "depthwise_macs": 0.2}
# Cycles of one core per unit. These are guesses, good within a factor of two or three, from vectors of four floats with
# one load or store each.
_CYCLES = {
    "conv_elements": {"float32": 1.0, "int8": 2.0},
    "elementwise_elements": {"float32": 1.0, "int8": 1.5},
    "nonlinear_elements": {"float32": 5.0, "int8": 5.0},
    "reduced_elements": {"float32": 1.0, "int8": 1.0},
    "window_rows": {"float32": 30.0, "int8": 30.0},
    "moved_bytes": {"float32": 0.3, "int8": 0.3},
    "panel_bytes": {"float32": 0.1, "int8": 0.1},  # of all cores together: they share the way to the weights
    "operators": {"float32": 7500.0, "int8": 7500.0},
}
# Seconds per unit on an Edge TPU: one pass of the array per cycle, at the same fraction of the peak as on other
# processors; the link's rate as in the hardware facts; all others are guesses.
_EDGETPU = {
    "array_cycles": 1 / (500e6 * _OF_PEAK["conv_macs"]),
    "depthwise_cycles": 1 / 500e6,
    "activation_elements": 1e-10,
    "sent_bytes": 1 / 387e6,
    "returned_bytes": 1 / 150e6,
    "operators": 5e-6,
    "inferences": 1.5e-4,
}


def from_hardware(cpu: Cpu) -> np.ndarray:
    """Coefficients [k + 1] from clock, peak rates and bandwidth alone.

    Raises:
        TargetError: one of these facts is missing.
    """
    bandwidth = _known(cpu, cpu.memory_bandwidth_bytes_per_s, "memory_bandwidth_bytes_per_s")
    theta = np.zeros(COUNT + 1)
    for (dtype, term), column in COLUMNS.items():
        if term in _OF_PEAK:
            seconds = 1 / (cpu.clock_hz * _rate(cpu, dtype) * _OF_PEAK[term])
        elif term == "memory_bytes":
            seconds = 1 / (2 * bandwidth)  # a copy reads and writes
        else:
            seconds = _CYCLES[term][dtype] / cpu.clock_hz
        theta[column] = np.log(seconds)
    theta[-1] = np.log(SERIAL_FRACTION)
    return theta


def edgetpu_prior() -> np.ndarray:
    """Coefficients [k + 1] of an Edge TPU; the last one, the serial fraction, is not used there."""
    return np.log([*(_EDGETPU[term] for term in EDGETPU_TERMS), SERIAL_FRACTION])


def scaled(theta: np.ndarray, base: Cpu, cpu: Cpu) -> np.ndarray:
    """Coefficients of one processor carried to another by the ratios of their facts.

    Products scale with clock and peak rate, memory with bandwidth, the start of an operator with the clock, and all
    other work with clock and vector rate, for which the float32 peak rate is used.

    Raises:
        TargetError: a fact is missing.
    """
    clock = base.clock_hz / cpu.clock_hz
    bandwidth = _known(base, base.memory_bandwidth_bytes_per_s, "memory_bandwidth_bytes_per_s") / _known(
        cpu, cpu.memory_bandwidth_bytes_per_s, "memory_bandwidth_bytes_per_s"
    )
    vectors = clock * _rate(base, "float32") / _rate(cpu, "float32")
    result = theta.copy()
    for (dtype, term), column in COLUMNS.items():
        if term in _OF_PEAK:
            factor = clock * _rate(base, dtype) / _rate(cpu, dtype)
        else:
            factor = {"memory_bytes": bandwidth, "operators": clock}.get(term, vectors)
        result[column] += np.log(factor)
    return result


def _rate(cpu: Cpu, dtype: str) -> float:
    return _known(cpu, cpu.macs_per_cycle.get(dtype), f"macs_per_cycle.{dtype}")  # type: ignore[call-overload]


def _known(cpu: Cpu, value: float | None, name: str) -> float:
    if value is None:
        raise TargetError(
            f"The target file of the processor {cpu.model!r} does not give cpu.{name}.",
            fix=f"add cpu.{name} and its source to it.",
        )
    return value


def cpu_vector(table: CpuLatency) -> np.ndarray:
    """The logarithms [k + 1] of a table."""
    seconds = [getattr(getattr(table.seconds_per, dtype), term) for dtype, term in COLUMNS]
    return np.log([*seconds, max(table.serial_fraction, 1e-6)])


def edgetpu_vector(table: EdgeTpuLatency) -> np.ndarray:
    """The logarithms [k + 1] of a table."""
    return np.log([*(getattr(table.seconds_per, term) for term in EDGETPU_TERMS), SERIAL_FRACTION])


def cpu_seconds(theta: np.ndarray) -> tuple[SecondsByDType, float]:
    """Coefficients to four digits, and the serial fraction, from their logarithms [k + 1]."""
    values = {dtype: {t: _short(theta[COLUMNS[dtype, t]]) for t in CPU_TERMS} for dtype in DTYPES}
    return SecondsByDType.model_validate(values), min(_short(theta[-1]), 1.0)


def edgetpu_seconds(theta: np.ndarray) -> EdgeTpuSeconds:
    """Coefficients to four digits from their logarithms [k + 1]."""
    return EdgeTpuSeconds.model_validate(
        {term: _short(value) for term, value in zip(EDGETPU_TERMS, theta, strict=False)}
    )


def _short(logarithm: float) -> float:
    return float(f"{np.exp(logarithm):.4g}")


def cpu_amounts(works: Iterable[Work]) -> np.ndarray:
    """Amounts of a whole graph [k]."""
    total = np.zeros(COUNT)
    for work in works:
        for term, amount in work.amounts.items():
            total[COLUMNS[work.dtype, term]] += amount
    return total


def edgetpu_amounts(amounts: Iterable[dict[str, float]]) -> np.ndarray:
    """Amounts of a whole graph [k]."""
    total = np.zeros(len(EDGETPU_TERMS))
    for part in amounts:
        for term, amount in part.items():
            total[EDGETPU_TERMS.index(term)] += amount
    return total


def board(target: Target) -> Cpu:
    """The processor of a target.

    Raises:
        TargetError: the target has none.
    """
    if target.cpu is None:
        raise TargetError(f"The target {target.name} has no [cpu] table.", fix="choose a base target that has one.")
    return target.cpu
