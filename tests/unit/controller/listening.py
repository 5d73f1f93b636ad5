"""Who listens to a cluster's events, as the API does, but with the events themselves in place of their bytes."""

from __future__ import annotations

import asyncio

from controller.cluster import Cluster
from controller.fanout import EVERYTHING, Fanout, Filter
from controller.views import Event
from tests.unit.controller.kit import DEADLINE_S

PIECE = 1 << 20


class Stream:
    """A listener of a fan-out whose encoded events are their numbers, so that a test has the events themselves."""

    def __init__(
        self, cluster: Cluster, since: int | None = None, wanted: Filter = EVERYTHING, fanout: Fanout | None = None
    ) -> None:
        self.encoded: list[Event] = []
        self.fanout = fanout or cluster.fanout(self.encode)
        self.listener = self.fanout.listener(since, wanted)

    def encode(self, event: Event) -> bytes:
        self.encoded.append(event)
        return b"%d " % (len(self.encoded) - 1)

    def take(self, limit: int = PIECE) -> list[Event]:
        return [self.encoded[int(number)] for number in self.listener.take(limit).split()]

    async def taken(self, count: int, limit: int = PIECE) -> list[Event]:
        async with asyncio.timeout(DEADLINE_S):
            found: list[Event] = []
            while len(found) < count:
                found += self.take(limit)
                await asyncio.sleep(0)
            return found
