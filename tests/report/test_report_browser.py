"""report.html in a real Chromium."""

import json
import re
from pathlib import Path

import pytest
from chromium import CHROMIUM, open_page
from matrix import representatives

from edgeprune.report.runs import Run
from edgeprune.report.runs import render as render_runs
from edgeprune.report.schema import parse

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium executable on PATH")


def test_the_page_opens_offline_without_a_complaint(report, html, tmp_path):
    """Tables and drawings are in the DOM, and the console is silent: nothing failed, nothing was to be loaded."""
    dom, console = open_page(html("sample"), tmp_path)
    assert console == []
    assert dom.count("<svg") == 6
    body = re.search(r'<section id="variants".*?<tbody>(.*?)</tbody>', dom, re.DOTALL).group(1)
    assert body.count("<tr") == len(report["variants"])
    assert "82.74 %" in body


def test_a_load_from_elsewhere_would_be_seen(html, tmp_path):
    """The check above can fail: an image from outside is refused by the page's own policy, in the console."""
    text = html("only_baseline").replace("<main>", '<main><img src="file:///nowhere/x.png" alt="x">')
    _, console = open_page(text, tmp_path)
    assert any("Content Security Policy" in line for line in console)


AXE = """<script>%s</script><script>
axe.run(document, {resultTypes: ["violations"]}).then(found => {
  const said = found.violations.map(one => one.id + ": " + one.nodes.map(node => node.html).join(" | "));
  document.body.textContent = "AXE " + found.passes.length + " " + JSON.stringify(said) + " END";
});
</script></body>"""


def violations(text, folder):
    """What axe-core finds in a page, and how many of its rules passed; its own script needs the page's policy gone."""
    axe_core = pytest.importorskip("axe_core_python.base")
    script = (Path(axe_core.__file__).parent / "axe.min.js").read_text("utf-8")
    text = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    page = text.replace("</body>", AXE.replace("%s", script))
    dom, _ = open_page(page, folder, "--virtual-time-budget=60000")
    passed, found = re.search(r"AXE (\d+) (.*) END", dom, re.DOTALL).groups()
    return json.loads(found), int(passed)


@pytest.mark.parametrize(
    ("name", "scheme"),
    representatives(
        [("placed", "light"), ("missed_gate", "dark"), ("runs", "light")], ("missed_gate", "dark"), ("runs", "light")
    ),
)
def test_axe_finds_nothing(name, scheme, html, variations, tmp_path):
    """Names, roles, order of headings, contrast and what else axe-core's rules ask for, in both colour schemes."""
    if name == "runs":
        pair = [Run("a", parse(variations["estimated"]())), Run("b", parse(variations["estimated"]()))]
        text = render_runs(pair)
    else:
        text = html(name)
    if scheme == "dark":
        assert "@media (prefers-color-scheme: dark)" in text
        text = text.replace("@media (prefers-color-scheme: dark)", "@media all")
    found, passed = violations(text, tmp_path)
    assert found == []
    assert passed > 15


def test_axe_would_find_something(html, tmp_path):
    """The test above can fail: light grey text, and a table whose picture has no words."""
    text = html("only_baseline").replace("<main>", '<main><img src="data:,x"><p style="color: #ddd">faint</p>')
    found, _ = violations(text, tmp_path)
    assert {line.split(":")[0] for line in found} >= {"image-alt", "color-contrast"}
