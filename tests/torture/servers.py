"""The faults of real servers: members killed, frozen, restarted, cut off; now and then all of them for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.servers.cluster import Cluster
from tests.servers.family import ServerFailed
from tests.torture.faults import Fault

KINDS = ("kill-leader", "kill-member", "freeze-leader", "freeze-member", "freeze-all", "kill-all")
LEADER_SECONDS = 5.0


class Servers:
    """Remembers whom a fault hit, so that the same one is healed."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._hit: list[int] = []
        self.kinds: Sequence[str] = KINDS
        if all(member.place.netns is not None for member in cluster.members):
            self.kinds = (*KINDS, "partition-leader", "partition-member")

    async def hurt(self, fault: Fault) -> None:
        await self._revive()
        self._hit = await self._targets(fault)
        members = [self._cluster.members[index] for index in self._hit]
        verb = fault.kind.partition("-")[0]
        if verb == "partition":
            await self._cluster.partition(self._hit[0])
        else:
            await asyncio.gather(*(m.kill() if verb == "kill" else m.freeze() for m in members))

    async def heal(self, fault: Fault) -> None:
        members = [self._cluster.members[index] for index in self._hit]
        self._hit = []
        if fault.kind.startswith("partition"):
            await self._cluster.heal()
        elif fault.kind.startswith("kill"):
            await asyncio.gather(*(m.start() for m in members if not m.is_running))
        else:
            await asyncio.gather(*(m.thaw() for m in members if m.is_frozen))

    async def recover(self) -> None:
        """Whatever was interrupted: all of them run, and none is frozen."""
        await asyncio.gather(*(member.thaw() for member in self._cluster.members if member.is_frozen))
        await self._revive()

    async def _revive(self) -> None:
        """What ended without us (on a machine that is shared, somebody may kill it) is a fault more, not the last."""
        await asyncio.gather(*(member.start() for member in self._cluster.members if not member.is_running))

    async def _targets(self, fault: Fault) -> list[int]:
        count = len(self._cluster.members)
        if fault.kind.endswith("all"):
            return list(range(count))
        if fault.kind.endswith("leader"):
            try:
                return [await self._cluster.leader(LEADER_SECONDS)]
            except ServerFailed:
                pass  # an election is under way: hit anybody
        return [fault.target % count]
