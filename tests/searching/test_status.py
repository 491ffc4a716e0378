"""What a search says while it runs."""

from edgeprune.report.schema import Metric
from edgeprune.searching.goal import Goal
from edgeprune.searching.status import file_in_words, progress_in_words, seconds_left
from edgeprune.selection import Limits


def goal(points=100):
    name, is_share = ("accuracy", True) if points == 100 else ("mae", False)
    metric = Metric(name=name, higher_is_better=is_share, points=points)
    return Goal(("accuracy", "size"), Limits(), metric, 0.9)


def test_a_file_is_said_in_the_units_of_its_metric_and_board():
    """Points where the metric is a share; latency where it is known; flash and RAM on a microcontroller."""
    figures = {"value": 0.88, "drop": 2.0, "latency_ms": 1.234, "bytes": 12_345}
    assert file_in_words(goal(), figures) == "accuracy 0.8800 (-2.00), 1.23 ms, 12.3 kB"
    assert file_in_words(goal(points=1), {**figures, "latency_ms": None}) == "mae 0.88, 12.3 kB"
    micro = {**figures, "flash_bytes": 90_000, "ram_bytes": 4_000}
    assert file_in_words(goal(), micro).endswith("90,000 bytes of flash, 4,000 of RAM")


def test_what_is_left_is_the_sooner_of_the_trials_end_and_the_timeout():
    """Nothing is guessed before the first trial is done, or where nothing ends the search."""
    assert seconds_left(60, None, 3, 9) == 120
    assert seconds_left(60, 100, 3, 9) == 100
    assert seconds_left(60, 300, 3, 9) == 120
    assert seconds_left(60, 100, 0, 9) == 100
    assert seconds_left(60, None, 0, 9) is seconds_left(60, None, 3, None) is None
    assert progress_in_words(3, 9, "best: trial 1", 120) == "3 of 9 trials done; best: trial 1; about 2 min 0 s left"
    assert progress_in_words(3, None, "best: trial 1", None) == "3 trials done; best: trial 1"
