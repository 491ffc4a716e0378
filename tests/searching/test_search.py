"""Whole searches of a tiny model, in this process."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import follows_schema

import edgeprune
from edgeprune.cli.build import _can_search, _search
from edgeprune.errors import ConversionError, EdgepruneError, OutputError, UsageError
from edgeprune.progress import Progress
from edgeprune.recipe.load import load_recipe, parse_recipe
from edgeprune.searching import search, trials
from edgeprune.searching.executors import InProcess
from edgeprune.searching.goal import beats
from edgeprune.searching.ladder import epochs_of
from edgeprune.searching.study import Study
from edgeprune.selection import Limits

RECIPE = {
    "extends": "int8",
    "filters": {"max_macs": 0.5, "criterion": "taylor", "samples": 64, "verify": False},
    # Nothing here is about repairs, nor about how int8 files come to their weights and ranges: the quickest way.
    "reconstruct": {"samples": 64, "match": "layers"},
    "quantize": {"rounding": "nearest"},
    "calibration": {"samples": 16, "range": "minmax"},
    "search": {
        "filters": {"max_macs": {"choices": [0.02, 0.4, 0.6, 0.8]}},
        "finetune": {"epochs": {"choices": [0, 2]}},
    },
}
TRIALS = 5


class Notes(Progress):
    def __init__(self):
        self.texts = []

    def note(self, text):
        self.texts.append(text)


@pytest.fixture(scope="module", autouse=True)
def weighed_once():
    """What filters can leave of a latency follows from model and target: searches of one model convert it once."""
    known, least = {}, trials._least_latency

    def remembered(model, target):
        key = target.name, model.to_json(), *(weight.tobytes() for weight in model.get_weights())
        if key not in known:
            known[key] = least(model, target)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "_least_latency", remembered)
        yield


@pytest.fixture(scope="module")
def given(tiny_model, tiny_data):
    """The model and few of the digits, in memory."""
    sizes = {"train": 192, "validation": 96, "test": 96}
    parts = {}
    for name, size in sizes.items():
        x, y, *_ = next(iter(getattr(tiny_data, name).batches(size)))
        parts[name] = (np.asarray(x), np.asarray(y))
    recipe = parse_recipe({**RECIPE, "task": {"kind": "classification"}}, "tiny")
    return {"model": tiny_model, "data": parts, "recipe": recipe, "target": "rpi4", "limits": Limits(max_drop=90)}


@pytest.fixture(scope="module")
def done(given, tmp_path_factory):
    """A finished search: its result, its folder, the trials that were called back, and what was said."""
    folder, called, notes = tmp_path_factory.mktemp("search") / "out", [], Notes()
    result = edgeprune.search(**given, trials=TRIALS, out=folder, callback=called.append, progress=notes)
    return result, folder, called, notes.texts


def document(folder):
    """search.json, which follows its schema."""
    found = json.loads((folder / "search.json").read_text())
    follows_schema(["search"], found)
    return found


def stages(folder, name):
    return sorted(path.name for path in (folder / "stages").glob(f"{name}-*"))


def test_the_front_is_what_no_file_of_any_trial_beats(done):
    """Its files were measured on test data; the pick keeps the goal."""
    result, folder, _, _ = done
    (target,) = document(folder)["targets"]
    files = {
        (trial["number"], rung): made["figures"]
        for trial in target["trials"]
        if trial["state"] != "repeated"
        for rung, made in trial["rungs"].items()
    }
    costs = {key: (one["drop"], one["latency_ms"], one["bytes"]) for key, one in files.items()}
    best = {key for key in costs if not any(beats(other, costs[key]) for other in costs.values())}
    front = {(trial.number, trial.rung) for trial in result.front.trials}
    assert front - {(result.front.best.number, result.front.best.rung)} <= best
    assert {costs[key] for key in best} <= {costs[key] for key in front}
    assert all(trial.test_value is not None for trial in result.front.trials)
    assert result.met
    assert result.front.met
    assert "The goal is met" in result.front.message


def test_test_data_are_read_for_the_front_only(done):
    """Every file was judged on validation; as many were tested as the front has, and the two unpruned ones."""
    result, folder, _, _ = done
    assert len(stages(folder, "evaluate")) == len(result.front.trials) + 2
    assert len(stages(folder, "validate")) > len(stages(folder, "evaluate"))


def test_trials_share_what_they_have_in_common(done):
    """One model, one baseline, one unpruned file, one set of scores for each criterion, one choice of filters for each
    budget, whatever is trained after."""
    _, folder, _, _ = done
    for name in ("load", "baseline"):
        assert len(stages(folder, name)) == 1
    (target,) = document(folder)["targets"]
    budgets = {trial["params"]["filters.max_macs"] for trial in target["trials"]}
    assert len(stages(folder, "scores")) == 1 < len(budgets)
    assert len(stages(folder, "filters")) == len(budgets)
    ran = [
        (one["name"], trial["number"])
        for trial in target["trials"]
        for made in trial["rungs"].values()
        for one in made["stages"]
        if not one["reused"] and one["name"] == "filters.remove1"
    ]
    assert len(ran) <= len(budgets)


def test_trials_climb_from_no_training_to_all_of_it(done):
    """A trial with epochs has a file of its cheapest rung; one without has no other."""
    _, folder, _, _ = done
    (target,) = document(folder)["targets"]
    for trial in target["trials"]:
        if trial["state"] == "failed":
            assert "cannot be reached" in trial["reason"]
            assert not trial["rungs"]
        elif trial["state"] == "repeated":
            assert not trial["rungs"]
        elif trial["params"]["finetune.epochs"]:
            assert next(iter(trial["rungs"])) == "reconstructed"
        else:
            assert list(trial["rungs"]) == ["full"]
    assert {trial["state"] for trial in target["trials"]} >= {"complete", "failed"}


def test_every_trial_that_ended_well_is_called_back_and_progress_is_said(done):
    """With the best under the goal, and how many are done."""
    _, folder, called, texts = done
    (target,) = document(folder)["targets"]
    ended = [trial["number"] for trial in target["trials"] if trial["state"] in ("complete", "stopped")]
    assert [trial.number for trial in called] == ended
    assert any(f"of {TRIALS} trials done" in text and "best: trial" in text and "left" in text for text in texts)


def test_the_log_of_the_guide_writes_every_trial_with_mlflow(done, tmp_path, monkeypatch):
    """The code of docs/search.md, with MLflow's own client and its folder, over the trials that were called back."""
    mlflow = pytest.importorskip("mlflow")
    _, _, called, _ = done
    guide = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "import mlflow" in block]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "")  # the guide sets it
    names = {}
    exec(code, names)
    for trial in called:
        names["log"](trial)
    runs = mlflow.search_runs(experiment_names=["model-search"], output_format="list")
    logged = {run.info.run_name: run for run in runs}
    assert logged.keys() == {f"rpi4-{trial.number}" for trial in called}
    for trial in called:
        run = logged[f"rpi4-{trial.number}"]
        assert run.data.metrics["value"] == trial.value
        assert run.data.metrics["bytes"] == trial.bytes
        assert run.data.params["rung"] == trial.rung
        assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/recipe.toml") == trial.recipe.to_toml()


