"""The walk of a first day: three hosts, one overlay network, and everything that can happen to it.

Gone on every store. What is claimed about a kernel is read by an independent library.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from kvnet.errors import NetworkInUse
from lab.lab import Lab, until
from tests.lab.eye import Seen, by_hand, look

NETWORK = "my-net"
WITHIN_SECONDS = 2.0


def seen(lab: Lab, host: str) -> Seen:
    return look(lab.hosts[host].netns)


def ours(lab: Lab, host: str) -> set[str]:
    return set(seen(lab, host).links)


async def soon(condition: Callable[[], bool], what: str) -> None:
    async def is_so() -> bool:
        return condition()

    await until(is_so, what, seconds=WITHIN_SECONDS)


async def attach(lab: Lab, name: str, host: str) -> dict[str, object]:
    await lab.add_workload(name, host)
    return (await lab.attach(NETWORK, name))["endpoint"]


async def walk(lab: Lab, in_the_middle: Callable[[], Awaitable[None]] | None = None) -> None:
    """From an empty lab whose workers are ready to one without a trace. `in_the_middle`: what is done to the store."""
    network = await lab.client.create_network({"name": NETWORK, "driver": "overlay"})
    assert not ours(lab, "h2"), "a network without endpoints is in no kernel"

    c1 = await attach(lab, "c1", "h1")
    assert f"kvb{network['id']}" in ours(lab, "h1")
    assert not ours(lab, "h2")
    assert not ours(lab, "h3")

    c2 = await attach(lab, "c2", "h2")
    assert c1["network"] == c2["network"] == network["id"]
    await lab.until_applied(network["id"], int(str(c2["version"])))
    for source, target in (("c1", c2), ("c2", c1)):
        for address in (target["address"], target["address6"]):
            answer = await lab.ping(source, str(address))
            assert answer.ok, f"{source} -> {address} at the first packet: {answer.reason}"

    c3 = await attach(lab, "c3", "h3")
    await lab.until_applied(network["id"], int(str(c3["version"])))
    assert (await lab.ping("c3", str(c1["address"]))).ok

    if in_the_middle is not None:
        await in_the_middle()
    await lab.detach(NETWORK, "c2")
    await soon(lambda: not ours(lab, "h2"), "h2's bridge, VXLAN device and interface are gone")
    for host in ("h1", "h3"):
        await soon(lambda host=host: not mentions(seen(lab, host), c2), f"{host} has no entry of c2 left")

    await worker_crash_goes_unnoticed(lab, c1, c3)
    await damage_is_repaired(lab, network["id"], c3)
    await controller_restart_goes_unnoticed(lab, c3)

    with pytest.raises(NetworkInUse) as refusal:
        await lab.client.delete_network(NETWORK)
    for word in ("c1", "h1", "last seen"):
        assert word in refusal.value.detail

    await lab.detach(NETWORK, "c1")
    await lab.detach(NETWORK, "c3")
    await lab.client.delete_network(NETWORK)
    for host in lab.hosts:
        await soon(lambda host=host: not ours(lab, host), f"no trace in {host}'s kernel")
    report = await lab.client.check()
    assert report["ok"], report["findings"]
    assert [n async for n in lab.client.networks()] == []
    assert [e async for e in lab.client.endpoints()] == []


async def worker_crash_goes_unnoticed(lab: Lab, c1: dict[str, object], c3: dict[str, object]) -> None:
    """kill -9 of a worker: traffic goes on; its successor rebuilds nothing."""
    before = seen(lab, "h1")
    worker = lab.hosts["h1"].worker
    assert worker is not None
    await worker.kill()
    assert (await lab.ping("c1", str(c3["address"]))).ok
    assert (await lab.ping("c3", str(c1["address"]))).ok
    await lab.start_worker("h1")
    await lab.until_ready("h1")
    assert seen(lab, "h1") == before, "nothing rebuilt (the same interface indexes), nothing leaked"


async def damage_is_repaired(lab: Lab, network_id: str, c3: dict[str, object]) -> None:
    """A forwarding entry, a route and the VXLAN device, removed by hand, are back within a second."""
    bridge, vxlan = f"kvb{network_id}", f"kvx{network_id}"
    healthy, netns = seen(lab, "h1"), lab.hosts["h1"].netns
    index, remote = healthy.links[vxlan], str(lab.hosts["h3"].port.underlay)
    by_hand(netns, lambda ip: ip.fdb("del", ifindex=index, lladdr=c3["mac"], dst=remote))
    await soon(lambda: seen(lab, "h1") == healthy, "the forwarding entry is back")
    subnet = next(route for device, route in healthy.routes if device == bridge and ":" not in route)
    by_hand(netns, lambda ip: ip.route("del", dst=subnet, oif=healthy.links[bridge], proto=222, scope=253))
    await soon(lambda: seen(lab, "h1") == healthy, "the route is back")
    by_hand(netns, lambda ip: ip.link("del", index=index))
    await soon(lambda: without_indexes(seen(lab, "h1")) == without_indexes(healthy), "the VXLAN device is back")
    assert (await lab.ping("c1", str(c3["address"]))).ok


async def controller_restart_goes_unnoticed(lab: Lab, c3: dict[str, object]) -> None:
    before = {host: seen(lab, host) for host in lab.hosts}
    assert lab.controller is not None
    await lab.controller.kill()
    assert (await lab.ping("c1", str(c3["address"]))).ok
    await lab.start_controller()
    assert (await lab.ping("c1", str(c3["address"]))).ok
    for host in lab.hosts:
        await lab.until_ready(host)
    assert {host: seen(lab, host) for host in lab.hosts} == before


def mentions(what: Seen, endpoint: dict[str, object]) -> bool:
    """Whether a neighbour or forwarding entry is about the endpoint."""
    entries = [*what.neighbours, *what.forwarding]
    return any(endpoint["mac"] in entry or endpoint["address"] in entry for entry in entries)


def without_indexes(what: Seen) -> Seen:
    return what._replace(links=dict.fromkeys(what.links, 0))
