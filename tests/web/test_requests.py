"""The cache that bounds what the page keeps of its visitors."""

from __future__ import annotations

from skipdiff_env.web.requests import Recent


def test_however_values_come_in_the_oldest_go() -> None:
    kept: Recent[str, int] = Recent(2)
    kept["a"] = 1
    assert kept.get_or("b", lambda: 2) == 2
    assert kept.get_or("a", lambda: 0) == 1  # used again
    kept["c"] = 3
    assert dict(kept) == {"a": 1, "c": 3}
    kept["a"] = 4
    assert kept.get_or("d", lambda: 5) == 5 and dict(kept) == {"a": 4, "d": 5}
    for number in range(100):
        kept[str(number)] = number
    assert [*kept] == ["98", "99"]
