"""The JSON schemas that come with edgeprune: up to date, right about every file here, and wrong about no mistake."""

import functools
import importlib.resources
import json
import re
import tomllib
from pathlib import Path
from typing import get_args

import click
import jsonschema
import pytest

from edgeprune.cli import edgeprune as command_line
from edgeprune.recipe.load import builtin_names, load_recipe
from edgeprune.schemas import PRINTED, Name, make_schemas, schema_path
from edgeprune.target import load_target, target_names, to_toml

ROOT = Path(__file__).parents[2]
WITH_COMMENTS = ("recipe", "target", "report", "profile")


def schema(name):
    return json.loads(schema_path(name).read_text("utf-8"))


@functools.cache
def made():
    """All schemas as the classes make them, once: that takes seconds."""
    return json.loads(json.dumps(make_schemas()))


def faults(name, document):
    """Where a document does not follow a schema, as dotted paths."""
    as_in_file = json.loads(json.dumps(document))  # lists for tuples
    found = jsonschema.Draft202012Validator(schema(name)).iter_errors(as_in_file)
    return [".".join(map(str, fault.absolute_path)) for fault in found]


def builtin(name):
    folder = importlib.resources.files("edgeprune.recipe").joinpath("builtin")
    return tomllib.loads(folder.joinpath(f"{name}.toml").read_text("utf-8"))


def template():
    return importlib.resources.files("edgeprune.recipe").joinpath("template.toml.txt").read_text("utf-8")


def sample_report():
    return json.loads((ROOT / "tests/report/sample_report.json").read_text("utf-8"))


def commands(group=command_line, path=()):
    """Every command with its name as it is typed."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def test_every_command_with_json_has_a_schema():
    """And no other; tests/support/commands.py compares what commands print with it, wherever tests run them."""
    having = {name for name, command in commands() if any("--json" in one.opts for one in command.params)}
    assert having == PRINTED.keys()


def test_the_page_of_documents_names_them_all():
    """docs/json.md has a row for each command and each of its schemas."""
    rows = re.findall(r"^\|(?: `edgeprune (.+?)`)? \| .+ \| `(\w+)\.schema\.json` \|$",
                      (ROOT / "docs/json.md").read_text("utf-8"), re.MULTILINE)  # fmt: skip
    shown = {}
    for command, name in rows:
        last = command or list(shown)[-1]
        shown[last] = (*shown.get(last, ()), name)
    assert shown == PRINTED


@pytest.mark.parametrize("name", get_args(Name))
def test_the_shipped_schema_is_what_the_classes_make(name):
    """A class that changed without `make schemas` is found here."""
    jsonschema.Draft202012Validator.check_schema(schema(name))
    assert schema(name) == made()[name]


@pytest.mark.parametrize("name", builtin_names())
def test_recipes_follow_their_schema(name):
    """Every recipe that comes with edgeprune does, and as it is written out with every default."""
    assert faults("recipe", builtin(name)) == []
    assert faults("recipe", tomllib.loads(load_recipe(name).to_toml())) == []


def test_every_key_of_the_template_is_in_the_schema():
    """What `edgeprune init` offers is what editors complete: as it is, and with every key turned on."""
    text = template()
    assert faults("recipe", tomllib.loads(text)) == []
    everything = re.sub(r"^# (\w+ = |\[)", r"\1", text, flags=re.MULTILINE)
    document = tomllib.loads(everything)
    assert len(document) > 15
    assert faults("recipe", document) == []


@pytest.mark.parametrize("name", target_names())
def test_targets_follow_their_schema(name):
    """Every target that comes with edgeprune does, and as it is written out."""
    text = (ROOT / "targets" / f"{name}.toml").read_text("utf-8")
    assert faults("target", tomllib.loads(text)) == []
    assert faults("target", tomllib.loads(to_toml(load_target(name)))) == []


def test_reports_follow_their_schema():
    """A report.json does, with keys of the future, too."""
    report = sample_report()
    assert faults("report", report) == []
    report["variants"][0]["a_key_of_the_future"] = 1
    assert faults("report", report) == []


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ({"weigths": {}}, ""),
        ({"weights": {"sparsty": 0.5}}, "weights"),
        ({"weights": {"sparsity": 1.5}}, "weights.sparsity"),
        ({"filters": {"max_macs": "half"}}, "filters.max_macs"),
        ({"data": {"size": [3]}}, "data.size"),
        ({"quantize": {"modes": ["int9"]}}, "quantize.modes.0"),
        ({"finetune": {"epochs": "many"}}, "finetune.epochs"),
        ({"extends": 3}, "extends"),
    ],
)
def test_a_mistake_in_a_recipe_is_found(table, where):
    """Unknown keys, values of the wrong type and values out of range are."""
    assert faults("recipe", table) == [where]


@pytest.mark.parametrize("value", [0.5, "50%", " 12.5 % "])
def test_a_budget_may_be_given_in_percent(value):
    """Wherever a recipe takes a fraction or per cent, so does its schema."""
    assert faults("recipe", {"filters": {"max_macs": value}}) == []


def test_a_mistake_in_a_target_is_found():
    """A key that targets do not have is."""
    facts = tomllib.loads(to_toml(load_target("rpi4")))
    assert faults("target", {**facts, "speed": 3}) == [""]


def test_a_mistake_in_a_report_is_found():
    """A missing key is, and a text where a number belongs."""
    report = sample_report()
    del report["variants"][1]["file"]
    report["variants"][0]["bytes"] = "many"
    assert faults("report", report) == ["variants.0.bytes", "variants.1"]


@pytest.mark.parametrize("name", WITH_COMMENTS)
def test_descriptions_come_from_the_comments(name):
    """What stands beside a field in the code is what an editor shows."""
    definitions = schema(name)["$defs"]
    (klass, key, words) = {
        "recipe": ("FiltersConfig", "power", 'of schedule = "polynomial"; 1: the same number in each step'),
        "target": ("Cpu", "l2_shared", "by all cores; otherwise each core has its own"),
        "report": ("Variant", "series", "method and format, where the recipe explored several rates of it"),
        "profile": ("Guess", "range_note", "why the range is wide"),
    }[name]
    assert definitions[klass]["properties"][key]["description"] == words
