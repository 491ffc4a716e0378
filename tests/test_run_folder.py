"""Run folders: what a build or a search may replace there."""

import pytest
from commands import run

from edgeprune.errors import UsageError
from edgeprune.run_folder import check_folder, is_run_folder


def filled(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"edgeprune_version": "0.3.0"}' if path.suffix == ".json" else "mine")
    return folder


@pytest.mark.parametrize(
    "name",
    ["models/other.keras", "samples/cat/1.png", "micro/main.c", "variants/x.tflite", "recipe.toml", "net.tflite",
     "net-int8.tflite", "labels.txt", "report.html", "stages/notes.txt"],
)  # fmt: skip
def test_a_folder_with_the_users_files_where_a_build_writes_is_refused(name, tmp_path):
    """Nothing of them is lost: the message names them, and another folder is the way out."""
    with pytest.raises(UsageError, match="not from an earlier build") as caught:
        check_folder(filled(tmp_path, name), "net", {"model": tmp_path / "net.keras"})
    assert name.split("/")[0] in str(caught.value)
    assert "--out" in str(caught.value)


def test_a_folder_of_other_files_or_of_an_earlier_run_is_taken(tmp_path):
    """The working folder with model, data and recipe of other names; what a killed build or a search left."""
    check_folder(tmp_path / "new", "net", {"model": "net.keras"})
    filled(tmp_path, "net.keras", "data.npz", "mine.toml", "photos/cat/1.png", "other.tflite")
    check_folder(tmp_path, "net", {"model": tmp_path / "net.keras", "data": "demo", "recipe": None})
    check_folder(tmp_path, "net", {"model": object(), "data": {"x": 1}}, "search")
    for mark in ("stages/model/key.json", "report.json", "search.json", "search.journal"):
        folder = filled(tmp_path / mark.replace("/", "-"), mark, "models/net-filters.keras", "recipe.toml")
        assert is_run_folder(folder)
        check_folder(folder, "net", {"model": tmp_path / "net.keras", "recipe": folder / "recipe.toml"})


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("model", "models/net.keras"),
        ("model", "net.tflite"),
        ("data", "samples"),
        ("file of layer classes", "stages/a.py"),
    ],
)
def test_what_is_to_be_read_is_never_replaced(what, name, tmp_path):
    """Not in the folder of an earlier run either, where a build removes what it does not know."""
    filled(tmp_path, "report.json", "samples/1.png", "models/net.keras", "net.tflite", "stages/a.py")
    with pytest.raises(UsageError, match=f"The {what} .* lies in the run folder"):
        check_folder(tmp_path, "net", {what: tmp_path / name})


@pytest.mark.parametrize("content", ["mine", "[]", "3", '{"title": "Q3"}', "\0"])
def test_a_report_of_somebody_else_is_no_run(content, tmp_path):
    """It has the name, and is not replaced."""
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(UsageError, match=r"report\.json"):
        check_folder(tmp_path, "net", {})


def test_a_search_does_not_take_a_folder_with_a_best_of_its_users(tmp_path):
    """Its run folder of the pick would take that place."""
    with pytest.raises(UsageError, match=r"not from an earlier search.*best"):
        check_folder(filled(tmp_path, "best/models/net.keras"), "net", {}, "search")


def test_a_sensitivity_analysis_does_not_replace_a_recipe(tmp_path):
    """Neither one of the user's nor, without having said so, the one that it reads."""
    recipe = filled(tmp_path, "recipe.toml") / "recipe.toml"
    for inputs, words in [({"recipe": recipe}, "The recipe .* lies"), ({}, "not from an earlier sensitivity")]:
        with pytest.raises(UsageError, match=words):
            check_folder(tmp_path, "net", inputs, "sensitivity")
    filled(tmp_path, "points.jsonl")
    check_folder(tmp_path, "net", {}, "sensitivity")


def test_a_run_folder_among_the_data_is_refused(tmp_path):
    """Its pictures would be samples of a class; beside train/ and test/, nobody reads them."""
    data = filled(tmp_path, "whole/cat/1.png", "whole/dog/1.png", "parts/train/cat/1.png", "parts/test/cat/1.png")
    for where in ("whole", "whole/run", "whole/cat/run", "parts/train/run", "parts/valid/run", "parts"):
        with pytest.raises(UsageError, match="would be read as data"):
            check_folder(data / where, "net", {"data": tmp_path / where.split("/")[0]})
    check_folder(data / "parts/runs/one", "net", {"data": tmp_path / "parts"})
    check_folder(data / "whole/.runs", "net", {"data": tmp_path / "whole"})
    check_folder(data / "run", "net", {"data": tmp_path / "whole"})


@pytest.mark.parametrize("command", ["build", "search"])
def test_data_without_a_model_are_not_passed_over(command, tmp_path):
    """The demo has data of its own: whoever gave others forgot the model."""
    filled(tmp_path, "data.npz")
    done = run(command, "--data", "data.npz", "--target", "rpi4", "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "Data were given (data.npz), and no model" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()