def test_the_pick_is_a_run_folder_whose_recipe_builds(done):
    """With report, recipe and files; the recipe no longer says what may vary."""
    result, folder, _, _ = done
    best = folder / "best"
    assert result.front.folder == best
    report = json.loads((best / "report.json").read_text())
    (picked,) = [variant for variant in report["variants"] if variant["name"] == report["pick"]]
    assert picked == report["variants"][-1]
    assert picked["metric"]["value"] == pytest.approx(result.front.best.test_value)
    assert (best / "tiny.tflite").read_bytes() == (best / picked["file"]).read_bytes()
    assert {path.name for path in best.iterdir()} >= {"report.html", "recipe.toml", "manifest.json", "tiny.tflite"}
    recipe = load_recipe(best / "recipe.toml")
    assert recipe.search == {}
    assert recipe.filters.max_macs == result.front.best.recipe.filters.max_macs


def test_the_table_has_a_row_per_file_and_the_page_shows_each(done):
    """trials.csv and report.html say the same as search.json; the page has no scripts, and loads nothing."""
    _, folder, _, _ = done
    (target,) = document(folder)["targets"]
    rows = list(csv.DictReader((folder / "trials.csv").open()))
    assert len(rows) == sum(max(1, len(trial["rungs"])) for trial in target["trials"])
    assert sum(int(row["front"]) for row in rows) == len(target["front"])
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == page.count("<svg viewBox=") >= 2  # what has no box of its own is cut off
    assert "<script" not in page
    assert "default-src 'none'" in page
    for trial in target["trials"]:
        for rung in trial["rungs"] if trial["state"] != "repeated" else ():
            # the point, its line, its row, and the rules that light them up
            assert page.count(f"t0-{trial['number']}-{rung.replace(' ', '-')}") >= 5
        if trial["state"] == "failed":
            assert trial["reason"].split(":")[0] in page


