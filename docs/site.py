"""What the documentation site is made of beside the pages of this folder; mkdocs calls the functions named ``on_…``.

Pages are written to be read in the repository, so that links are relative to the file. Here each leads to the page that
a file became. A file that has no page is named, without a link.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Pages from outside of docs/, which keep their paths on the site.
OTHERS = (
    "benchmarks/README.md",
    "benchmarks/results/*.md",
    "benchmarks/results/*.svg",
    "examples/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
)
# Files that stand for a page of another name.
SAME = {"README.md": "index.md", "examples": "examples/README.md", "benchmarks": "benchmarks/README.md"}
LINK = re.compile(
    r"(?P<fenced>^```.*?^```)|\[(?P<text>[^\]]+)\]\((?P<path>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)", re.M | re.S
)
SCHEMA = re.compile(r"<!-- keys of (\w+) -->")
ROLE = re.compile(r":\w+:<code>~?(?P<name>[\w.]+)</code>")  # of Sphinx, in docstrings
NO_DEFAULT = "<code>Sentinel.UNSET</code>"  # of an option, by click


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside of docs/."""
    for path in sorted(path for pattern in OTHERS for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to pages, and fill in the keys of a schema."""
    own = page.file.src_uri
    place = own if (ROOT / own).exists() else f"docs/{own}"

    def led(link: re.Match[str]) -> str:
        if link["fenced"]:
            return link[0]
        goal = os.path.normpath(os.path.join(os.path.dirname(place), link["path"]))
        uri = SAME.get(goal, goal.removeprefix("docs/"))
        if not files.get_file_from_path(uri):
            return link["text"] if "`" in link["text"] else f"{link['text']} (`{goal}`)"
        return f"[{link['text']}]({os.path.relpath(uri, os.path.dirname(own) or '.')}{link['anchor'] or ''})"

    return SCHEMA.sub(lambda found: "\n".join(_sections(found[1])), LINK.sub(led, markdown))


def on_page_content(content: str, **_: Any) -> str:
    """Leave what was written for other readers out: of Sphinx's roles the last part of the name is enough."""
    shown = ROLE.sub(lambda role: f"<code>{role['name'].rpartition('.')[2]}</code>", content)
    return shown.replace(NO_DEFAULT, "")


def _sections(name: str) -> Iterator[str]:
    """A heading, a description and a table of keys for each section of a recipe or a target, as Markdown lines."""
    schema = json.loads((ROOT / "edgeprune" / "schemas" / f"{name}.schema.json").read_text("utf-8"))
    yield from _section(schema["$defs"], "", schema)


def _section(defs: dict[str, Any], name: str, schema: dict[str, Any]) -> Iterator[str]:
    properties = schema["properties"]
    required = schema.get("required", [])
    inner = {key: found for key, value in properties.items() if (found := _table_of(defs, value))}
    keys = [key for key in properties if key not in inner]
    yield f"\n## {f'`[{name}]`' if name else 'Keys before all sections'}\n"
    about = _text(schema.get("description", "")).partition(": ")[2] if name else ""
    yield about[:1].upper() + about[1:]
    if keys:
        yield "\n| key | values | default | meaning |\n|---|---|---|---|"
    for key in keys:
        value = properties[key]
        default = "required" if key in required else _code(value["default"]) if "default" in value else ""
        yield f"| `{key}` | {_values(defs, value)} | {default} | {_text(value.get('description', ''))} |"
    for key, found in inner.items():
        yield from _section(defs, f"{name}.{key}" if name else key, found)


def _table_of(defs: dict[str, Any], value: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of a key that is a section of its own."""
    found = defs.get(value.get("$ref", "").rpartition("/")[2])
    return found if found and "properties" in found else None


def _values(defs: dict[str, Any], value: dict[str, Any]) -> str:
    """What a key may be, in words."""
    if "$ref" in value:
        found = defs[value["$ref"].rpartition("/")[2]]
        return (
            f"table: {', '.join(f'`{key}`' for key in found['properties'])}"
            if "properties" in found
            else _values(defs, found)
        )
    if either := value.get("anyOf") or value.get("oneOf"):
        words = list(dict.fromkeys(_values(defs, one) for one in either))
        *others, last = words
        return " or ".join([*others, "a list of these" if last == f"list of {' or '.join(others)}" else last])
    if "enum" in value or "const" in value:
        return ", ".join(_code(one) for one in value.get("enum", [value.get("const")]))
    if value.get("type") == "array":
        items = value.get("items") or (value.get("prefixItems") or [{}])[0]
        return f"list of {_values(defs, items)}"
    if value.get("type") == "object":
        items = value.get("additionalProperties")
        return f"table of {_values(defs, items)}" if isinstance(items, dict) and items else "table"
    if "%" in value.get("pattern", ""):
        return '`"…%"`'
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {value[key]:g}" for key, sign in signs.items() if key in value]
    return " ".join([{"string": "text"}.get(value.get("type", "any"), value.get("type", "any")), *limits])


def _code(value: object) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _text(text: str) -> str:
    words = " ".join(text.split()).replace("``", "`").replace("None: ", "default: ")
    return html.escape(words, quote=False).replace("|", "\\|")
