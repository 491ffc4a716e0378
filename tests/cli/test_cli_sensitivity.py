"""``edgeprune sensitivity`` as users start it: results, one JSON document, a kill in the middle, wrong usage."""

import json
import signal
import subprocess
import sys
import time

import pytest
from commands import run

from edgeprune.recipe.load import load_recipe

RATES = "0.2,0.4,0.6,0.8"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Wide enough for a pass to take a while, so that an interruption finds something left to do."""
    import tf_keras

    folder, layers = tmp_path_factory.mktemp("sensitivity"), tf_keras.layers
    x = inputs = layers.Input([16, 16, 1])
    for number in range(4):
        x = layers.Conv2D(96, 3, padding="same", activation="relu", name=f"conv2d_{number}")(x)
    outputs = layers.Dense(10, activation="softmax", name="dense")(layers.GlobalAveragePooling2D()(x))
    tf_keras.Model(inputs, outputs, name="tiny").save(folder / "tiny.keras")
    (folder / "edgeprune.toml").write_text("[data]\nscale = 0.00392156862745098\n")
    return folder / "tiny.keras"


def _words(model, out, *more):
    words = ["sensitivity", str(model), "--data", "demo", "--criterion", "l2"]
    return [*words, "--rates", RATES, "--samples", "100", "--out", str(out), *more]


def _run(model, out, *more):
    return run(*_words(model, out, *more), cwd=model.parent)


@pytest.fixture(scope="module")
def done(model):
    """The folder of a run that was interrupted once, and what that process and a second command said."""
    out = model.parent / "run"
    command = [sys.executable, "-m", "edgeprune", *_words(model, out)]
    with subprocess.Popen(
        command, cwd=model.parent, stderr=subprocess.PIPE, text=True, preexec_fn=_hears_interrupts
    ) as process:
        deadline = time.monotonic() + 200
        while _lines(out) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=100)
        code = process.returncode
    kept = (out / "points.jsonl").read_bytes()
    return out, code, said, kept, _run(model, out, "--json")


def _hears_interrupts():
    """A shell starts what runs in the background deaf to Ctrl-C, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _lines(out):
    path = out / "points.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def test_an_interrupted_run_loses_nothing(done):
    """Ctrl-C is exit code 130 with one message; the next run keeps every point and measures the others only."""
    out, code, said, kept, second = done
    assert code == 130, said
    assert "Traceback" not in said
    assert "goes on from there" in said
    assert second.returncode == 0, second.stderr
    assert (out / "points.jsonl").read_bytes().startswith(kept)


def test_standard_output_is_one_document(done):
    """--json prints sensitivity.json; every group has its points, drops agree with the metric, frozen ones say why."""
    out, *_, second = done
    document = json.loads(second.stdout)
    assert document == json.loads((out / "sensitivity.json").read_text())
    baseline = document["baseline"]["metric"]
    assert document["data"]["split"] == "validation"
    for group in document["groups"]:
        assert bool(group["frozen"]) == (not group["points"])
        for point in group["points"]:
            assert point["drop_points"] == pytest.approx(100 * (baseline - point["metric"]), abs=1e-9)
            assert point["rate"] == point["removed"] / group["channels"]
    free = [group for group in document["groups"] if not group["frozen"]]
    assert sum(len(group["points"]) for group in free) == 4 * len(free)
    assert "about" in second.stderr  # how long it would take


def test_a_recipe_can_use_the_rates(done):
    """recipe.toml loads, and its rates are the recommended ones."""
    out, *_, second = done
    recipe = load_recipe(out / "recipe.toml")
    recommended = {g["name"]: g["recommended_rate"] for g in json.loads(second.stdout)["groups"] if not g["frozen"]}
    assert recipe.filters.layer_rates == pytest.approx(recommended, abs=1e-6)
    assert 0 < recipe.filters.rate < 1


def test_plots_are_there(done):
    """A PNG, and a page that needs nothing from elsewhere, with a panel and a row per group."""
    out, *_, second = done
    assert (out / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "sensitivity.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert page.count("<svg") == 1
    for group in json.loads(second.stdout)["groups"]:
        assert f">{group['name']}</code>" in page
        assert group["frozen"] or f">{group['name']} ({group['channels']})<" in page


def test_the_table(done, model):
    """Without --json: a table, nothing measured again."""
    out, *_ = done
    before = (out / "points.jsonl").read_bytes()
    told = _run(model, out)
    assert told.returncode == 0, told.stderr
    assert "conv2d" in told.stdout
    assert "points of" not in told.stderr
    assert (out / "points.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rates", "0.1,x"], "x"),
        (["--rates", "0.5,1.5"], "in (0, 1)"),
        (["--criterion", "l7"], "l2"),
        (["--recipe", "int9"], "int8"),
    ],
)
def test_wrong_usage(model, tmp_path, arguments, words):
    """Exit code 2 and one message that names what is right."""
    done = _run(model, tmp_path, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
