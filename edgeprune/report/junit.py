"""A report as JUnit XML, which CI systems show as tests: a case for every variant, gate and compared figure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from edgeprune.files import write_bytes
from edgeprune.report.compared import regression_table
from edgeprune.report.schema import Report, parse
from edgeprune.report.sections import gates_tables

# Suite, case, and what went wrong, or None.
Case = tuple[str, str, str | None]
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(report: Mapping[str, Any] | Report, path: Path) -> None:
    """Write the XML file, atomically.

    Raises:
        ValueError: the report does not follow the schema.
        OutputError: the file cannot be written.
    """
    write_bytes(Path(path), render(parse(report)))


def render(report: Report) -> bytes:
    """The XML document. A suite that has no case is left out."""
    cases = [*_variants(report), *_gates(report), *_regression(report)]
    root = ElementTree.Element("testsuites", name="edgeprune")
    seconds = math.fsum(stage.seconds for stage in report.stages if not stage.reused)
    for suite in dict.fromkeys(suite for suite, _, _ in cases):
        own = [case for case in cases if case[0] == suite]
        element = ElementTree.SubElement(
            root,
            "testsuite",
            name=f"edgeprune.{suite}",
            tests=str(len(own)),
            failures=str(sum(fault is not None for _, _, fault in own)),
            errors="0",
            skipped="0",
            time=f"{seconds if suite == 'variants' else 0:.3f}",
            timestamp=report.created[:19],
        )
        for _, name, fault in own:
            case = ElementTree.SubElement(
                element, "testcase", classname=_clean(f"{report.model.name}.{report.target.name}.{suite}"),
                name=_clean(name), time="0",
            )  # fmt: skip
            if fault is not None:
                ElementTree.SubElement(case, "failure", message=_clean(fault)).text = _clean(fault)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _variants(report: Report) -> Iterator[Case]:
    for variant in report.variants:
        yield "variants", variant.name, None
    for missing in report.missing:
        yield "variants", missing.name, " ".join(filter(None, (missing.what, missing.fix)))


def _gates(report: Report) -> Iterator[Case]:
    """Those of all targets; the names say which, where there are several."""
    boards = [(f"{board.name}: ", board.pick, board.gates) for board in report.targets if board.gates]
    boards = boards or [("", report.pick, report.gates)]
    for (target, pick, gates), table in zip(boards, gates_tables(report), strict=False):
        for gate, row in zip(gates, table.rows, strict=True):
            name, limit, value, _ = (cell.text for cell in row)
            fault = f"{target}{name} of {pick}: {value}, at most {limit}"
            yield "gates", f"{target}{name}", None if gate.passed else fault


def _regression(report: Report) -> Iterator[Case]:
    found = report.regression
    rows = found.rows if found else []
    for row, cells in zip(rows, regression_table(report, rows, "").rows, strict=True):
        variant, figure, before, after, limit, _ = (cell.text for cell in cells)
        fault = f"{figure} of {variant}: {after}, before {before}; the worst that passes is {limit}"
        yield "regression", f"{variant}: {figure}", None if row.passed else fault


def _clean(text: str) -> str:
    """Without the characters that no XML document may hold."""
    return _NOT_XML.sub("\ufffd", text)
