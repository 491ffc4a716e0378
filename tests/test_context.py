"""A stage can read only what it declared, so that its key names everything that its result depends on."""

import ast
from pathlib import Path

import pytest

from edgeprune import stages
from edgeprune.builder import build_context
from edgeprune.context import Context, Trust, UndeclaredInput
from edgeprune.devices.variants import OnDevice
from edgeprune.pipeline import Stage
from edgeprune.progress import Progress
from edgeprune.recipe.load import load_recipe
from edgeprune.target import load_target

READERS = {
    "model": lambda context: context.source,
    "target": lambda context: context.target,
    "seed": lambda context: context.seed,
    "deterministic": lambda context: context.deterministic,
    "trust": lambda context: context.trust,
    "data": lambda context: context.required(),
    "task": lambda context: context.required(),
    "runtime": lambda context: context.runtime(),
    "micro": lambda context: context.require("micro"),
    "quantizer": lambda context: context.require("quantizer"),
    "device": lambda context: context.connection(),
    "input_shape": lambda context: context.input_shape,
    "asked_shape": lambda context: context.asked_shape,
}


@pytest.fixture(scope="module")
def surroundings():
    recipe, target = load_recipe("int8"), load_target("rpi4")
    return build_context(None, (recipe,), target, 0, False, Trust(), Progress(), OnDevice("host"))


@pytest.mark.parametrize("name", READERS)
def test_what_is_not_declared_cannot_be_read(surroundings, tmp_path, name):
    """Every input raises where everything but it was declared."""
    context = surroundings.for_stage(tmp_path, READERS.keys() - {name})
    with pytest.raises(UndeclaredInput, match=name):
        READERS[name](context)


@pytest.mark.parametrize("name", sorted(READERS.keys() - {"data", "task", "input_shape"}))
def test_what_is_declared_is_read(surroundings, tmp_path, name):
    """Every input can be read where it alone was declared."""
    READERS[name](surroundings.for_stage(tmp_path, {name}))


def test_every_attribute_of_a_context_is_guarded(surroundings, tmp_path):
    """A new attribute that nobody declares must be refused, too; a few change no result."""
    context = surroundings.for_stage(tmp_path, ())
    public = {name for name in dir(Context) if not name.startswith("_")}
    for name in public - {"load", "read", "require"}:
        with pytest.raises(UndeclaredInput):
            getattr(context, name)()
    assert vars(context).keys() - {"_build", "_uses"} == {"folder", "progress"}


def test_every_declared_input_is_in_the_keys(surroundings):
    """What stages declare is what a build puts into keys; data joins once the model is known."""
    declared = {use for value in vars(stages).values() if isinstance(value, Stage) for use in value.uses}
    assert declared <= surroundings.inputs.keys() | {"data"}
    assert declared >= READERS.keys()


def test_stages_find_no_runtime_by_themselves():
    """Stages, and what converts and quantizes for them, take the runtime that their context hands out."""
    root = Path(stages.__file__).parents[1]
    for path in [*root.glob("stages/*.py"), *root.glob("quantize/*.py")]:
        names = {node.id for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Name)}
        assert "find_runtime" not in names, path
