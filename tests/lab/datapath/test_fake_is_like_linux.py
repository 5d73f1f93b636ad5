"""The fake kernel and the real one are asked the same and damaged alike: they must not drift apart."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from datapath.desired import Attachment
from datapath.fake import FakeKernel
from datapath.objects import BRIDGE_MAC_PREFIX, HostState, Link, Vxlan
from datapath.plan import expected, plan
from kvnet.model import CrossSegment, Driver, UplinkMode
from lab import namespaces
from tests.unit.datapath.clusters import UPLINKS, World, endpoint, host, network
from tests.unit.datapath.damage import ALL, damage_the_firewall, swap_the_kind, turn_a_gate
from worker.kernel.linux import LinuxKernel

pytestmark = [pytest.mark.kernel, pytest.mark.anyio]

NETWORKS = (
    network(1),
    network(2, ipv6=False, flood=True),
    network(3, driver=Driver.BRIDGE, internal=True),
    network(4, driver=Driver.ROUTED, ipv6=False),
    network(5, driver=Driver.TRANSPARENT, uplink="lan0", shim=True),
    network(6, driver=Driver.TRANSPARENT, uplink="lan2", uplink_mode=UplinkMode.BRIDGE),
    network(7, driver=Driver.ROUTED, cross_segment=CrossSegment.TUNNEL),
    network(8, icc=False),
)
ROUNDS = 40
# The real reader takes a bridge under a tunnel's name for somebody else's; the firewall is not read here.
HARMS = [damage for damage in ALL if damage not in (damage_the_firewall, swap_the_kind, turn_a_gate)]


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
    lines = ["link add under0 type veth peer name under0p", "link set under0p up", "link set under0 up"]
    lines += ["addr add 192.168.7.1/24 dev under0"]
    for at, name in enumerate(UPLINKS):
        kind = "bridge" if name == "br0" else f"veth peer name {name}p"
        lines += [f"link add {name} address 02:aa:{at:02x}:00:00:00 type {kind}", f"link set {name} up"]
        lines += [f"link set {name}p up"] if name != "br0" else []
    lines.append("addr add 172.16.1.200/24 dev lan1")
    subprocess.run(
        ["nsenter", f"--net={path}", "ip", "-batch", "-"], input="\n".join(lines), text=True, check=True, timeout=10
    )
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
            scope = world.scope("h0")
            assert_alike(await real.read(scope, firewall=False), fake.state(scope, firewall=False), names)
            await repair(world, fake, real)


async def repair(world: World, fake: FakeKernel, real: LinuxKernel) -> None:
    """One pass over each, from what each of them tells."""
    wanted, scope = replace(world.desired("h0"), firewall=None), world.scope("h0")
    told = await real.read(scope, firewall=False)
    made = plan(wanted, told).operations
    assert await real.apply(made) == []
    assert fake.execute(plan(wanted, fake.state(scope, firewall=False)).operations) == []
    after = await real.read(scope, firewall=False)
    assert plan(wanted, after).operations == ()
    assert_alike(after, fake.state(scope, firewall=False), [type(operation).__name__ for operation in made])
    assert after.links == _as_told(expected(wanted, told).links)


def assert_alike(real: HostState, fake: HostState, after: list[str]) -> None:
    for part in ("links", "addresses", "routes", "neighbours", "vteps", "ports", "enslaved", "uplinks"):
        ours, theirs = getattr(real, part), getattr(fake, part)
        if part == "links":
            ours, theirs = _as_told(ours), _as_told(theirs)
        if ours != theirs:
            items = [set(map(repr, s.items() if isinstance(s, dict) else s)) for s in (ours, theirs)]
            raise AssertionError(
                f"{part} after {after}: only real {items[0] - items[1]}, only fake {items[1] - items[0]}"
            )
    assert {path: real.sysctls[path] for path in fake.sysctls} == fake.sysctls, after


def _as_told(links: Mapping[str, Link]) -> dict[str, Link]:
    """Of a tunnel in a bridge the MAC is the kernel's choice; whose a link is, only the wanted ones say."""
    return {
        name: replace(link, mac=b"") if isinstance(link, Vxlan) and link.mac[:2] != BRIDGE_MAC_PREFIX else link
        for name, link in links.items()
    }
