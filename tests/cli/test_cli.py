"""The command line: bad input is one message and an exit code; cheap commands stay cheap."""

import json
import subprocess
import sys

import pytest
from commands import run

from edgeprune.cli import main


def edgeprune(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "edgeprune", *arguments], capture_output=True, text=True, cwd=cwd, timeout=120
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["targets", "list"], ["targets", "show", "rpi4"], ["doctor"], ["build", "--help"]]
)
def test_cheap_commands_do_not_import_tensorflow(arguments):
    """They succeed where importing TensorFlow is an error."""
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['tf_keras'] = None; "
        f"sys.argv = ['edgeprune', *{arguments!r}]; from edgeprune.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build", "--target", "rpi5000"], ["rpi5000", "rpi4"]),
        (["build"], ["--target"]),
        (["build", "missing.keras", "--target", "rpi4", "--data", "demo"], ["missing.keras"]),
        (["build", "model.keras", "--target", "rpi4"], ["--data"]),
        (["build", "--target", "rpi4", "--recipe", "int9"], ["int9", "int8"]),
        (["build", "--target", "rpi4", "--oops"], ["--oops"]),
        (["build", "--target", "rpi4", "--max-drop", "much"], ["'much'", "5%"]),
        (["build", "--target", "rpi4", "--max-drop", "-1"], ["'-1'", "5%"]),
        (["profile", "missing.tflite", "--target", "rpi4"], ["missing.tflite"]),
        (["frobnicate"], ["frobnicate"]),
    ],
)
def test_wrong_usage_is_exit_code_2_and_one_message(arguments, words, tmp_path):
    """The message names what was wrong; there is no traceback and nothing is left behind but the run folder."""
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr


def test_a_process_ends_as_the_command_does(tmp_path):
    """Exit code and message of the command are those of the process."""
    done = edgeprune("build", "--target", "rpi5000", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "rpi5000" in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(tmp_path):
    """Whoever wants it gets it, before or after the command."""
    done = edgeprune("targets", "show", "rpi5000", "--debug", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build", "--target", "rpi4"], "Finished stages and training epochs"),
        (["--debug", "bench", "a.tflite"], "rows in the table"),
        (["targets", "list"], "Interrupted.\n"),
    ],
)
def test_ctrl_c_tells_what_is_kept(words, said, monkeypatch, capsys):
    """An interrupted command ends with 130, and says what is left of its own work, not of another's."""

    def interrupted(**options):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["edgeprune", *words])
    monkeypatch.setattr("edgeprune.cli.edgeprune.main", interrupted)
    with pytest.raises(SystemExit, match="130"):
        main()
    assert said in capsys.readouterr().err


def test_init_names_the_schema_of_recipes(tmp_path):
    """The first line leads editors to the schema that is installed, and the file is a recipe all the same."""
    from edgeprune.recipe.load import load_recipe
    from edgeprune.schemas import schema_path

    assert run("init", cwd=tmp_path).returncode == 0
    path = tmp_path / "edgeprune.toml"
    directive, uri = path.read_text().splitlines()[0].split(" ", 1)
    assert directive == "#:schema"
    assert uri == schema_path("recipe").as_uri()
    assert schema_path("recipe").is_file()
    assert load_recipe(path).weights is not None


def test_init_writes_a_recipe_once(tmp_path):
    """A file that is there is not replaced without --force."""
    assert run("init", cwd=tmp_path).returncode == 0
    (tmp_path / "edgeprune.toml").write_text("mine")
    done = run("init", cwd=tmp_path)
    assert done.returncode == 2
    assert (tmp_path / "edgeprune.toml").read_text() == "mine"
    assert run("init", "--force", cwd=tmp_path).returncode == 0


def test_an_output_folder_that_cannot_be_made_is_one_message(tmp_path):
    """A file in the way of --out is exit code 3 with what to do."""
    (tmp_path / "file").write_text("")
    done = run("build", "--target", "rpi4", "--out", "file/run", cwd=tmp_path)
    assert done.returncode == 3
    assert "--out" in done.stderr
    assert "Traceback" not in done.stderr


def test_targets_as_json():
    """`targets list` and `targets show` print one JSON document: every name and alias, and every fact of a board."""
    from edgeprune.target import load_target, target_names

    def document(*arguments):
        return json.loads(run("targets", *arguments, "--json").stdout)

    listed = {entry["name"]: entry for entry in document("list")}
    assert sorted(listed) == target_names()
    assert "coral" in listed["coral-usb"]["aliases"]
    assert document("show", "coral") == json.loads(load_target("coral-usb").model_dump_json(exclude_none=True))
