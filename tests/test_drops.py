"""One rule says whether a metric drops too much; everything that asks gets the same answer."""

import contextlib
import copy
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.builder import check_limits
from edgeprune.errors import UsageError
from edgeprune.quantize.mixed import search
from edgeprune.recipe.config import Recipe
from edgeprune.report import headline, sensitivity
from edgeprune.report.schema import Metric, parse
from edgeprune.selection import Limits, MaxDrop, check_gates, choose, drop_points

REPORT = json.loads((Path(__file__).parent / "report" / "sample_report.json").read_text("utf-8"))
KINDS = st.sampled_from(
    [("accuracy", True, 100.0), ("mean_io_u", True, 100.0), ("mae", False, 1.0), ("my_score", True, 1.0)]
)
VALUES = st.one_of(st.floats(0, 1), st.integers(0, 8).map(lambda eighths: eighths / 8), st.just(float("nan")))
# Eighths: a drop may meet its limit exactly.
LIMITS = st.one_of(st.floats(0, 100), st.sampled_from([0.0, 0.125, 12.5, 25.0, 50.0]))
# As a user writes them: points, or a part of the value.
DROPS = st.one_of(LIMITS, LIMITS.map(lambda part: f"{part!r}%"))


def report_of(metric, baseline, value, limit):
    """A report of two variants, the smaller one pruned, as a build with this limit writes it."""
    document = copy.deepcopy(REPORT)
    base, small = document["variants"][:2]
    small.update(baseline=False, bytes=base["bytes"] // 2, gzip_bytes=base["gzip_bytes"] // 2)
    base["validation"]["value"], small["validation"]["value"] = baseline, value
    small["drop_points"] = drop_points(metric, baseline, value)
    limits = Limits(max_drop=limit)
    document.update(variants=[base, small], metric=metric.model_dump(), max_drop=dataclasses.asdict(limits.drop))
    picks = choose([base, small], limits, metric)
    gates = check_gates(small, limits, metric, baseline)
    # The words about the small one, whichever the pick is.
    return document | {"picks": picks | {"balanced": small["name"]}, "pick": small["name"], "gates": gates}, picks


def sensitivity_tone(metric, baseline, value, limit):
    """How the table of one group at one rate shows the drop."""
    point = {"rate": 0.5, "removed": 4, "metric": value, "drop_points": drop_points(metric, baseline, value), "loss": 1}
    group = {
        "name": "g", "layers": ["g"], "channels": 8, "frozen": None, "saves_macs_per_channel": 1,
        "saves_params_per_channel": 1, "tolerated_rate": None, "recommended_rate": None, "points": [point],
    }  # fmt: skip
    document = {
        "rates": [0.5], "metric": metric.model_dump(), "allowed_drop": limit, "budget": {"rate": 0.5},
        "groups": [group], "baseline": {"metric": baseline},
    }  # fmt: skip
    return sensitivity.table(document).rows[0][4].tone


@settings(max_examples=200, deadline=None)
@given(KINDS, VALUES.filter(lambda value: value == value), VALUES, DROPS)
def test_picks_gates_words_mixed_precision_and_sensitivity_agree(kind, baseline, value, limit):
    """Higher or lower is better, points or a part of the value, on the limit or not a number: one verdict."""
    metric = Metric(name=kind[0], higher_is_better=kind[1], points=kind[2])
    allowed = MaxDrop.parse(limit)
    if metric.points == 1 and allowed.part is None:  # points of a metric in its own unit
        for ask in (allowed.allows, lambda *figures: report_of(*figures, limit)):
            with pytest.raises(UsageError, match="own unit"):
                ask(metric, baseline, value)
        return
    verdict = allowed.allows(metric, baseline, value)
    document, picks = report_of(metric, baseline, value, limit)
    assert (picks["balanced"] == document["variants"][1]["name"]) == verdict
    assert document["gates"][0]["passed"] == verdict
    largest = allowed.limit(metric, baseline)
    (trial,) = search(["t"], lambda tensors: (drop_points(metric, baseline, value), 1), largest, steps=1)
    assert trial.met == verdict
    assert (sensitivity_tone(metric, baseline, value, largest) == "") == verdict
    if value == value:  # a report holds no figure that is not a number
        document["gates"][0]["passed"] = True  # the words look at validation themselves
        assert headline.why(parse(document)).startswith("Of the variants" if verdict else "No variant")


@pytest.mark.parametrize("section", ["mixed", "coded"])
def test_points_in_a_recipe_are_refused_where_the_metric_has_none(section):
    """Before anything is trained, with the section whose line can be changed; a part passes."""
    metric = Metric(name="mae", higher_is_better=False)
    modes = {"modes": ["int8", *(["mixed"] if section == "mixed" else [])]}
    for most, refused in ((1.0, True), ("2%", False)):
        recipe = Recipe.model_validate({"quantize": modes, section: {"max_drop": most}})
        with pytest.raises(UsageError, match="is in points") if refused else contextlib.nullcontext() as raised:
            check_limits(metric, Limits(), recipe)
        assert not refused or f"under [{section}]" in raised.value.fix
