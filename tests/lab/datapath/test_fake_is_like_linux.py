"""The fake kernel and the real one are asked the same and damaged alike: they must not drift apart."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from datapath.desired import Attachment
from datapath.fake import FakeKernel
from datapath.objects import HostState
from datapath.plan import expected, plan
from kvnet.model import Driver
from lab import namespaces
from tests.unit.datapath.clusters import World, endpoint, host, network
from tests.unit.datapath.damage import ALL, damage_the_firewall, swap_the_kind
from worker.kernel.linux import LinuxKernel

pytestmark = [pytest.mark.kernel, pytest.mark.anyio]

NETWORKS = (
    network(1),
    network(2, ipv6=False, flood=True),
    network(3, driver=Driver.BRIDGE, internal=True),
)
ROUNDS = 40
# The real reader takes a bridge under a tunnel's name for somebody else's; the firewall is not read here.
HARMS = [damage for damage in ALL if damage not in (damage_the_firewall, swap_the_kind)]


@pytest.fixture
def workloads() -> Iterator[Mapping[str, Path]]:
    names = ["stale", *(f"w{number}" for number in range(2 * len(NETWORKS)))]
    made = {name: namespaces.create(name) for name in names}
    yield made
    for path in made.values():
        namespaces.destroy(path)


@pytest.fixture
def netns() -> Iterator[Path]:
    path = namespaces.create("host")
    yield path
    namespaces.destroy(path)


@pytest.fixture
def world(workloads: Mapping[str, Path]) -> World:
    """The first host has two workloads in each network, two others have three each."""
    world = World()
    for number in range(3):
        world.add_host(host(number))
    for at, net in enumerate(NETWORKS):
        world.add_network(net)
        for number in range(2):
            record, path = endpoint(net, number, "h0"), str(workloads[f"w{2 * at + number}"])
            world.add(record, attached=False)
            world.kernels["h0"].add_namespace(path)
            world.attachments["h0"][record.id] = Attachment(record.id, path, "eth0")
        for number in range(2, 8):
            world.add(endpoint(net, number, f"h{1 + number % 2}"), attached=False)
    return world


@pytest.mark.parametrize("seed", range(3))
async def test_both_are_the_same_after_any_damage_and_after_its_repair(world: World, netns: Path, seed: int) -> None:
    rng, fake = random.Random(seed), world.kernels["h0"]
    async with await LinuxKernel.open(netns=str(netns)) as real:
        await repair(world, fake, real)
        for _ in range(ROUNDS):
            harms = [(rng.choice(HARMS), rng.randrange(10_000)) for _ in range(rng.randint(1, 4))]
            for damage, choice in harms:
                operations = list(damage(fake, choice))
                await real.apply(operations)
                fake.meddle(*operations)
            names = [damage.__name__ for damage, _ in harms]
            assert_alike(await real.read(firewall=False), fake.state(firewall=False), names)
            await repair(world, fake, real)


async def repair(world: World, fake: FakeKernel, real: LinuxKernel) -> None:
    """One pass over each, from what each of them tells."""
    wanted = replace(world.desired("h0"), firewall=None)
    told = await real.read(firewall=False)
    made = plan(wanted, told).operations
    assert await real.apply(made) == []
    assert fake.execute(plan(wanted, fake.state(firewall=False)).operations) == []
    after = await real.read(firewall=False)
    assert plan(wanted, after).operations == ()
    assert_alike(after, fake.state(firewall=False), [type(operation).__name__ for operation in made])
    assert after.links == expected(wanted, told).links


def assert_alike(real: HostState, fake: HostState, after: list[str]) -> None:
    for part in ("links", "addresses", "routes", "neighbours", "vteps", "ports"):
        ours, theirs = getattr(real, part), getattr(fake, part)
        if ours != theirs:
            items = [set(map(repr, s.items() if isinstance(s, dict) else s)) for s in (ours, theirs)]
            raise AssertionError(
                f"{part} after {after}: only real {items[0] - items[1]}, only fake {items[1] - items[0]}"
            )
    assert {path: real.sysctls[path] for path in fake.sysctls} == fake.sysctls, after
