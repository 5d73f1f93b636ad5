"""How the follower of Consul's change log builds its steps, on a source that changes while it is being read."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from backends.consul_follow import follow
from backends.consul_log import SLOTS, Log, Record
from backends.store import Entry

pytestmark = pytest.mark.anyio


class Source:
    """A log whose next states are prepared, and keys whose state is always the newest."""

    def __init__(self, logs: Sequence[Log], states: dict[str, Entry | None]) -> None:
        self._logs = list(logs)
        self._states = states
        self.on_read: Callable[[], None] = lambda: None

    async def read(self, keys: Sequence[str]) -> list[Entry | None]:
        found = [self._states.get(key) for key in keys]
        self.on_read()
        return found

    async def read_log(self, newer_than: int = 0) -> tuple[Log, int]:
        log = self._logs.pop(0) if len(self._logs) > 1 else self._logs[0]
        return log, log.revision

    async def sweep(self, slots: Sequence[Record], value: bytes, swept: int) -> None:
        raise AssertionError("nothing is old here")


async def no_time(_seconds: float) -> None:
    return


async def test_a_key_that_nobody_wants_any_more_is_not_told_as_it_was_before_its_deletion() -> None:
    """Found by the torture: a watch went away between two readings of one step, and the deletion was lost for good."""
    put = Record(f"{SLOTS}a-1", 11, 0, put=("k", "other"))
    gone = Record(f"{SLOTS}a-2", 12, 0, gone=("k",))
    begin = Record(f"{SLOTS}a-0", 10, 0)
    wanted = {"k", "other"}
    source = Source(
        [Log((begin, put)), Log((begin, put, gone))],
        {"k": Entry("k", b"old", 11), "other": Entry("other", b"new", 12)},
    )
    source.on_read = wanted.clear

    steps = follow(source, 10, wanted.__contains__, rng=random.Random(1), clock=lambda: 0.0, sleep=no_time)
    step = await anext(steps)
    await steps.aclose()  # type: ignore[attr-defined]

    assert step.revision == 12
    assert "k" not in {change.key for change in step.changes}
    assert "k" in step.unread
