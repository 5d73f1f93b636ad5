"""Status events of many things: soon, seldom, and the last state always."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from controller.merging import Merging

SETTLE_S, REST_S = 0.1, 1.0

# (pause before it, which thing, what it is then)
changes = st.lists(
    st.tuples(st.floats(min_value=0.0, max_value=0.7), st.sampled_from("abc"), st.integers(min_value=0, max_value=3)),
    max_size=60,
)


def played(happened: list[tuple[float, str, int]]) -> tuple[dict[str, list[tuple[float, int]]], dict[str, int]]:
    """What was told of each thing and when, and what each is in the end; looked at whenever something is due."""
    merging, now = Merging(SETTLE_S, REST_S), 0.0
    told: dict[str, list[tuple[float, int]]] = defaultdict(list)
    state: dict[str, int] = {}

    def look_until(until: float) -> None:
        while (due := merging.next_due) is not None and due <= until:
            for thing in merging.due(due):
                if merging.is_news(thing, state[thing], due):
                    told[thing].append((due, state[thing]))

    for pause, thing, value in happened:
        look_until(now + pause)
        now += pause
        if state.get(thing) != value:
            state[thing] = value
            merging.note(thing, now)
    look_until(now + 2 * (SETTLE_S + REST_S))
    assert merging.next_due is None
    return told, state


@given(changes)
def test_the_last_state_is_never_lost(happened: list[tuple[float, str, int]]) -> None:
    told, state = played(happened)

    assert {thing: values[-1][1] for thing, values in told.items()} == state


@given(changes)
def test_nothing_is_told_twice_in_a_row_or_more_often_than_allowed(happened: list[tuple[float, str, int]]) -> None:
    told, _ = played(happened)

    for values in told.values():
        for (first, one), (second, other) in pairwise(values):
            assert one != other
            assert second - first >= REST_S - 1e-9


@given(changes)
def test_a_change_after_a_rest_is_told_at_once(happened: list[tuple[float, str, int]]) -> None:
    first_of: dict[str, float] = {}
    now = 0.0
    for pause, thing, _ in happened:
        now += pause
        first_of.setdefault(thing, now)
    told, _ = played(happened)

    assert {thing: round(values[0][0], 6) for thing, values in told.items()} == {
        thing: round(at + SETTLE_S, 6) for thing, at in first_of.items()
    }


def test_what_is_gone_is_told_anew_when_it_is_back() -> None:
    merging = Merging(SETTLE_S, REST_S)
    merging.note("a", 0.0)
    assert merging.due(0.1) == ["a"]
    assert merging.is_news("a", 1, 0.1)
    merging.forget("a")
    merging.note("a", 0.2)

    assert merging.due(0.31) == ["a"]
    assert merging.is_news("a", 1, 0.31)


def test_who_begins_anew_looks_at_nothing_of_before() -> None:
    merging = Merging(SETTLE_S, REST_S)
    merging.note("a", 0.0)
    merging.forget_all()

    assert merging.next_due is None
    assert merging.due(10.0) == []
