"""A search as a page: the front, what mattered, and every trial. The drawings react to the pointer without scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgeprune.report.format import short

Document = Mapping[str, Any]
_WIDTH, _HEIGHT, _MARGIN = 760, 400, 62


def render(document: Document) -> str:
    """The page as text; the same document gives the same bytes."""
    from edgeprune.report.views import environment

    pages = [_page(document, target, number) for number, target in enumerate(document["targets"])]
    return environment().get_template("search.html").render(document=document, pages=pages)


def _page(document: Document, target: Document, number: int) -> dict[str, Any]:
    files = _files(document, target, f"t{number}")
    axes = [_Axis.of(name, files, document) for name in _columns(target)]
    return {
        "target": target,
        "scatter": _scatter(files, axes),
        "parallel": _parallel(target, files, axes),
        "importances": sorted(target["importances"].items(), key=lambda item: -item[1]),
        "rows": _rows(document, target, files),
        "ids": [file["id"] for file in files],
        "unit": _drop_unit(document),
        "shown": [name for name in ("latency", "size", "download") if name in target["objectives"]],
    }


def _columns(target: Document) -> list[str]:
    """The figures that are drawn, the horizontal one of the first drawing first."""
    costs = [name for name in ("latency", "size", "download") if name in target["objectives"]]
    return [*(costs or ["size"]), "accuracy"]


_KEYS = {"latency": "latency_ms", "size": "bytes", "download": "gzip_bytes", "accuracy": "value"}


def _drop_unit(document: Document) -> str:
    return "points" if document["metric"]["points"] == 100 else document["metric"]["name"]


def _files(document: Document, target: Document, prefix: str) -> list[dict[str, Any]]:
    front = {(file["trial"], file["rung"]): file for file in target["front"]}
    best = target["best"] or {}
    found = []
    for trial in target["trials"]:
        if trial["state"] == "repeated":
            continue
        for rung, made in trial["rungs"].items():
            where = trial["number"], rung
            found.append(
                {
                    "id": f"{prefix}-{trial['number']}-{rung.replace(' ', '-')}",
                    "trial": trial["number"],
                    "rung": rung,
                    "figures": made["figures"],
                    "params": trial["params"],
                    "test": (front.get(where) or {}).get("test"),
                    "look": "best"
                    if where == (best.get("trial"), best.get("rung"))
                    else "front"
                    if where in front
                    else "other",
                    "words": _words(document, trial, rung, made),
                }
            )
    return found


def _words(document: Document, trial: Document, rung: str, made: Document) -> str:
    figures = made["figures"]
    lines = [f"trial {trial['number']}, {rung}, {trial['state']}"]
    lines.append(f"{document['metric']['name']} {short(figures['value'], 5)}, lost {figures['drop']:.3g}")
    if figures["latency_ms"] is not None:
        lines.append(f"{figures['latency_ms']:.4g} ms")
    lines.append(f"{figures['bytes']:,} bytes, {figures['gzip_bytes']:,} after gzip")
    lines += [f"{key} = {json.dumps(value)}" for key, value in trial["params"].items()]
    return "\n".join(lines)


class _Axis:
    """A scale from figures to 0..1."""

    def __init__(self, name: str, title: str, values: Sequence[float], factor: float = 1.0):
        self.name, self.title, self.factor = name, title, factor
        finite = [value for value in values if math.isfinite(value)] or [0.0]
        self.low, self.high = min(finite), max(finite)
        margin = 0.06 * (self.high - self.low) or 0.05 * abs(self.high) or 1.0
        self.low, self.high = self.low - margin, self.high + margin

    @staticmethod
    def of(name: str, files: Sequence[Document], document: Document) -> _Axis:
        titles = {"latency": "Latency (ms)", "size": "Size (kB)", "download": "After gzip (kB)"}
        title = titles.get(name, f"{document['metric']['name']} on validation")
        factor = 1e-3 if name in ("size", "download") else 1.0
        return _Axis(name, title, [factor * file["figures"][_KEYS[name]] for file in files], factor)

    def at(self, value: float) -> float:
        return (self.factor * value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        step = 10 ** math.floor(math.log10(self.high - self.low))
        step = next((step * part for part in (0.2, 0.5, 1, 2) if (self.high - self.low) / (step * part) <= 7), 5 * step)
        first = math.ceil(self.low / step)
        values = [step * index for index in range(first, math.floor(self.high / step) + 1)]
        return [((value - self.low) / (self.high - self.low), f"{value:.6g}") for value in values]


def _scatter(files: Sequence[Document], axes: Sequence[_Axis]) -> dict[str, Any]:
    """Places of every file: the first cost to the right, the metric up."""
    across, up = axes[0], axes[-1]

    def x(part: float) -> float:
        return round(_MARGIN + part * (_WIDTH - 1.5 * _MARGIN), 1)

    def y(part: float) -> float:
        return round(_HEIGHT - _MARGIN - part * (_HEIGHT - 1.5 * _MARGIN), 1)

    points = [
        {
            **file,
            "x": x(across.at(file["figures"][_KEYS[across.name]])),
            "y": y(up.at(file["figures"][_KEYS[up.name]])),
        }
        for file in files
    ]
    order = {"other": 0, "front": 1, "best": 2}
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _MARGIN,
        "bottom": _HEIGHT - _MARGIN,
        "right": _WIDTH - _MARGIN / 2,
        "x_title": across.title,
        "y_title": up.title,
        "x_ticks": [(x(part), text) for part, text in across.ticks()],
        "y_ticks": [(y(part), text) for part, text in up.ticks()],
        "points": sorted(points, key=lambda point: order[point["look"]]),
    }


def _parallel(target: Document, files: Sequence[Document], axes: Sequence[_Axis]) -> dict[str, Any]:
    """A line per file through its values of every key, and its figures."""
    keys = list(target["space"])
    height, top, bottom = 300, 44, 270
    count = len(keys) + len(axes)
    gap = 150
    scales = [_Choices(key, [file["params"].get(key) for file in files]) for key in keys]

    def y(part: float) -> float:
        return round(bottom - part * (bottom - top), 1)

    lines = []
    for file in files:
        parts = [scale.at(file["params"].get(scale.key)) for scale in scales]
        parts += [axis.at(file["figures"][_KEYS[axis.name]]) for axis in axes]
        path = " ".join(f"{70 + gap * index},{y(part)}" for index, part in enumerate(parts))
        lines.append({**file, "path": path})
    columns = [
        {"x": 70 + gap * index, "title": title, "labels": [(y(part), text) for part, text in labels]}
        for index, (title, labels) in enumerate(
            [(scale.key, scale.labels()) for scale in scales] + [(axis.title, axis.ticks()) for axis in axes]
        )
    ]
    return {"width": 140 + gap * (count - 1), "height": height, "top": top, "bottom": bottom,
            "columns": columns, "lines": lines}  # fmt: skip


class _Choices:
    """A scale of the values of a key: numbers by size, others by name; absent ones at the bottom."""

    def __init__(self, key: str, values: Sequence[Any]):
        self.key = key
        given = [value for value in values if value is not None]
        self._numeric = bool(given) and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in given
        )
        distinct = sorted(set(given), key=lambda value: value if self._numeric else str(value))
        self._order: list[Any] = [*([None] if None in values else []), *distinct]

    def at(self, value: Any) -> float:
        return self._order.index(value) / max(len(self._order) - 1, 1)

    def labels(self) -> list[tuple[float, str]]:
        step = max(1, math.ceil(len(self._order) / 8))
        return [(self.at(value), "–" if value is None else _shortened(value)) for value in self._order[::step]]


def _shortened(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 18 else f"{text[:17]}…"


def _rows(document: Document, target: Document, files: Sequence[Document]) -> list[dict[str, Any]]:
    """A row per file, and one per trial without; the front first."""
    order = {"best": 0, "front": 1, "other": 2}
    rows = [
        {
            **file,
            "recipe": ", ".join(f"{key} = {json.dumps(value)}" for key, value in file["params"].items()),
            "state": next(trial["state"] for trial in target["trials"] if trial["number"] == file["trial"]),
            "reason": next(trial["reason"] for trial in target["trials"] if trial["number"] == file["trial"]),
        }
        for file in sorted(files, key=lambda file: (order[file["look"]], file["trial"]))
    ]
    return rows + [
        {
            "id": "", "trial": trial["number"], "rung": "", "figures": None, "test": None, "look": "failed",
            "recipe": ", ".join(f"{key} = {json.dumps(value)}" for key, value in trial["params"].items()),
            "state": trial["state"], "reason": trial["reason"],
        }
        for trial in target["trials"] if not trial["rungs"]
    ]  # fmt: skip
