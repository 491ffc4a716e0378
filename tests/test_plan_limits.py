"""Limits of files, by target: whose file is limited, in which format, and what cannot be limited."""

import pytest

import edgeprune
from edgeprune.convert.weight_only import quantizer_version
from edgeprune.errors import MissingError, RecipeError, TargetError
from edgeprune.hardware import vela_compiler
from edgeprune.plan import file_limits, make_plan
from edgeprune.recipe.load import parse_recipe
from edgeprune.target import load_target, to_toml

INT8 = {"modes": ["float32", "int8"]}


def _recipe(**filters):
    return parse_recipe({"filters": filters, "quantize": INT8}, "mine.toml")


def _own(folder, **changes):
    """The TOML file of a board like the rpi4."""
    path = folder / "board.toml"
    path.write_text(to_toml(load_target("rpi4").model_copy(update={"name": "mine", "aliases": (), **changes})))
    return str(path)


def test_a_limit_without_a_target_is_one_of_the_target_of_the_build():
    """Its name carries no target, and its line in a recipe is that of the key alone."""
    (limit,) = file_limits(_recipe(max_size="50%"), load_target("coral"))
    assert (limit.name, limit.key, limit.target.name, limit.plan.io) == ("size", "max_size", "coral-usb", "uint8")


def test_each_target_takes_the_file_that_its_own_build_makes():
    """Of the same format, with the inputs, outputs and shapes that it wants; what the build is for does not matter."""
    limits = file_limits(_recipe(max_latency={"rpi4": "50%", "coral": 2.5}), load_target("ethos-u55"))
    assert [(limit.name, limit.key, limit.most) for limit in limits] == [
        ("latency on rpi4", "max_latency.rpi4", "50%"),
        ("latency on coral", "max_latency.coral", 2.5),
    ]
    plans = [limit.plan for limit in limits]
    assert [(plan.mode, plan.io, plan.static_shapes) for plan in plans] == [
        ("int8", "float", False),
        ("int8", "uint8", True),
    ]


@pytest.mark.parametrize(
    ("modes", "limited"),
    [
        (["float32"], "float32"),
        (["float32", "float16", "int8"], "int8"),
        (["float32", "int8-weights"], "int8-weights"),
        (["int4-weights"], "int4-weights"),
        (["int4-weights", "float16"], "float16"),
    ],
)
def test_limits_are_about_the_file_in_the_format_of_the_recipe(modes, limited):
    """A file of weights alone is no float32 file, of which it has a third of the bytes; who makes it is in the key."""
    recipe = parse_recipe({"filters": {"max_size": 5000}, "quantize": {"modes": modes}}, "mine.toml")
    (limit,) = file_limits(recipe, load_target("rpi4"))
    assert limit.plan.mode == limited
    assert limit.quantizer == (quantizer_version() if limited.endswith("-weights") else None)


@pytest.mark.parametrize(("multiple", "expected"), [(1, 8), (12, 24), (16, 16)])
def test_channels_suit_all_targets(tmp_path, multiple, expected):
    """They come in the least common multiple of what the named targets and that of the build want."""
    path = _own(tmp_path, channel_multiple={"float32": 8, "int8": multiple})
    plan = make_plan([_recipe(max_memory={path: "50%"})], load_target("rpi4"))
    (config,) = (step.config for step in plan.steps if step.name == "filters.remove1")
    assert config.steps.multiple == expected


def test_a_target_of_a_file_is_called_as_it_says(tmp_path):
    """A report has the name in the file, no path; the line for the recipe has the path, as TOML writes such keys."""
    path = _own(tmp_path)
    (limit,) = file_limits(_recipe(max_size={path: 1000}), load_target("rpi4"))
    assert (limit.name, limit.key) == ("size on mine", f'max_size."{path}"')


def test_an_unknown_target_is_refused_with_the_list_before_anything_is_built(tmp_path):
    """The nearest name, all others, and the key that has it; there is no run folder."""
    with pytest.raises(TargetError, match="did you mean 'coral'") as caught:
        edgeprune.build(recipe=_recipe(max_memory={"corall": "50%"}), out=tmp_path / "run")
    assert "rpi-zero2w" in str(caught.value)
    assert "[filters] max_memory" in caught.value.__notes__[0]
    assert not (tmp_path / "run").exists()


def test_a_latency_that_cannot_be_estimated_is_refused(tmp_path):
    """A target without coefficients may have its memory limited, and not its time."""
    path = _own(tmp_path, latency=None)
    assert file_limits(_recipe(max_memory={path: "50%"}), load_target("rpi4"))
    with pytest.raises(RecipeError, match="mine has no coefficients"):
        file_limits(_recipe(max_latency={"rpi4": 3.0, path: "50%"}), load_target("rpi4"))


def test_a_compiler_that_estimates_is_as_good_as_coefficients():
    """The limit names compiler and version, on which the choice depends; other limits of the target do not need it."""
    pytest.importorskip("ethosu.vela", reason="needs ethos-u-vela")
    latency, memory = file_limits(_recipe(max_latency="50%", max_memory="50%"), load_target("ethos-u55"))
    assert latency.compiler == f"vela {vela_compiler.version()}"
    assert memory.compiler is None
    (estimated,) = file_limits(_recipe(max_latency="50%"), load_target("rpi4"))
    assert estimated.compiler is None


def test_a_compiler_that_is_missing_is_said_before_anything_is_built(tmp_path, monkeypatch):
    """With the command that installs it, also where the target is not that of the build."""
    monkeypatch.setattr(vela_compiler, "version", lambda: None)
    with pytest.raises(MissingError, match="pip install ethos-u-vela"):
        edgeprune.build(recipe=_recipe(max_latency={"ethos-u65": "50%"}), target="rpi4", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_targets_of_one_name_are_refused(tmp_path):
    """Their limits could not be told apart."""
    path = _own(tmp_path, name="rpi4", threads=1)
    with pytest.raises(RecipeError, match="two targets that are called rpi4"):
        file_limits(_recipe(max_latency={"rpi4": 3.0, path: "50%"}), load_target("coral"))
