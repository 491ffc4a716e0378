"""Options of a build that change what is checked or written besides."""

import json

import pytest

import edgeprune
from edgeprune.builder import _with_verify
from edgeprune.errors import UsageError, VerificationError
from edgeprune.recipe.load import load_recipe


def test_verify_overrides_the_recipe():
    """The option decides where it is given, and the recipe where it is not."""
    recipes = (load_recipe("filters"), load_recipe("int8"))
    found = [_with_verify(recipes, given) for given in (None, True, False)]
    assert [one.filters.verify for one, _ in found] == [True, True, False]
    assert {other.filters for _, other in found} == {None}


def test_verify_without_filters_is_an_error(tmp_path):
    """A recipe that removes no filters has nothing to verify, and says so before anything is built."""
    with pytest.raises(UsageError, match="the recipe removes none"):
        edgeprune.build(recipe="float", verify=True, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_failing_export_leaves_the_report(tiny_model, tmp_path, monkeypatch):
    """If a model cannot be exported to Keras 3, the error comes when everything else is written."""

    def refuse(model, path):
        raise VerificationError("It differs.")

    monkeypatch.setattr("edgeprune.models.export.export_keras3", refuse)
    with pytest.raises(VerificationError, match="It differs") as caught:
        edgeprune.build(tiny_model, data="demo", recipe="float", out=tmp_path, export_keras3=True)
    assert "report" in caught.value.__notes__[0]
    assert json.loads((tmp_path / "report.json").read_text())["pick"]
    assert (tmp_path / "manifest.json").is_file()
