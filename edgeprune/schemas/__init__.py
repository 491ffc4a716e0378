"""JSON schemas of recipes, targets, report.json and what commands print, for editors and programs in other languages.

The files beside this module are what pydantic makes of the classes that read recipes and targets and check reports, and
of those in :mod:`edgeprune.schemas.documents`.
``python -m edgeprune.schemas`` (``make schemas``) writes them anew; a test says when they are out of date. Rules about
several keys at once, such as that a lottery needs weights, are in no schema: they are checked when a file is read.
"""

from __future__ import annotations

import ast
import inspect
import io
import tokenize
from pathlib import Path
from typing import Literal, get_args

import pydantic
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

Name = Literal[
    "recipe", "target", "report", "runs", "profile", "profiles", "check", "comparison", "inspection", "sensitivity",
    "search", "bench", "targets", "emulator",
]  # fmt: skip
# Command with --json → the schemas that its document follows: the first, or for several runs or targets the second.
PRINTED: dict[str, tuple[Name, ...]] = {
    "bench": ("bench",),
    "build": ("report",),
    "check": ("check",),
    "compare": ("comparison",),
    "emulator setup": ("emulator",),
    "inspect": ("inspection",),
    "profile": ("profile", "profiles"),
    "report": ("report", "runs"),
    "search": ("search",),
    "sensitivity": ("sensitivity",),
    "targets list": ("targets",),
    "targets show": ("target",),
}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_path(name: Name) -> Path:
    """The JSON schema of recipes, targets or a document, as it comes with edgeprune."""
    return Path(__file__).parent / f"{name}.schema.json"


class _ForToml(GenerateJsonSchema):
    """TOML has no null: a key that may be None is left out instead."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        return {key: value for key, value in made.items() if key != "default" or value is not None}


def make_schemas() -> dict[Name, dict[str, object]]:
    """The schemas as the classes are now, with their comments as descriptions."""
    from edgeprune.recipe.config import Recipe
    from edgeprune.recipe.load import builtin_names
    from edgeprune.report.schema import Report
    from edgeprune.schemas import documents
    from edgeprune.target import Target

    recipe = _schema(Recipe, _ForToml)
    # The one key that is resolved before a recipe is validated.
    base = {"anyOf": [{"enum": builtin_names()}, {"type": "string", "description": "A TOML file."}]}
    extends = {
        "description": "Recipes to start from, merged in this order; the keys of this file win.",
        "anyOf": [base, {"type": "array", "items": base}],
    }
    properties = recipe["properties"]
    assert isinstance(properties, dict)
    recipe["properties"] = {"extends": extends, **properties}
    printed = {name: _schema(getattr(documents, name.capitalize())) for name in _DOCUMENTS}
    return {"recipe": recipe, "target": _schema(Target, _ForToml), "report": _schema(Report), **printed}


# Each is a class of documents.py.
_DOCUMENTS: tuple[Name, ...] = tuple(name for name in get_args(Name) if name not in ("recipe", "target", "report"))


def _schema(
    model: type[pydantic.BaseModel], generator: type[GenerateJsonSchema] = GenerateJsonSchema
) -> dict[str, object]:
    made = model.model_json_schema(schema_generator=generator)
    classes = _made_of(model, {})
    for name, definition in [(model.__name__, made), *made.get("$defs", {}).items()]:
        for key, comment in _comments(classes[name]).items():
            definition["properties"][key].setdefault("description", comment)
    return {"$schema": DIALECT, **made}


def _made_of(
    model: type[pydantic.BaseModel], found: dict[str, type[pydantic.BaseModel]]
) -> dict[str, type[pydantic.BaseModel]]:
    """The class and those that it is made of, by name, added to ``found``."""
    for cls in [*model.__mro__, *vars(inspect.getmodule(model)).values()]:
        ours = inspect.isclass(cls) and issubclass(cls, pydantic.BaseModel) and cls.__module__.startswith("edgeprune.")
        if ours and cls.__name__ not in found:
            found[cls.__name__] = cls
            _made_of(cls, found)
    return found


def _comments(model: type[pydantic.BaseModel]) -> dict[str, str]:
    """The comment behind each field of a class, or on the lines of their own above it."""
    source = inspect.getsource(model)
    comments, own_line = dict[int, str](), set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith("# type:"):
            comments[token.start[0]] = token.string.removeprefix("#").strip()
            if token.line.lstrip().startswith("#"):
                own_line.add(token.start[0])
    (parsed,) = ast.parse(source).body
    assert isinstance(parsed, ast.ClassDef)
    found = {}
    for field in parsed.body:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        first = field.lineno
        while first - 1 in own_line:
            first -= 1
        lines = [*range(first, field.lineno), field.end_lineno]
        if text := " ".join(comments[line] for line in lines if line in comments):
            found[field.target.id] = text
    return found
