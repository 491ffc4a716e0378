"""Numbers as people read them, each with its unit; the exact figure goes along. ``None`` is never shown as 0."""

from __future__ import annotations

import math

from edgeprune.durations import duration
from edgeprune.report.blocks import ABSENT, Cell, Tone
from edgeprune.report.schema import Metric, Shapes, Variant
from edgeprune.selection import drop_points

_PREFIXES = (("G", 1e9), ("M", 1e6), ("k", 1e3))
# Keras's names for what people call otherwise; how labels are written down does not matter to a reader.
_NAMES = {"sparse_categorical_accuracy": "accuracy", "categorical_accuracy": "accuracy", "mean_io_u": "mean_iou"}
_WORDS = {"mae": "MAE", "mse": "MSE", "rmse": "RMSE", "auc": "AUC", "acc": "accuracy", "iou": "IoU"}


def absent(meaning: str = "not measured") -> Cell:
    """What stands in the place of a missing figure, and why it is missing."""
    return Cell(ABSENT, exact=meaning, tone="absent")


def plain(value: float) -> str:
    """A number in full, with thousands separators: 78,666 or 0.19321."""
    if isinstance(value, int):
        return f"{value:,}"
    return "not a number" if math.isnan(value) else f"{value:,.6g}"


def short(value: float, digits: int = 3) -> str:
    """A number in three significant digits without an exponent: 0.193, 95.4, 1,230."""
    if not math.isfinite(value):
        return plain(value)
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return signed_minus(f"{round(value, decimals):,.{min(decimals, 9)}f}")


def signed_minus(text: str) -> str:
    """A typographic minus, which lines up with the plus."""
    return text.replace("-", "−")


def scaled(value: float, unit: str = "") -> str:
    """With an SI prefix: ``scaled(95440, "B")`` is "95.4 kB"."""
    rounded = float(f"{value:.3g}")
    for prefix, factor in _PREFIXES:
        if abs(rounded) >= factor:
            return f"{f'{rounded / factor:#.3g}'.rstrip('.')} {prefix}{unit}"
    return f"{rounded:g} {unit}".strip()


def size(value: int | None) -> Cell:
    """Bytes; 1 kB is 1,000 bytes."""
    return absent() if value is None else Cell(scaled(value, "B"), exact=f"{value:,} bytes")


def count(value: int | None, what: str, meaning: str = "not counted") -> Cell:
    """A number of things, ``what`` in the plural."""
    return absent(meaning) if value is None else Cell(scaled(value), exact=f"{value:,} {what}")


def share(value: float | None, what: str, decimals: int = 1) -> Cell:
    """A fraction as a percentage."""
    return absent() if value is None else Cell(f"{100 * value:.{decimals}f} %", exact=f"{value:.6g} {what}".strip())


def milliseconds(value: float | None) -> str:
    return ABSENT if value is None else f"{short(value)} ms"


def seconds(value: float) -> str:
    """A duration that was measured: 0.42 s, 63.1 s, 12 min 4 s, 1 h 30 min."""
    if value < 120:
        return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s" if value >= 0.005 else "< 0.01 s"
    return duration(value)


def shape(value: Shapes) -> str:
    """Tensor shapes: 1 × 32 × 32 × 3, with "any" for a free dimension."""
    if isinstance(value, dict):
        return "; ".join(f"{name}: {shape(one)}" for name, one in value.items())
    if any(isinstance(one, list) for one in value):
        return "; ".join(shape(one) for one in value if isinstance(one, list))
    return " × ".join("any" if one is None else str(one) for one in value) or "scalar"


def is_percent(metric: Metric) -> bool:
    """Whether the metric is a fraction, shown in per cent and compared in points."""
    return metric.points == 100


def metric_name(metric: Metric) -> str:
    """The metric's name as a title: "Accuracy", "MAE", "Mean absolute error"; a user's function keeps its own."""
    if not metric.name.replace("_", "").isalnum():
        return metric.name
    words = " ".join(_WORDS.get(word, word) for word in _NAMES.get(metric.name, metric.name).split("_"))
    return words[:1].upper() + words[1:]


def metric_word(metric: Metric) -> str:
    """The metric's name within a sentence."""
    name = metric_name(metric)
    return name if name[1:2].isupper() else name[:1].lower() + name[1:]


def metric_value(metric: Metric, value: float | None) -> Cell:
    if value is None:
        return absent()
    if is_percent(metric) and math.isfinite(value):
        return Cell(f"{100 * value:.2f} %", exact=f"{value:.6g}")
    return Cell(short(value, 4), exact=plain(value))


def points(metric: Metric, value: float | None) -> str:
    """A drop, or a limit to it: in points for accuracy-like metrics, else in the metric's own unit."""
    if value is None:
        return ABSENT
    if is_percent(metric):
        return signed_minus(f"{value:.2f} points of {metric_word(metric)}")
    return f"{signed_minus(f'{value:.4g}')} in {metric_word(metric)}"


def change(metric: Metric, variant: Variant, baseline: Variant | None) -> Cell:
    """The metric against the baseline's, as :func:`difference` shows it."""
    if variant.baseline:
        return Cell("baseline")
    if baseline is None:
        return absent("no baseline to compare with")
    return _difference(metric, variant.drop_points, baseline.metric.value if baseline.metric else None)


def difference(metric: Metric, value: float, base: float) -> Cell:
    """A metric against its value before, with a sign: in points for fractions, else relative to ``base`` with the
    difference itself as the exact figure; in words where the sign does not say which is better."""
    return _difference(metric, drop_points(metric, base, value), base)


def _difference(metric: Metric, drop: float | None, base: float | None) -> Cell:
    if drop is None or not math.isfinite(drop):
        return absent()
    word: tuple[str, Tone] = ("same", "") if drop == 0 else ("worse", "bad") if drop > 0 else ("better", "good")
    # A drop is a loss in either direction; the sign shown is that of the metric itself.
    difference = -drop if metric.higher_is_better else drop
    if is_percent(metric):
        number = f"{difference:+.2f}"
        text = f"{number[1:] if float(number) == 0 else number} points"
    else:
        relative = f"{_signed(100 * difference / abs(base), 2)} %" if base and math.isfinite(base) and drop else ""
        text = f"{relative or _signed(difference)} ({word[0]})"
    return Cell(signed_minus(text), exact=f"{plain(difference)}, {word[0]}", tone=word[1])


def _signed(value: float, digits: int = 3) -> str:
    return f"{'+' if value > 0 else ''}{short(value, digits)}"


def relative(value: float | None, base: float | None, less: str = "smaller", more: str = "larger") -> str:
    """``value`` against ``base`` in words: "71 % smaller"; empty if one is missing."""
    if value is None or not base:
        return ""
    percent = round(100 * (value / base - 1))
    if abs(percent) < 1:
        return "about the same"
    return f"{abs(percent)} % {less if percent < 0 else more}"
