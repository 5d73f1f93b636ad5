"""After a fault that was interrupted, or a server that ended by itself, all members run and none is frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest

from tests.servers.cluster import Cluster
from tests.servers.places import LOOPBACK, Place
from tests.torture.faults import Fault
from tests.torture.servers import Servers

pytestmark = pytest.mark.anyio


@dataclass
class Member:
    is_running: bool = True
    is_frozen: bool = False
    place: Place = LOOPBACK

    async def start(self) -> None:
        self.is_running = True

    async def kill(self) -> None:
        self.is_running, self.is_frozen = False, False

    async def freeze(self) -> None:
        assert self.is_running
        self.is_frozen = True

    async def thaw(self) -> None:
        self.is_frozen = False


@dataclass
class Three:
    members: list[Member] = field(default_factory=lambda: [Member(), Member(), Member()])


@pytest.mark.parametrize("kind", ["kill-all", "freeze-all", "kill-member"])
async def test_a_fault_that_was_interrupted_leaves_nobody_down(kind: str) -> None:
    cluster = Three()
    servers = Servers(cast(Cluster, cluster))
    await servers.hurt(Fault(0.0, kind, 1, 1.0))
    assert any(member.is_frozen or not member.is_running for member in cluster.members)

    await servers.recover()

    assert cluster.members == [Member(), Member(), Member()]


async def test_a_server_that_ended_by_itself_is_back_before_the_next_fault() -> None:
    cluster = Three()
    cluster.members[2].is_running = False
    servers = Servers(cast(Cluster, cluster))

    await servers.hurt(Fault(0.0, "freeze-all", 0, 1.0))
    await servers.heal(Fault(0.0, "freeze-all", 0, 1.0))

    assert cluster.members == [Member(), Member(), Member()]
