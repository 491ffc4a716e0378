"""Durations: as people type them, and in words."""

import pytest

from edgeprune.durations import duration, parse_duration
from edgeprune.errors import UsageError


def test_durations_are_read_as_people_type_them():
    """In seconds, minutes, hours, days and sums of them; nothing else is taken for one."""
    times = {"90s": 90, "40m": 2400, "1h30m": 5400, "2h": 7200, "1d": 86400, "15": 15, 2.5: 2.5, None: None}
    assert {text: parse_duration(text) for text in times} == times
    for text in ("", "m", "0s", "two hours", "-5", "1h and more"):
        with pytest.raises(UsageError, match="not understood"):
            parse_duration(text)


def test_words_are_to_the_second_below_an_hour():
    """Rounded first, so that no minute has 60 seconds; what is overdue has nothing left."""
    words = {-3: "0 s", 0.4: "0 s", 59.4: "59 s", 59.6: "1 min 0 s", 724.4: "12 min 4 s", 3599.7: "1 h 0 min"}
    assert {seconds: duration(seconds) for seconds in words} == words
    assert duration(5430) == "1 h 30 min"
