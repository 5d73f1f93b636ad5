"""What the followers remember of the latest changes: all of it from one revision on, and never more than fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.history import FORGOTTEN_AT_ONCE, History
from backends.store import Change, Compacted, Entry

MOST = 16


def change(name: int, revision: int) -> Change:
    return Change(f"k/{name}", Entry(f"k/{name}", b"%d" % revision, revision))


@given(st.lists(st.sets(st.integers(0, 40), min_size=1, max_size=20), max_size=40))
def test_it_tells_the_latest_of_every_key_from_its_start_on_and_refuses_what_is_older(commits: list[set[int]]) -> None:
    history = History(MOST)
    latest: dict[int, int] = {}
    for revision, names in enumerate(commits, start=1):
        history.add(revision, [change(name, revision) for name in sorted(names)], ())
        latest.update(dict.fromkeys(names, revision))

        assert len(history) <= MOST
        for asked in range(revision + 1):
            if asked < history.start:
                with pytest.raises(Compacted):
                    history.after("k/", asked)
            else:
                told = {(last.key, last.revision) for last in history.after("k/", asked)}
                assert told == {(f"k/{name}", at) for name, at in latest.items() if at > asked}


def test_room_is_made_for_many_at_once() -> None:
    """Looking for the first of a dictionary passes what was taken from its front: one at a time, ever more of it."""
    history = History(8_000)
    for revision in range(1, 8_002):
        history.add(revision, [change(revision, revision)], ())

    assert len(history) == 8_000 - 8_000 // FORGOTTEN_AT_ONCE
    assert history.start == 8_001 - len(history)
