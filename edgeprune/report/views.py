"""report.json as HTML and Markdown files."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.files import write_bytes
from edgeprune.report import headline
from edgeprune.report.blocks import EVERYWHERE, IN_FILES, Table
from edgeprune.report.compared import regression_line, regression_table
from edgeprune.report.schema import Report, parse
from edgeprune.report.sections import SECTIONS, gates_tables, tradeoffs
from edgeprune.report.variants import variants_table

if TYPE_CHECKING:
    import jinja2

FILES = ("report.html", "report.md", "summary.md")


def write_views(report: Mapping[str, Any], folder: Path) -> None:
    """Write ``FILES`` into ``folder``, each atomically. The same report gives the same bytes.

    Args:
        report: a report.json document.
        folder: the run folder; pictures of samples in it become part of the page.

    Raises:
        ValueError: the report does not follow the schema.
        OutputError: the folder cannot be written to.
    """
    parsed = parse(report)
    for name in FILES:
        write_bytes(Path(folder) / name, render(parsed, name, Path(folder)).encode())


def render(report: Report, template: str, folder: Path | None = None) -> str:
    """One of ``FILES`` as text, with the pictures in ``folder``."""
    shown = [section for section in SECTIONS if section.in_markdown or template.endswith(".html")]
    sections = [(section, blocks) for section in shown if (blocks := section.blocks(report))]
    return environment(folder).get_template(template).render(
        report=report, headline=headline, sections=sections, in_files=IN_FILES, regression_line=regression_line,
        summary=summary,
    )  # fmt: skip


def render_cell(report: Report) -> str:
    """The output of a notebook's cell: an element with styles of its own, and ids that no other report's has."""
    digest = hashlib.sha256(report.model_dump_json().encode()).hexdigest()[:8]
    style = (Path(__file__).parent / "report.css").read_text("utf-8")
    # Nested, the page's rules are about what is in the element, and those about the page about the element.
    style = re.sub(r"^(\s*)(?::root|body)(?= \{)", r"\1&", style, flags=re.MULTILINE)
    blocks = [variants_table(report).at_level(IN_FILES), *tradeoffs(report, f"e{digest}-")]
    return environment().get_template("cell.html").render(
        report=report, headline=headline, blocks=blocks, style=style, regression_line=regression_line
    )  # fmt: skip


def summary(report: Report) -> list[Table]:
    """The tables of summary.md: what a reviewer looks at."""
    found = report.regression
    worse = [regression_table(report, found.worse, "What got worse.")] if found and found.worse else []
    return [*worse, *gates_tables(report), variants_table(report).at_level(EVERYWHERE)]


def environment(folder: Path | None = None) -> jinja2.Environment:
    import jinja2
    import markupsafe

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    environment.filters["fence"] = fence
    environment.filters["embedded"] = lambda path: data_uri(folder / path) if folder and path else ""
    environment.filters["svg"] = markupsafe.Markup  # drawings are made here, with their text escaped
    return environment


def data_uri(path: Path) -> str:
    """A PNG file as a URL that holds it; empty if there is none."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else ""


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, in tables too."""
    text = re.sub(r"\s+", " ", str(text))
    text = re.sub(r"([\\`*\[\]|])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def fence(text: str) -> str:
    """A code block whose fence is longer than any in the text."""
    ticks = max((len(run) for run in re.findall("`+", text)), default=0)
    marks = "`" * max(3, ticks + 1)
    return f"{marks}\n{text}\n{marks}"
