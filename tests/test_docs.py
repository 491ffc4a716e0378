"""The documentation names only what is there: files, commands and options, keys of recipes, Python names."""

import json
import pkgutil
import re
import tomllib
import typing
from pathlib import Path

import click
import pydantic
import pytest

import edgeprune
from edgeprune.cli import edgeprune as command_line
from edgeprune.recipe.config import Recipe
from edgeprune.recipe.load import parse_recipe
from edgeprune.target import Target

ROOT = Path(__file__).parents[1]
# Where people read about this checkout: the changelog also names what was there once.
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SKILL.md"]
PAGES += [*sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("benchmarks/**/*.md"))]
PAGES += sorted(ROOT.glob("examples/**/*.md"))
TEXT = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in PAGES}
# Pages whose paths are all of this repository; other pages name files of the reader's, too.
OF_THE_REPOSITORY = ("CONTRIBUTING.md", "benchmarks/README.md")
FOLDERS = ("benchmarks", "calibration", "docs", "edgeprune", "examples", "targets", "tests")
every_page = pytest.mark.parametrize("page", TEXT)


def code_blocks(page: str, language: str = "") -> list[str]:
    """The fenced blocks of a page, in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT[page], re.DOTALL | re.MULTILINE)


def code_spans(page: str) -> list[str]:
    """What stands between backquotes, outside of blocks; a span may run over the end of a line."""
    text = re.sub(r"^```.*?^```", "", TEXT[page], flags=re.DOTALL | re.MULTILINE)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def of_pages(language: str):
    return [
        pytest.param(block, id=f"{page}-{n}") for page in TEXT for n, block in enumerate(code_blocks(page, language))
    ]


@every_page
def test_links_lead_somewhere(page):
    """Every relative link leads to a file or folder of the repository."""
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", TEXT[page]) if "://" not in link]
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


@every_page
def test_named_files_are_there(page):
    """Every path below a folder of the repository exists, in text and in commands."""
    named = re.findall(rf"(?<![\w./…-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w", TEXT[page])
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", OF_THE_REPOSITORY)
def test_files_named_in_short_are_there(page):
    """A path may leave out ``edgeprune/``, or the folder that is named first on its line."""
    missing = []
    for line in TEXT[page].splitlines():
        spans = re.findall(r"`([^`]+)`", line)
        paths = [span for span in spans if re.fullmatch(r"[\w./-]+(/|\.(py|toml|csv|cfg|in|txt|md))", span)]
        bases = [ROOT, ROOT / "edgeprune", (ROOT / page).parent, *(ROOT / path for path in paths[:1])]
        missing += [path for path in paths if not any((base / path).exists() for base in bases)]
    assert missing == []


def test_the_map_is_complete():
    """The map for contributors has a row for every package and module of edgeprune."""
    rows = [line for line in TEXT["CONTRIBUTING.md"].splitlines() if line.startswith("| `")]
    named = {Path(path).name for row in rows for path in re.findall(r"`([^`]+)`", row.split("|")[1])}
    found = {
        path.name for path in (ROOT / "edgeprune").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert found - named - {"__main__.py", "_version.py"} == set()


def test_names_stand_where_contributors_are_sent():
    """Where the text says "`NAME` in `FILE`", the file has that name."""
    text = " ".join(TEXT["CONTRIBUTING.md"].split())
    sent = re.findall(r"`(\w+)` (?:in|of) `([\w/]+\.py)`", text)
    assert len(sent) > 10
    bases = (ROOT, ROOT / "edgeprune")
    text_of = {
        path: next(base / path for base in bases if (base / path).exists()).read_text("utf-8") for _, path in sent
    }
    assert [name for name, path in sent if not re.search(rf"\b{name}\b", text_of[path])] == []


@every_page
def test_commands_and_options_exist(page):
    """Every ``edgeprune …``, in text or in a block, is a command, and takes the options that it is shown with."""
    lines = [line.strip().removeprefix("$ ") for line in TEXT[page].splitlines()]
    for shown in [text for text in [*code_spans(page), *lines] if text.startswith("edgeprune ")]:
        command = command_line
        for word in (word.strip("[]") for word in shown.split()[1:]):
            if word.startswith("#"):
                break
            if word.startswith("--"):
                assert word in options_of(command), shown
            elif isinstance(command, click.Group) and re.fullmatch(r"[a-z]+", word):
                command = command.get_command(click.Context(command), word)
                assert command, shown


def test_keys_that_agents_are_told_to_read_are_in_the_report():
    """Every key that SKILL.md names is in the schema of report.json, and the example of a report has it."""
    from edgeprune.report.schema import Report

    schema = json.dumps(Report.model_json_schema())
    section = TEXT["SKILL.md"].partition("## Reading report.json")[2]
    spans = re.findall(r"`([a-z_]+(?:\.[a-z_]+)*)`", section)
    assert len(spans) > 15
    words = {word for span in spans if not span.endswith(".json") for word in span.split(".")} - {"null"}
    assert [word for word in words if f'"{word}"' not in schema] == []


def options_of(command: click.Command) -> set[str]:
    return {"--help", *(name for option in command.params for name in (*option.opts, *option.secondary_opts))}


@pytest.mark.parametrize("page", sorted(TEXT.keys() - {"CONTRIBUTING.md"}))  # which names sections of setup.cfg, too
def test_sections_and_keys_of_recipes_and_targets_exist(page):
    """Every ``[section]`` and ``[section] key`` is one of recipes or targets."""
    for span in code_spans(page):
        found = re.match(r"\[(\w+)\](?: (\w+))?", span)
        if found:
            assert has_key(Recipe, *found.groups()) or has_key(Target, *found.groups()), span


def has_key(model: type[pydantic.BaseModel], section: str, key: str | None) -> bool:
    if section not in model.model_fields:
        return False
    annotation = model.model_fields[section].annotation
    sections = [part for part in (annotation, *typing.get_args(annotation)) if hasattr(part, "model_fields")]
    return key is None or any(key in part.model_fields for part in sections)


@every_page
def test_python_names_exist(page):
    """Every ``edgeprune.name`` is public, or a module or a name in one."""
    named = set(re.findall(r"(?<![\w/])edgeprune(?:\.\w+)+", TEXT[page])) - {"edgeprune.toml"}
    for name in named:
        assert name.split(".")[1] in dir(edgeprune) or pkgutil.resolve_name(name), name


@pytest.mark.parametrize("block", of_pages("toml"))
def test_toml_blocks_are_recipes(block):
    """Each is a whole recipe: sections that it leaves out are off."""
    parse_recipe(tomllib.loads(block), "docs.toml")


def test_python_blocks_are_right(mypy, tmp_path):
    """mypy finds no name, attribute or argument in them that is not there; examples need not handle None.

    The block that needs no file of the reader's is run, in tests/prune/channels/rules/test_register_rule.py.
    """
    blocks = [block for page in TEXT for block in code_blocks(page, "python")]
    assert len(blocks) > 2
    for number, block in enumerate(blocks):
        (tmp_path / f"block_{number}.py").write_text(block)
    done = mypy(tmp_path, "strict_optional = False")
    assert done.returncode == 0, done.stdout + done.stderr
