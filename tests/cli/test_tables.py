"""Tables in the terminal."""

from edgeprune.cli.tables import sensitivity_table


def test_drops_of_a_small_error_are_not_rounded_to_nothing():
    """Points have two decimals; drops in a metric's own unit three significant digits."""
    point = {"rate": 0.5, "removed": 4, "metric": 0.0142, "drop_points": 0.0007, "loss": 1.0}
    group = {"name": "g", "channels": 8, "tolerated_rate": 0.1, "recommended_rate": 0.2, "points": [point]}
    document = {
        "rates": [0.5], "budget": {"rate": 0.5}, "groups": [group], "allowed_drop": 0.00027, "recommendation": "20 %",
        "baseline": {"metric": 0.0135}, "data": {"samples": 10},
    }  # fmt: skip
    for points, shown in ((1.0, "0.000700"), (100.0, "0.00")):
        table = sensitivity_table({**document, "metric": {"name": "mae", "points": points}})
        assert str(next(iter(table.columns[2].cells))) == shown
