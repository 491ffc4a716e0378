"""report.html in a real Chromium."""

import re
import shutil
import subprocess

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium executable on PATH")


def open_page(text, folder):
    """The DOM after loading, and what the page's console said."""
    path = folder / "report.html"
    path.write_text(text, "utf-8")
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--no-first-run", f"--user-data-dir={folder / 'profile'}",
            "--enable-logging=stderr", "--window-size=1280,2400", "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


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
