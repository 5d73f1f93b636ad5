"""What an operator may set for the use cases, and the clock they go by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from kvnet.spans import UNTOLD, Tracer

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as an argument, so that a test can let a day pass in a millisecond.

    `now` may jump when somebody sets it; what lasts is measured by `monotonic`.
    """

    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Settings:
    """Every duration is in seconds.

    Attributes:
        cluster_id: the id that the store's cluster must have; "" for any.
        start_timeout_s: how long a store that does not answer is waited for at the start.
        replica: this controller's name, shown as the leader while it does the upkeep.
        store_kind: what `status` calls the store ("sqlite", "etcd" ...).
        cool_down_s: how long a released address stays unused.
        dead_host_after_s: a host loses its endpoints after it was seen absent that long without a gap.
        reclaim_note_s: how often the mark on a host that is down is renewed; a new leader goes on from there.
        upkeep_interval_s: between two sweeps.
        check_interval_s: between two complete checks of the store for leaks.
        leak_grace_s: between the two observations that make something a leak.
        session_ttl_s: how soon another replica takes the upkeep over.
        read_your_writes_s: how long an answer waits for its own change to come back through the watch.
        event_queue: how many events a slow subscriber may lag behind before it is told to start again.
        tracer: who is told what requests and commits took.
    """

    replica: str = "controller"
    cluster_id: str = ""
    store_kind: str = ""
    cool_down_s: float = 60.0
    dead_host_after_s: float = DAY_S
    reclaim_note_s: float = 1800.0
    upkeep: bool = True
    upkeep_interval_s: float = 5.0
    leak_grace_s: float = 30.0
    check_interval_s: float = 300.0
    session_ttl_s: float = 10.0
    journal_entries: int = 10_000
    journal_age_s: float = 7 * DAY_S
    start_timeout_s: float = 30.0
    read_your_writes_s: float = 5.0
    attempts: int = 24
    event_queue: int = 10_000
    bookmark_interval_s: float = 15.0
    clock: Clock = field(default_factory=Clock)
    tracer: Tracer = UNTOLD
