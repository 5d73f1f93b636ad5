"""A count that is kept up says what a new one says, whoever comes, goes, moves or claims what another has.

So it does when it is told whose endpoints may differ, however much of that it has missed meanwhile.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.census import Census, Course, Members, sole_owners
from kvnet.model import Endpoint

HERE = "h0"
HOSTS = (HERE, "h1", "h2")


def endpoint(number: int, host: str, address: int, mac: int) -> Endpoint:
    addresses = (ip_address("10.9.0.0") + address, ip_address("fd00::") + address)
    return Endpoint(f"e{number}", "n", host, f"e{number}", addresses, f"02:00:00:00:00:{mac:02x}", float(number))


# Most have numbers of their own; some claim those of a neighbour.
endpoints = st.builds(
    lambda number, host, more, other: endpoint(number, host, number + more, number + other),
    st.integers(0, 40),
    st.sampled_from(HOSTS),
    st.sampled_from((0, 0, 0, 0, 0, 0, 1)),
    st.sampled_from((0, 0, 0, 0, 0, 0, 1)),
)


class Kept:
    """Endpoints, and the last few of their changes."""

    def __init__(self) -> None:
        self.now = {f"e{number}": endpoint(number, HOSTS[number % 3], number, number) for number in range(0, 40, 2)}
        self._number = 0
        self._recent: deque[str] = deque(maxlen=6)

    def change(self, one: Endpoint) -> None:
        self._number += 1
        self._recent.append(one.id)
        if self.now.get(one.id) == one:
            del self.now[one.id]
        else:
            self.now[one.id] = one

    @property
    def course(self) -> Course:
        return Course(self, self._number, tuple(self._recent))


# What happens between two looks, and whether the second one is told how it came to that.
rounds = st.lists(st.tuples(st.lists(endpoints, max_size=4), st.booleans()), max_size=12)


@given(rounds)
@settings(max_examples=400)
def test_a_count_that_is_kept_up_is_the_same_as_a_new_one(changes: Sequence[tuple[Sequence[Endpoint], bool]]) -> None:
    kept, census = Kept(), Census()
    for more, is_told in [((), False), *changes]:
        for one in more:
            kept.change(one)
        found = census.members(dict(kept.now), HERE, kept.course if is_told else None)
        owners = {one.id: one for one in sole_owners(kept.now.values())}

        assert _objects(found.endpoints.values()) == _objects(owners.values())
        assert found.endpoints.keys() == owners.keys()
        assert _objects(found.local) == _objects(one for one in owners.values() if one.host == HERE)
        assert found.hosts == {one.host for one in owners.values()}


@given(rounds)
@settings(max_examples=400)
def test_members_tell_by_whom_they_differ_from_those_before(changes: Sequence[tuple[Sequence[Endpoint], bool]]) -> None:
    kept, census = Kept(), Census()
    last: Members | None = None
    before: list[Endpoint] = []
    for more, is_told in [((), False), *changes]:
        for one in more:
            kept.change(one)
        found = census.members(dict(kept.now), HERE, kept.course if is_told else None)
        now = list(found.endpoints.values())

        if last is not None and found.step is last.step:
            assert _objects(now) == _objects(before)
        elif last is not None and found.before is last.step:
            come, gone = _objects(found.come), _objects(found.gone)
            assert come.isdisjoint(gone)
            assert _objects(now) == (_objects(before) - gone) | come
        last, before = found, now


def test_a_change_that_was_told_is_followed_without_a_look_at_the_others() -> None:
    kept, census = Kept(), Census()
    first = census.members(dict(kept.now), HERE, kept.course)
    kept.change(endpoint(41, "h1", 41, 41))
    untold = {id_: one for id_, one in kept.now.items() if id_ != "e4"}

    second = census.members(untold, HERE, kept.course)

    assert (second.before, [one.id for one in second.come], second.gone) == (first.step, ["e41"], [])
    assert "e4" in second.endpoints


def test_nobody_knows_what_changed_on_another_course_or_too_long_ago() -> None:
    kept, other = Kept(), Kept()
    early = kept.course
    for number in range(41, 48):
        kept.change(endpoint(number, "h1", number, number))

    assert kept.course.since(early) is None
    assert kept.course.since(other.course) is None
    assert kept.course.since(None) is None
    assert early.since(kept.course) is None
    assert kept.course.since(kept.course) == set()


def _objects(found: Iterable[Endpoint]) -> set[int]:
    return {id(one) for one in found}


@given(st.lists(endpoints, min_size=1, max_size=40))
def test_of_those_that_share_something_the_newest_stays(found: Sequence[Endpoint]) -> None:
    everyone = list({one.id: one for one in found}.values())
    owners = sole_owners(everyone)
    claimed = Counter(claim for one in owners for claim in (one.mac, *one.addresses))

    assert set(claimed.values()) <= {1}
    kept = {one.id for one in owners}
    for lost in (one for one in everyone if one.id not in kept):
        rivals = [one for one in owners if one.mac == lost.mac or set(one.addresses) & set(lost.addresses)]
        assert any((one.created_at, one.id) > (lost.created_at, lost.id) for one in rivals)
