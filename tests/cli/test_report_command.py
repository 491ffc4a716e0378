"""`edgeprune report`: one run's pages once more, or several runs on one page."""

import copy
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from commands import run
from matrix import representatives

SAMPLE = json.loads((Path(__file__).parents[1] / "report" / "sample_report.json").read_text("utf-8"))


def save(folder, **changes):
    """A run folder with the sample's report, changed."""
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({**copy.deepcopy(SAMPLE), **changes}))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two runs: the second has another pick, seed and recipe."""
    return save(tmp_path / "a"), save(tmp_path / "b", pick="int8", seed=7, recipe="int8")


class Table(HTMLParser):
    """The rows of all tables of a page, as lists of texts."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.inside = [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.inside = tag in ("td", "th") or (self.inside and tag in ("span", "code", "small"))

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data.strip()


def test_the_pages_of_one_run_are_written_again(tmp_path):
    """They are what a build writes, and the terminal says what the build said."""
    from edgeprune.report import write_views

    folder = save(tmp_path / "a")
    write_views(SAMPLE, tmp_path / "expected")
    done = run("report", "a", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "The pick is magnitude-int8" in " ".join(done.stdout.split())
    for name in ("report.html", "report.md", "summary.md"):
        assert (folder / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()


def test_one_run_as_json_is_its_report_and_writes_nothing(tmp_path):
    """Standard output is the document, and the folder is left as it was."""
    folder = save(tmp_path / "a")
    done = run("report", folder / "report.json", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == SAMPLE
    assert [path.name for path in folder.iterdir()] == ["report.json"]


def test_several_runs_become_one_page(runs, tmp_path):
    """A row for each pick with its figures and its change against the first; settings that differ; all variants."""
    done = run("report", *runs, "--out", "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text("utf-8")
    rows = Table(page).rows
    picks = {row[0]: row for row in rows if row and row[0] in ("a", "b")}
    assert picks["a"][1:5] == ["magnitude-int8", "82.74 %", "first", "95.4 kB"]
    assert picks["b"][1:4] == ["int8", "83.46 %", "+0.72 points"]
    assert ["seed", "0", "7"] in rows
    assert ["recipe", "magnitude-int8", "int8"] in rows
    assert not [row for row in rows if row[:1] == ["target"]]
    assert sum(len(row) == 10 and row[1] in ("a", "b") for row in rows) == 2 * len(SAMPLE["variants"])
    assert "best accuracy: b" in page
    assert "best accuracy: b" in done.stdout
    assert page.count("<svg") == 1  # nothing was estimated, so there is no plot of that
    assert not list(tmp_path.glob("runs.html"))


def test_several_runs_as_json(runs, tmp_path):
    """One document with all variants of all runs, and what differs; no page unless asked."""
    document = json.loads(run("report", *runs, "--json", cwd=tmp_path).stdout)
    assert [one["name"] for one in document["runs"]] == ["a", "b"]
    assert [one["pick"] for one in document["runs"]] == ["magnitude-int8", "int8"]
    assert document["runs"][1]["variants"][1]["metric"] == 0.8346
    assert document["differs"] == ["recipe", "seed"]
    assert not list(tmp_path.glob("*.html"))


def test_runs_of_other_metrics_are_not_compared_by_them(tmp_path):
    """Accuracy and an error are shown, each under its name, without a change, a plot or a winner."""
    metric = {"name": "mae", "higher_is_better": False, "points": 1.0}
    done = run("report", save(tmp_path / "a"), save(tmp_path / "b", metric=metric), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "runs.html").read_text("utf-8")
    rows = {row[0]: row for row in Table(page).rows if row and row[0] in ("a", "b")}
    assert rows["a"][2] == "82.74 %accuracy"
    assert rows["b"][2:4] == ["0.8274MAE", "–"]
    assert "<svg" not in page
    assert "best" not in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "a/report.json"], "a is given twice"),
        (["a", "missing"], "missing"),
        (["broken"], "not JSON"),
    ],
)
def test_what_is_no_run_is_one_message(words, message, tmp_path):
    """Exit code 2, and nothing is written."""
    save(tmp_path / "a")
    save(tmp_path / "broken")
    (tmp_path / "broken" / "report.json").write_text("{")
    done = run("report", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.rglob("*.html"))


def test_folders_of_one_name_are_told_apart_by_their_paths(tmp_path):
    """x/run and y/run are shown as given."""
    for name in "xy":
        save(tmp_path / name / "run")
    document = json.loads(run("report", "x/run", "y/run", "--json", cwd=tmp_path).stdout)
    assert [one["name"] for one in document["runs"]] == ["x/run", "y/run"]


@pytest.mark.parametrize("words", representatives([["a"], ["a", "b"]], ["a", "b"]))
def test_it_is_cheap(runs, words, tmp_path):
    """It succeeds where importing TensorFlow is an error."""
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['tf_keras'] = None; "
        f"sys.argv = ['edgeprune', 'report', *{words!r}]; from edgeprune.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_what_was_measured_on_other_samples_is_not_compared(tmp_path):
    """The same name of a metric on other test data: no change, no plot of both, and no run that is best in it."""
    data = {**SAMPLE["data"], "test": SAMPLE["data"]["test"] + 1, "source": "others"}
    save(tmp_path / "a"), save(tmp_path / "b", pick="int8", data=data)
    done = run("report", "a", "b", "--out", "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "best" not in said
    assert "What can be compared of the picks is the same." in said
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "not the same metric or test data" in page
    assert ["test samples", *(str(SAMPLE["data"]["test"] + more) for more in (0, 1))] in Table(page).rows
