"""Taking interfaces away that their runtime moves at the same time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Any, cast

import pytest

from worker.attachments import MACVLAN, UNKNOWN, VETH, Phase, Record
from worker.ports import HostKernel, Namespaces, Time
from worker.removal import LOOKS, Remover

pytestmark = pytest.mark.anyio
PATH, HERE = "/run/docker/netns/c1", "boot:4:1"


class Kernel:
    """Finds the interface at the looks that it is told."""

    def __init__(self, finds: Iterable[bool]) -> None:
        self.looks: list[str] = []
        self._finds = iter(finds)

    async def remove_macvlan(self, netns: str, mac: bytes) -> bool:
        self.looks.append(netns)
        return next(self._finds, False)

    async def apply(self, operations: Any) -> list[Any]:
        return []


class There:
    """`identity` of the namespace at the path; "" = none."""

    def __init__(self, identity: str = HERE) -> None:
        self._identity = identity

    async def identity(self, path: str) -> str:
        return self._identity if path == PATH else ""


def record(kind: str = MACVLAN, identity: str = HERE, interface: str = "eth0") -> Record:
    answer = {"mac": "02:00:00:00:00:01"}
    where = PATH if interface else ""
    return Record("e1", "lan", "c1", where, interface, Phase.DETACHING, 0.0, "n", identity, kind=kind, answer=answer)


async def looks(kernel: Kernel, what: Record, namespaces: There | None = None) -> list[str]:
    time = Time(lambda: 0.0, asyncio.get_running_loop().time, asyncio.sleep, random.Random(1))
    places = cast(Namespaces, namespaces or There())
    await Remover(cast(HostKernel, kernel), places, time).remove(what, is_moved=True)
    return kernel.looks


async def test_one_that_is_listed_nowhere_for_a_moment_is_looked_for_again() -> None:
    assert await looks(Kernel([False, False, True]), record()) == [PATH, PATH, PATH]


async def test_one_that_never_comes_is_gone_after_a_while() -> None:
    assert len(await looks(Kernel([]), record())) == LOOKS


async def test_where_nobody_saw_which_namespace_was_meant_its_mac_tells() -> None:
    assert await looks(Kernel([True]), record(identity="")) == [PATH]


async def test_another_namespace_under_the_path_is_not_looked_into() -> None:
    assert await looks(Kernel([]), record(), There("boot:4:2")) == [""]
    assert await looks(Kernel([]), record(identity=""), There("")) == [""]


async def test_one_that_was_taken_back_is_looked_for_on_the_host_only() -> None:
    assert await looks(Kernel([]), record(interface="")) == [""]


@pytest.mark.parametrize("what", [record(VETH), record(UNKNOWN, interface="")], ids=["veth", "never made"])
async def test_what_cannot_be_there_is_not_looked_for(what: Record) -> None:
    assert await looks(Kernel([]), what) == []
