"""A question that asks for more than a test may do is refused whole, before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from kvnet.errors import Invalid
from worker.probing.parameters import parse_session, sending

SESSION = "00" * 8


def listen(**changes: Any) -> dict[str, Any]:
    return {"session": SESSION, "hosts": ["h1", "h2"], "pairs": 4, "seconds": 30, **changes}


def send(**changes: Any) -> dict[str, Any]:
    target = {"to": 1, "vni": 5007, "small": 20, "sizes": [1500], "repeat": 3, "echoes": 5}
    return {"session": SESSION, "targets": [{**target, **changes}], "pairs": []}


def test_what_a_test_needs_is_taken() -> None:
    assert parse_session(listen()).hosts == ("h1", "h2")
    assert sending(send()).targets[0]["sizes"] == [1500]
    pair = {"pair": 0, "network": "n", "from": "a", "to": "b", "family": 6}
    assert sending({"session": SESSION, "pairs": [pair]}).pairs == (pair,)


@pytest.mark.parametrize(
    "changes",
    [
        {"session": "zz"},
        {"session": "00"},
        {"session": 7},
        {"hosts": []},
        {"hosts": "h1"},
        {"hosts": ["h1", "h1"]},
        {"hosts": [f"h{n}" for n in range(257)]},
        {"pairs": -1},
        {"pairs": 1 << 20},
        {"seconds": 101},
        {"seconds": "long"},
    ],
)
def test_a_test_that_is_none_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        parse_session(listen(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"to": -1},
        {"to": "h2"},
        {"vni": 0},
        {"vni": 1 << 24},
        {"small": 65},
        {"small": True},
        {"sizes": [70_000]},
        {"sizes": [10]},
        {"sizes": list(range(200, 300))},
        {"sizes": "1500"},
        {"repeat": 100},
        {"echoes": 1000},
    ],
)
def test_more_packets_than_a_test_needs_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        sending(send(**changes))


def test_more_pairs_or_targets_at_once_than_can_be_tried_in_time_are_refused() -> None:
    pair = {"pair": 0, "network": "n", "from": "a", "to": "b"}
    with pytest.raises(Invalid):
        sending({"session": SESSION, "pairs": [pair] * 257})
    with pytest.raises(Invalid):
        sending({**send(), "targets": send()["targets"] * 257})