def test_what_a_build_says_of_the_model_and_the_data_a_search_says_too(given, tmp_path, monkeypatch):
    """Samples that two splits share; a model that has learned nothing with such inputs; also when started again."""
    failing(monkeypatch, ConversionError("Enough is known."))
    data = {name: (255 * x, y) for name, (x, y) in given["data"].items()}
    data["test"] = data["validation"]
    for _ in range(2):
        notes = Notes()
        with pytest.raises(EdgepruneError, match="Enough is known"):
            edgeprune.search(**{**given, "data": data}, trials=1, out=tmp_path / "out", progress=notes)
        said = " ".join(notes.texts)
        assert "96 of 96 test samples have the same inputs as a validation sample" in said
        assert "The model expects pixels of -1..1" in said
        assert len(set(notes.texts)) == len(notes.texts)


def test_a_model_or_data_that_changed_in_memory_are_opened_anew(given, tmp_path, monkeypatch):
    """In a notebook, where the same objects, or others of the same names, are searched in the same folder again."""
    failing(monkeypatch, ConversionError("Enough is known."))
    x, y = given["data"]["train"]
    data = {**given["data"], "train": (x.copy(), y)}

    def reference(data):
        with pytest.raises(EdgepruneError, match="Enough is known"):
            edgeprune.search(**{**given, "data": data}, trials=1, out=tmp_path / "out")
        return document(tmp_path / "out")["targets"][0]["reference"]["value"]

    first = reference(data)
    assert reference({**data, "validation": tuple(part[:48] for part in data["validation"])}) != first
    weights = given["model"].get_weights()
    try:
        given["model"].set_weights([0 * weight for weight in weights])
        assert reference(data) < first
    finally:
        given["model"].set_weights(weights)
    assert reference(data) == first


@pytest.mark.slow  # one that was killed: test_search_killed.py
def test_a_search_goes_on_and_runs_no_finished_stage_again(given, done, tmp_path):
    """More trials in the same folder: the earlier ones stay as they are, and so does every finished stage."""
    _, folder, _, _ = done
    shutil.copytree(folder, tmp_path / "out")
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/stages").glob("*/artifact.json")}
    before = document(folder)["targets"][0]["trials"]
    edgeprune.search(**given, trials=TRIALS + 1, out=tmp_path / "out")
    after = document(tmp_path / "out")["targets"][0]["trials"]
    assert after[: len(before)] == before
    assert len(after) > len(before)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_an_interrupted_search_leaves_the_front_so_far(given, done, tmp_path):
    """Without having read test data; the same call goes on."""
    _, folder, _, _ = done
    shutil.copytree(folder, tmp_path / "out")
    (tmp_path / "out/search.json").unlink()

    def interrupt(trial):
        raise KeyboardInterrupt

    changed = {**given, "limits": Limits(max_drop=80)}  # another goal: trials begin anew, and stages are there
    with pytest.raises(KeyboardInterrupt):
        edgeprune.search(**changed, trials=TRIALS, out=tmp_path / "out", callback=interrupt)
    (target,) = document(tmp_path / "out")["targets"]
    assert [file["test"] for file in target["front"]] == [None] * len(target["front"])
    assert target["front"]
    result = edgeprune.search(**changed, trials=2, out=tmp_path / "out")
    assert result.front.best.test_value is not None


