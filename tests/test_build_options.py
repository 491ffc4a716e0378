"""Options of a build that change what is checked or written besides."""

import json
import shutil
from pathlib import Path

import pytest
from commands import run

import edgeprune
from edgeprune.builder import _with_verify
from edgeprune.errors import OutputError, UsageError, VerificationError
from edgeprune.recipe.load import load_recipe


def test_verify_overrides_the_recipe():
    """The option decides where it is given, and the recipe where it is not."""
    recipes = (load_recipe("filters"), load_recipe("int8"))
    found = [_with_verify(recipes, given) for given in (None, True, False)]
    assert [one.filters.verify for one, _ in found] == [True, True, False]
    assert {other.filters for _, other in found} == {None}


def test_verify_without_filters_is_an_error(tmp_path):
    """A recipe that removes no filters has nothing to verify, and says so before anything is built."""
    with pytest.raises(UsageError, match="the recipe removes none"):
        edgeprune.build(recipe="float", verify=True, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_failing_export_leaves_the_report(tiny_model, tmp_path, monkeypatch):
    """If a model cannot be exported to Keras 3, the error comes when everything else is written."""

    def refuse(model, path):
        raise VerificationError("It differs.")

    monkeypatch.setattr("edgeprune.models.export.export_keras3", refuse)
    with pytest.raises(VerificationError, match="It differs") as caught:
        edgeprune.build(tiny_model, data="demo", recipe="float", out=tmp_path, export_keras3=True)
    assert "report" in caught.value.__notes__[0]
    assert json.loads((tmp_path / "report.json").read_text())["pick"]
    assert (tmp_path / "manifest.json").is_file()


@pytest.mark.slow  # test_action.py has such a build
def test_a_build_that_got_worse_than_an_earlier_one_ends_with_1(tiny_model, tmp_path):
    """The command says which figures, exits with 1 once all is written, and lists them for CI; within the tolerances it
    exits with 0. The earlier report may be the one that the build itself replaces."""
    tiny_model.save(tmp_path / "model.keras")
    command = ("build", "model.keras", "--target", "rpi4", "--data", "demo", "--recipe", "float", "--out", "run")
    assert run(*command, cwd=tmp_path).returncode == 0
    path = tmp_path / "run" / "report.json"
    earlier = json.loads(path.read_text())
    size = earlier["variants"][0]["bytes"]
    earlier["variants"][0]["bytes"] = int(size / 1.05)
    path.write_text(json.dumps(earlier))
    shutil.copy(path, tmp_path / "earlier.json")
    worse = run(*command, "--baseline", "run", "--junit", "ci/junit.xml", cwd=tmp_path)
    assert worse.returncode == 1
    assert "1 of 4 figures is worse" in worse.stdout
    assert "search" not in worse.stderr  # which is about gates
    row = next(row for row in json.loads(path.read_text())["regression"]["rows"] if not row["passed"])
    assert (row["figure"], row["after"]) == ("bytes", size)
    assert 'failures="1"' in (tmp_path / "ci" / "junit.xml").read_text()
    allowed = run(*command, "--baseline", "earlier.json", "--max-regression-size", "6%", cwd=tmp_path)
    assert allowed.returncode == 0, allowed.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--baseline", "missing.json"], "There is no report to read: missing.json"),
        (["--max-regression-latency", "5%"], "add --baseline"),
        (["--baseline", "x.json", "--max-regression-size", "100"], "write --max-regression-size 100%"),
        (["--baseline", "x.json", "--max-regression-latency", "-5%"], "--max-regression-latency -5% is not understood"),
    ],
)
def test_an_earlier_report_is_read_before_anything_is_built(words, message, tmp_path):
    """What is wrong with it, or with a tolerance, is one message with exit code 2."""
    done = run("build", "--target", "rpi4", "--out", "run", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_earlier_report_of_another_metric_ends_the_build_before_training(tiny_model, report_of, tmp_path):
    """Once the task is known, and before the model is pruned."""
    earlier = report_of("mae")
    with pytest.raises(UsageError, match="its metric is mae"):
        edgeprune.build(tiny_model, data="demo", recipe="int8", out=tmp_path / "run", baseline=earlier)
    assert not (tmp_path / "run" / "report.json").exists()


@pytest.fixture
def report_of(tmp_path):
    """Writes the sample report with another metric; returns its path."""

    def write(metric):
        report = json.loads((Path(__file__).parent / "report" / "sample_report.json").read_text())
        path = tmp_path / "earlier.json"
        path.write_text(json.dumps({**report, "metric": {"name": metric, "higher_is_better": False}}))
        return path

    return write


@pytest.mark.parametrize("place", ["there", "file/junit.xml"])
def test_an_xml_file_that_cannot_be_written_is_told_before_anything_is_built(place, tmp_path):
    """A folder of its name, or a file in the place of its folder; the message names the option."""
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write") as raised:
        edgeprune.build(recipe="float", target="rpi4", junit=tmp_path / place, out=tmp_path / "run")
    assert "--junit" in raised.value.fix
    assert not (tmp_path / "run").exists()
