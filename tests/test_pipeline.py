"""The loop over stages: what is finished is reused, what a change touches is run again, nothing else is."""

import contextlib
import dataclasses
import json

import pytest

from edgeprune.artifact import Artifact
from edgeprune.errors import DataError, OutputError
from edgeprune.pipeline import Run, Step, Unfinished, stage
from edgeprune.progress import Progress
from edgeprune.recipe.config import Config


class Number(Config):
    number: int = 1


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What the loop needs of a context."""

    inputs: dict
    folder: object = None
    progress: Progress = dataclasses.field(default_factory=Progress)
    versions: dict = dataclasses.field(default_factory=dict)

    def for_stage(self, folder, uses):
        return dataclasses.replace(self, folder=folder)


calls = []


def work(artifact, config, context):
    calls.append(context.folder.name)
    path = context.folder / "file.txt"
    path.write_text(f"{artifact.facts.get('sum', 0)} {config.number}")
    return artifact.with_({context.folder.name: path}, sum=artifact.facts.get("sum", 0) + config.number)


plain, seeded = stage()(work), stage("seed")(work)


def steps(a=1, b=1, c=1):
    return [
        Step("a", plain, Number(number=a)),
        Step("b", seeded, Number(number=b), after="a"),
        Step("c", plain, Number(number=c), after="a"),
    ]


def execute(folder, seed=0, **numbers):
    calls.clear()
    run = Run(folder)
    run.execute(steps(**numbers), Surroundings({"seed": seed}))
    return run


def test_a_second_run_reuses_everything_and_gives_the_same_artifacts(tmp_path):
    """Nothing is run twice, and the artifacts are equal."""
    first = execute(tmp_path)
    assert calls == ["a", "b", "c"]
    second = execute(tmp_path)
    assert calls == []
    assert second.artifacts == first.artifacts
    assert [record.reused for record in second.records] == [True] * 3


def test_a_change_runs_again_only_what_depends_on_it(tmp_path):
    """A config reaches its step and those after it; an input reaches the stages that declare it."""
    execute(tmp_path)
    execute(tmp_path, c=2)
    assert calls == ["c"]
    execute(tmp_path, c=2, seed=7)
    assert calls == ["b"]
    execute(tmp_path, a=5, c=2, seed=7)
    assert calls == ["a", "b", "c"]


@pytest.mark.parametrize("damage", ["changed", "missing", "half-written record", "no facts", "a list"])
def test_a_damaged_artifact_is_made_again(tmp_path, damage):
    """A file that was changed or lost since, or a record that is not whole, is never reused."""
    execute(tmp_path)
    file, record = tmp_path / "c" / "file.txt", tmp_path / "c" / "artifact.json"
    {
        "changed": lambda: file.write_text("x"),
        "missing": file.unlink,
        "half-written record": lambda: record.write_text("{"),
        "no facts": lambda: record.write_text(
            json.dumps({key: value for key, value in json.loads(record.read_text()).items() if key != "facts"})
        ),
        "a list": lambda: record.write_text("[]"),
    }[damage]()
    run = execute(tmp_path)
    assert calls == ["c"]
    assert run.artifacts["c"].files["c"].read_text() == "1 1"


def test_what_a_broken_off_stage_left_stays_only_for_the_same_key(tmp_path):
    """A stage finds its own half-done work again, never that of another setting."""

    def fragile(artifact, config, context):
        left = context.folder / "epoch"
        seen.append(left.exists())
        left.write_text("1")
        if len(seen) < 2 or (config.number == 2 and len(seen) < 3):
            raise KeyboardInterrupt
        return artifact

    seen = []
    broken = stage()(fragile)
    for number in (1, 1, 2):
        with contextlib.suppress(KeyboardInterrupt):
            Run(tmp_path).execute([Step("f", broken, Number(number=number))], Surroundings({}))
    assert seen == [False, True, False]


def test_a_stage_that_cannot_be_replaced_says_why(tmp_path, monkeypatch):
    """Not that something is in the way, which is what is left there."""
    execute(tmp_path)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path / "file.txt"))

    monkeypatch.setattr("edgeprune.pipeline.shutil.rmtree", refuse)
    with pytest.raises(OutputError, match="no permission"):
        execute(tmp_path, c=2)
    monkeypatch.undo()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="in the way"):
        Run(tmp_path).execute([dataclasses.replace(steps()[0], name="file")], Surroundings({"seed": 0}))


def test_an_error_says_which_stage_it_was(tmp_path):
    """The user reads where it happened, and that what was finished stays."""

    def failing(artifact, config, context):
        raise DataError("No.")

    with pytest.raises(DataError) as caught:
        Run(tmp_path).execute([*steps(), Step("d", stage()(failing), after="b")], Surroundings({"seed": 0}))
    assert "'d'" in caught.value.__notes__[0]
    assert json.loads((tmp_path / "b" / "artifact.json").read_text())["facts"] == {"sum": 2}


def test_a_run_folder_can_be_moved(tmp_path):
    """Records hold relative paths."""
    execute(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    run = execute(tmp_path / "new")
    assert calls == []
    assert all(path.is_file() for path in run.artifacts["b"].files.values())
    assert isinstance(run.artifacts["b"], Artifact)


def test_what_a_stage_found_before_its_error_is_shown_and_not_kept(tmp_path):
    """The error that ended it is raised with the stage's name; the next run starts the stage again."""

    def half_way(artifact, config, context):
        calls.append("half")
        raise Unfinished(artifact.with_(warnings=["so far"])) from DataError("Gone.")

    calls.clear()
    run = Run(tmp_path)
    for _ in range(2):
        with pytest.raises(DataError, match="Gone") as caught:
            run.execute([Step("half", stage()(half_way))], Surroundings({}))
        assert "'half'" in caught.value.__notes__[0]
        assert run.artifacts["half"].facts["warnings"] == ["so far"]
    assert calls == ["half", "half"]


def test_the_order_of_patterns_is_part_of_a_key(tmp_path):
    """The first pattern that matches counts, so the same rates in another order are another setting."""

    class Rates(Config):
        rates: dict[str, float]

    calls.clear()
    for rates in ({"conv*": 0.2, "*": 0.5}, {"conv*": 0.2, "*": 0.5}, {"*": 0.5, "conv*": 0.2}):
        step = Step(
            "r", stage()(lambda artifact, config, context: calls.append(config.rates) or artifact), Rates(rates=rates)
        )
        Run(tmp_path).execute([step], Surroundings({}))
    assert calls == [{"conv*": 0.2, "*": 0.5}, {"*": 0.5, "conv*": 0.2}]