@pytest.mark.slow  # the message is in test_goal.py
def test_a_goal_that_nothing_meets_names_the_limit_and_the_distance(given, done, tmp_path):
    """The nearest file is handed over all the same."""
    _, folder, _, _ = done
    shutil.copytree(folder, tmp_path / "out")
    result = edgeprune.search(**{**given, "limits": Limits(max_drop=90, max_size=100)}, trials=2, out=tmp_path / "out")
    assert not result.met
    assert "max_size is missed by" in result.front.message
    assert "at most 100 bytes" in result.front.message
    assert (tmp_path / "out/best/report.json").is_file()


@pytest.fixture(scope="module")
def on_two_boards(given, done, tmp_path_factory):
    """A search for a board with coefficients of latency and for an accelerator that its compiler times: what it found,
    and its folder. It goes on from what ``done`` left."""
    pytest.importorskip("ethosu.vela")
    folder = tmp_path_factory.mktemp("boards") / "out"
    shutil.copytree(done[1], folder)
    changed = {**given, "target": ["rpi4", "ethos-u55-128"], "limits": Limits(max_drop=90, max_latency=1.0)}
    return edgeprune.search(**changed, trials=1, out=folder), folder


def test_several_targets_have_fronts_of_their_own(on_two_boards):
    """They share what does not depend on a target."""
    result, folder = on_two_boards
    assert list(result.fronts) == ["rpi4", "ethos-u55-128"]
    assert [front.target for front in result.fronts.values()] == ["rpi4", "ethos-u55-128"]
    assert all((folder / "best" / name / "report.json").is_file() for name in result.fronts)
    assert len(stages(folder, "baseline")) == 1


def test_latency_is_what_the_compiler_says_where_a_target_has_no_coefficients(on_two_boards):
    """Arm's compiler times the files of trials for an Ethos-U, and the goal is judged by that."""
    result, folder = on_two_boards
    report = json.loads((folder / "best/ethos-u55-128/report.json").read_text())
    compiled = next(v["compiled"] for v in report["variants"] if v["name"] == report["pick"])
    front = result.fronts["ethos-u55-128"]
    assert front.met
    assert front.best.latency_ms == pytest.approx(compiled["performance"]["inference_ms"])


