"""Tables in the terminal."""

import re

import pytest
from rich.console import Console

from edgeprune.cli.tables import inspection_tables, sensitivity_table


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


@pytest.mark.parametrize("width", [60, 80, 200])
def test_bars_are_as_long_as_the_loss(width):
    """Beside each budget stands a bar; that of twice the loss is twice as long, in a narrow terminal, too."""
    rows = [
        {"latency_ms": 2.0 * left, "latency": left, "macs": left, "params": left, "lost": lost}
        for left, lost in ((0.9, 0.1), (0.6, 0.2), (0.4, 0.4))
    ]
    costs = {"target": "board", "mode": "int8", "latency_ms": 2.0, "multiple": 8, "groups": {}, "budgets": rows}
    model = {"name": "m", "params": 1, "macs": 1, "uncounted": [], "layers": [], "groups": [], "on_target": costs}
    console = Console(width=width)
    with console.capture() as printed:
        console.print(list(inspection_tables(model))[-1])
    bars = re.findall("0 % │ ([ ▏▎▍▌▋▊▉█]+)│\\n", printed.get())
    eighths = [sum(" ▏▎▍▌▋▊▉█".index(sign) for sign in bar) for bar in bars]
    assert eighths[2] >= 32
    assert eighths[1] == pytest.approx(eighths[2] / 2, abs=4)
    assert eighths[0] == pytest.approx(eighths[2] / 4, abs=4)
