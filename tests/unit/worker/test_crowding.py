"""A neighbour table that overflows is told, and no longer once it has been quiet."""

from __future__ import annotations

from worker.crowding import QUIET_S, Crowding


def test_what_was_counted_before_the_first_look_is_not_told() -> None:
    crowding = Crowding()

    assert not crowding.note({"ipv4": 7}, 0.0, 1000.0)
    assert not crowding.note({"ipv4": 7}, 1.0, 1001.0)
    assert crowding.conditions == []


def test_a_count_that_grows_is_a_condition_that_names_the_limit() -> None:
    crowding = Crowding()
    crowding.note({"ipv4": 7, "ipv6": 0}, 0.0, 1000.0)

    assert crowding.note({"ipv4": 9, "ipv6": 0}, 1.0, 1001.0)

    (condition,) = crowding.conditions
    assert (condition.code, condition.since) == ("neighbours-full", 1001.0)
    assert "net.ipv4.neigh.default.gc_thresh3" in condition.detail


def test_it_stands_until_the_count_has_not_grown_for_a_while() -> None:
    crowding = Crowding()
    crowding.note({"ipv6": 0}, 0.0, 1000.0)
    crowding.note({"ipv6": 1}, 1.0, 1001.0)

    assert not crowding.note({"ipv6": 2}, QUIET_S, 1000.0 + QUIET_S)
    assert not crowding.note({"ipv6": 2}, 2 * QUIET_S - 0.5, 0.0)
    assert [condition.since for condition in crowding.conditions] == [1001.0]
    assert crowding.note({"ipv6": 2}, 2 * QUIET_S, 0.0)
    assert crowding.conditions == []


def test_a_kernel_that_does_not_count_tells_nothing() -> None:
    crowding = Crowding()

    assert not crowding.note({}, 0.0, 0.0)
    assert not crowding.note({}, 1.0, 1.0)