def test_what_cannot_be_searched_is_said_before_anything_runs(given, tmp_path):
    """Several processes with data in memory; no data; targets twice."""
    for changes, words in [
        ({"jobs": 2}, "in files"),
        ({"data": None}, "No data"),
        ({"target": ["rpi4", "rpi4"]}, "each once"),
        ({"trials": 0}, "at least 1"),
        ({"objectives": "speed"}, "no objective"),
        ({"objectives": "accuracy,latency", "target": ["rpi4", "cortex-m4"]}, "cortex-m4 has no coefficients"),
        ({"objectives": "accuracy,flash", "target": ["cortex-m4", "rpi4"]}, "rpi4 is none"),
        ({"limits": Limits(max_latency=5), "target": "cortex-m4"}, "cortex-m4 has no coefficients"),
        ({"recipe": parse_recipe({"finetune": {"strategy": "multiworker"}}, "mine")}, "shares its trials"),
    ]:
        with pytest.raises(UsageError, match=words):
            edgeprune.search(**{**given, **changes}, out=tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_limits_that_choose_the_same_channels_are_trained_once(given, tmp_path):
    """The second of two trials ends where its file is the first one's, and says so."""
    recipe = parse_recipe(
        {**RECIPE, "search": {"filters": {"max_macs": {"choices": [0.6, 0.601]}}}, "finetune": {"epochs": 2}}, "near"
    )
    ended = []
    edgeprune.search(**{**given, "recipe": recipe}, trials=2, out=tmp_path / "out", callback=ended.append)
    assert [trial.rung for trial in ended] == ["full", "reconstructed"]
    document = json.loads((tmp_path / "out" / "search.json").read_text())
    (first, second) = (trial for trial in document["targets"][0]["trials"] if trial["state"] != "repeated")
    assert (first["state"], second["state"]) == ("complete", "stopped")
    assert second["reason"] == "its limits choose the same channels as those of trial 0"


@pytest.mark.slow  # what waits and what goes on is in test_ladder.py and test_study.py
def test_a_training_that_would_not_end_in_time_waits_for_the_next_start(given, tmp_path, monkeypatch):
    """It is said; starts that are all shorter than a training get through it."""
    recipe = parse_recipe(
        {**RECIPE, "search": {"filters": {"max_macs": {"choices": [0.6]}}}, "finetune": {"epochs": 2}}, "one"
    )
    changed, notes = {**given, "recipe": recipe, "timeout": "10m", "trials": 1}, Notes()
    monkeypatch.setattr(Study, "expected", lambda self, recipe: 1e6 if epochs_of(recipe) else None)
    edgeprune.search(**changed, out=tmp_path / "out", progress=notes)
    (trial,) = document(tmp_path / "out")["targets"][0]["trials"]
    assert (trial["state"], list(trial["rungs"])) == ("running", ["reconstructed"])
    assert sum("whose training would not end in time" in text for text in notes.texts) == 1
    edgeprune.search(**changed, out=tmp_path / "out")
    (trial,) = document(tmp_path / "out")["targets"][0]["trials"]
    assert (trial["state"], list(trial["rungs"])) == ("complete", ["reconstructed", "full"])


def test_trials_that_all_fail_end_the_search(given, tmp_path):
    """With the reason, and not after hours."""
    recipe = parse_recipe(
        {**RECIPE, "search": {"filters": {"max_macs": {"low": 0.001, "high": 0.01}}}, "finetune": {"epochs": 0}}, "bad"
    )
    with pytest.raises(EdgepruneError, match=r"The first 10 trials failed.*cannot be reached"):
        edgeprune.search(**{**given, "recipe": recipe}, trials=20, out=tmp_path / "out")


def test_a_search_without_a_good_trial_says_why_also_when_started_again(given, tmp_path):
    """The second start runs nothing, and more time would not help: it says what the trials said."""
    recipe = parse_recipe({**RECIPE, "search": {"filters": {"max_macs": {"choices": [0.001]}}}}, "bad")
    for _ in range(2):
        with pytest.raises(EdgepruneError, match=r"the last of 1 failed with.*cannot be reached") as caught:
            edgeprune.search(**{**given, "recipe": recipe}, trials=1, out=tmp_path / "out")
        assert "--trials" in str(caught.value)
        assert "timeout" not in str(caught.value)


def failing(monkeypatch, error, when=lambda target, recipe: True):
    """Trials fail where ``when`` says so, and not what they are compared with; returns the recipes of those."""
    made, failed = trials.build_rung, []

    def build_rung(setup, target, recipe):
        if recipe["name"] != "reference" and when(target, recipe):
            failed.append(recipe)
            raise error
        return made(setup, target, recipe)

    monkeypatch.setattr(trials, "build_rung", build_rung)
    return failed


ENDLESS = {**RECIPE, "search": {"filters": {"max_macs": {"low": 0.4, "high": 0.9}}}, "finetune": {"epochs": 0}}


@pytest.mark.parametrize("jobs", [1, 2])
def test_trials_that_all_fail_end_a_search_with_several_at_a_time_and_when_started_again(
    jobs, given, done, tmp_path, monkeypatch
):
    """Another start tries one: what was wrong may have been mended. Each recipe is tried once."""
    shutil.copytree(done[1] / "stages", tmp_path / "out" / "stages")

    class Several(InProcess):
        def __init__(self):
            self.jobs, self._waiting = jobs, []

        def submit(self, job):
            self._waiting.append(job)

        def next(self, timeout_s=None):
            self._job = self._waiting.pop(0)
            return super().next()

    monkeypatch.setattr(search, "InProcess", Several)
    failed = failing(monkeypatch, ConversionError("It cannot be made."))
    for most in (10 + jobs - 1, 10 + 2 * jobs - 1):
        with pytest.raises(EdgepruneError, match=r"The first \d+ trials failed, the last one with: It cannot be made"):
            edgeprune.search(**{**given, "recipe": parse_recipe(ENDLESS, "bad")}, trials=40, out=tmp_path / "out")
        assert 10 <= len(failed) <= most
    (target,) = document(tmp_path / "out")["targets"]
    assert len(target["trials"]) == len(failed)


def test_what_was_found_for_one_target_is_written_where_another_has_nothing(given, done, tmp_path, monkeypatch):
    """The trials of the second all fail: the front of the first is measured, and its pick is there."""
    shutil.copytree(done[1] / "stages", tmp_path / "out" / "stages")
    failing(monkeypatch, ConversionError("It cannot be made."), lambda target, recipe: target == "pixel3")
    monkeypatch.setattr(search, "HOPELESS", 2)
    asked = {**given, "recipe": parse_recipe(ENDLESS, "endless"), "target": ["pixel3", "rpi4"]}
    with pytest.raises(EdgepruneError, match=r"The first 2 trials for pixel3 failed.*It cannot be made") as caught:
        edgeprune.search(**asked, trials=3, out=tmp_path / "out")
    assert str(tmp_path / "out") in caught.value.__notes__[0]
    without, found = document(tmp_path / "out")["targets"]
    assert (without["best"], without["front"], len(without["trials"])) == (None, [], 2)
    assert len(found["trials"]) == 3
    assert all(file["test"] for file in found["front"])
    assert (tmp_path / "out/best/rpi4/report.json").is_file()


def test_a_full_disk_ends_no_trial(given, done, tmp_path, monkeypatch):
    """It ends the search, which goes on with that trial once there is space; what was found until then is written."""
    shutil.copytree(done[1], tmp_path / "out")
    (tmp_path / "out/search.json").unlink()
    changed = {**given, "limits": Limits(max_drop=70)}
    with monkeypatch.context() as patch:
        full = failing(patch, OutputError("There is no space left."), lambda *_: len(called) == 1)
        called = []
        with pytest.raises(OutputError, match="no space"):
            edgeprune.search(**changed, trials=3, out=tmp_path / "out", callback=called.append)
    assert len(full) == 1
    (target,) = document(tmp_path / "out")["targets"]
    assert target["front"]
    assert target["trials"][-1]["state"] == "running"
    edgeprune.search(**changed, trials=3, out=tmp_path / "out")
    (target,) = document(tmp_path / "out")["targets"]
    assert all("space" not in trial["reason"] for trial in target["trials"])


def test_a_trial_in_a_format_of_weights_alone_is_that_file(given, tmp_path):
    """Its figures, and the file that is handed over, are of the format that its recipe names; a search that starts
    again in the folder with another goal says that trials begin anew."""
    pytest.importorskip("ai_edge_quantizer")
    modes = {"search": {"quantize": {"modes": {"choices": ["int8-weights"]}}}, "finetune": {"epochs": 0}}
    quick = {"quantize": {"rounding": "nearest"}, "task": {"kind": "classification"}}
    asked = {**given, "recipe": parse_recipe({**quick, **modes}, "formats")}
    edgeprune.search(**asked, trials=1, out=tmp_path / "out")
    (target,) = document(tmp_path / "out")["targets"]
    assert target["front"][0]["bytes"] < 0.6 * target["reference"]["bytes"]
    assert (tmp_path / "out/best/tiny.tflite").stat().st_size == target["front"][0]["bytes"]
    assert load_recipe(tmp_path / "out/best/recipe.toml").quantize.modes == ("int8-weights",)
    notes = Notes()
    edgeprune.search(**{**asked, "limits": Limits(max_drop=80)}, trials=1, out=tmp_path / "out", progress=notes)
    assert any("trials begin anew" in text for text in notes.texts)


def test_a_callback_that_raises_leaves_the_front_so_far(given, done, tmp_path):
    """Its error is the user's own, and reaches them as it is."""
    shutil.copytree(done[1], tmp_path / "out")
    (tmp_path / "out/search.json").unlink()

    def broken(trial):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        edgeprune.search(**{**given, "limits": Limits(max_drop=60)}, trials=3, out=tmp_path / "out", callback=broken)
    assert document(tmp_path / "out")["targets"][0]["front"]


@pytest.mark.slow
def test_a_file_whose_latency_is_not_known_ends_its_trial_with_the_reason(given, tmp_path):
    """A loop in the file: the others go on, and one of them is the pick."""
    import tf_keras

    inputs = tf_keras.Input([16, 16, 1])
    x = tf_keras.layers.GRU(8)(tf_keras.layers.Reshape([4, 64])(inputs))
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(10, activation="softmax")(x))
    searched = {"search": {"quantize": {"modes": {"choices": ["dynamic", "int8"]}}}, "finetune": {"epochs": 0}}
    quick = {"calibration": {"samples": 16, "range": "minmax"}, "quantize": {"rounding": "nearest"}}
    recipe = parse_recipe({"task": {"kind": "classification"}, **quick, **searched}, "formats")
    result = edgeprune.search(**{**given, "model": model, "recipe": recipe}, trials=2, out=tmp_path / "out")
    trials = json.loads((tmp_path / "out/search.json").read_text())["targets"][0]["trials"]
    failed = [trial for trial in trials if trial["state"] == "failed"]
    assert failed
    assert all("loop (WHILE)" in trial["reason"] for trial in failed)
    assert result.front.best.recipe.quantize.modes == ("int8",)


