"""The documentation site: it builds without a warning, its links lead somewhere, and its references are complete."""

import html.parser
import os
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

import edgeprune
from edgeprune.cli import COMMANDS
from edgeprune.recipe.config import Recipe
from edgeprune.target import Target

ROOT = Path(__file__).parents[1]
pytest.importorskip("mkdocs", reason="needs the extra docs")


class Page(html.parser.HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.links += [found[key] for key in ("href", "src") if found.get(key)]
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}


@pytest.fixture(scope="module")
def site(once):
    """The folder of the site, built as `make docs` does: with warnings as errors."""

    def build(folder):
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder / "site")]
        environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr

    return once("site", build) / "site"


def test_every_link_of_the_site_leads_somewhere(site):
    """Of every page, every relative link and every anchor in it is there."""
    pages = {path: Page(path.read_text("utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 50
    dead = []
    for path, page in pages.items():
        for link in page.links:
            url = urllib.parse.urlsplit(link)
            if url.scheme or url.netloc or not (url.path or url.fragment):
                continue
            goal = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
            goal = goal / "index.html" if goal.is_dir() else goal
            anchor = urllib.parse.unquote(url.fragment)
            if not goal.exists() or (anchor and goal in pages and anchor not in pages[goal].anchors | {"__top"}):
                dead.append((str(path.relative_to(site)), link))
    assert dead == []


def test_the_references_are_filled_in(site):
    """Commands, keys and public names stand on their pages; nothing that was to be replaced is left."""
    commands, keys, targets, names = (
        Page((site / page / "index.html").read_text("utf-8")).anchors
        for page in ("commands", "recipe-keys", "target-keys", "api")
    )
    assert {f"edgeprune-{name}" for name in COMMANDS} - {re.sub(r"_\d+$", "", one) for one in commands} == set()
    assert {f"edgeprune.{name}" for name in set(edgeprune.__all__) - {"__version__"}} - names == set()
    sections = {name for name, field in Recipe.model_fields.items() if "Config" in str(field.annotation)}
    assert len(sections) > 10
    assert sections - keys == set()
    assert {"cpu", "runtime", "latency"} & set(Target.model_fields) - targets == set()
    for path in site.rglob("*.html"):
        text = path.read_text("utf-8")
        assert not re.search(r"Sentinel\.UNSET|:(func|class|data|mod):<|::: |<!-- keys of", text), path


def test_every_public_name_has_an_entry():
    """Each name of the Python API is a directive of the page that is made from the code."""
    shown = re.findall(r"^::: edgeprune\.(\w+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(shown) == sorted(set(edgeprune.__all__) - {"__version__"})
