"""A recipe for tests in which int8 files only have to be there."""

from edgeprune.recipe.load import parse_recipe

# Of the built-in recipe `int8` without what takes longest: weights are rounded to the nearest, ranges are the extremes.
TABLE = {
    "quantize": {"modes": ["float32", "int8"], "rounding": "nearest"},
    "calibration": {"samples": 32, "range": "minmax"},
}
INT8 = parse_recipe(TABLE, "int8.toml")