def test_a_build_that_misses_its_gates_names_the_search():
    """With the same model, data, recipe and gates."""
    options = {"data": "my data", "seed": 3, "trust_model": True, "custom_objects": None, "input_shape": [(8, 8, 1)]}
    words = _search("m.keras", ("rpi4",), ("int8",), Limits(max_drop="1", max_latency=5.0), options)
    assert words == (
        "edgeprune search m.keras --target rpi4 --data 'my data' --max-drop 1 --max-latency 5.0 --seed 3 --recipe int8 "
        "--input-shape 8,8,1 --trust-model"
    )
    plain = {"data": None, "seed": 0, "trust_model": False, "custom_objects": None, "input_shape": None}
    assert _search(None, ("rpi4",), None, Limits(max_size=9), plain) == "edgeprune search --target rpi4 --max-size 9"
    named = {**plain, "input_shape": {"left": (4,), "right": (2, 3)}}
    words = _search("m.keras", ("rpi4",), None, Limits(), named)
    assert words == "edgeprune search m.keras --target rpi4 --input-shape left=4 --input-shape right=2,3"


def test_a_gate_that_a_search_would_refuse_names_no_search():
    """A latency that was measured on this machine, for a board of which nothing is known."""
    assert _can_search(("rpi4",), Limits(max_latency=5))
    assert _can_search(("cortex-m4",), Limits(max_drop=1))
    assert not _can_search(("rpi4", "cortex-m4"), Limits(max_latency=5))
