"""The walk of a first day on the compose cluster, from outside: the API through published ports, `exec` on the hosts.

From an empty cluster to one without a trace, and in the middle a controller and a member of the store are killed, then
a host. The steps are the lab's walk (`tests/lab/walk.py`), with what only whole machines can show.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from datapath.objects import BRIDGE_PREFIX, VETH_PREFIX, VXLAN_PREFIX
from kvnet.client import Client
from kvnet.errors import KvnetError, NetworkInUse, NotFound
from kvnet.wire import Endpoint, Network
from lab.lab import until
from tests.compose.cluster import Cluster

NETWORK = "my-net"
PLACES = {"c1": "h1", "c2": "h2", "c3": "h3"}
SOON_S = 10.0
KNOWN_S = "20"
AGAIN_S = 30.0  # a host that was killed, until it has taken everything up again
EVENTS_S = 10.0
PREFIXES = (BRIDGE_PREFIX, VETH_PREFIX, VXLAN_PREFIX)
TOLD = {"network.created", "endpoint.created", "endpoint.changed", "endpoint.deleted", "network.deleted"}


@dataclass(slots=True)
class Walk:
    cluster: Cluster
    say: Callable[[str], None]

    @property
    def first(self) -> Client:
        return self.cluster.clients["controller-1"]

    @property
    def second(self) -> Client:
        return self.cluster.clients["controller-2"]

    async def everything(self) -> None:
        revision = int((await self.first.status())["revision"])
        async with self.step("a network and three workloads"):
            network = await self.first.create_network({"name": NETWORK, "driver": "overlay"})
            endpoints = await self.workloads(network)
        async with self.step("every workload reaches the others by name and by address"):
            await self.all_reach_all(endpoints)
        async with self.step("ports are published, with the attach and by PATCH"):
            await self.ports(network)
        async with self.step("a controller and a member of the store are killed, and all goes on"):
            await self.without_a_third(network, endpoints)
        async with self.step("they come back"):
            await self.cluster.start("controller-1", *self.cluster.members[:1])
            await self.soon(self.both_agree, "both controllers tell the same")
        async with self.step("a host is killed and comes back: what was on it holds no address"):
            await self.host_crash(network, endpoints["c3"])
        async with self.step("nothing is left"):
            await self.clean(network)
        async with self.step("the events told all of it"):
            await self.events(revision)
        await self.the_smoke_test()

    async def the_smoke_test(self) -> None:
        """It walks by itself, and nobody dies."""
        async with self.step("the smoke test walks by itself"):
            self.say(await self.cluster.compose("run", "--rm", "smoke"))
        await self.nothing_left()

    @asynccontextmanager
    async def step(self, what: str) -> AsyncIterator[None]:
        started = time.monotonic()
        yield
        self.say(f"{self.cluster.store}: {what} ({time.monotonic() - started:.1f} s)")

    async def soon(self, condition: Callable[[], Awaitable[bool]], what: str, seconds: float = SOON_S) -> None:
        await until(condition, what, seconds=seconds)

    async def workloads(self, network: Network) -> dict[str, Endpoint]:
        """One on every host; the one on h2 publishes its port."""
        publish = {"c2": ("-p", "8080:8080")}
        async with asyncio.TaskGroup() as group:
            for name, host in PLACES.items():
                group.create_task(self.attached(name, host, *publish.get(name, ())))
        found = {endpoint["name"]: endpoint async for endpoint in self.second.endpoints(network=NETWORK)}
        assert {name: endpoint["host"] for name, endpoint in found.items()} == PLACES
        addresses = [endpoint["address"] for endpoint in found.values()]
        subnets = [ip_network(subnet["cidr"]) for subnet in network["subnets"]]
        assert len(set(addresses)) == len(addresses)
        assert all(any(ip_address(address or "") in subnet for subnet in subnets) for address in addresses)
        return found

    async def attached(self, name: str, host: str, *options: str) -> None:
        """A new workload; whoever takes part in the network knows it then."""
        await self.cluster.exec(host, "workload", name, NETWORK, "--wait", KNOWN_S, *options)

    async def all_reach_all(self, endpoints: dict[str, Endpoint]) -> None:
        async with asyncio.TaskGroup() as group:
            for source in endpoints:
                others = [other for name, other in endpoints.items() if name != source]
                targets = [str(t) for other in others for t in (other["name"], other["address"], other["address6"])]
                group.create_task(self.reaches(source, endpoints[source]["host"], targets))

    async def reaches(self, source: str, host: str, targets: Sequence[str]) -> None:
        """A ping each, from the workload's namespace."""
        script = "for target; do ping -q -c 1 -w 3 $target >/dev/null || echo $target; done"
        missed = await self.cluster.exec(host, "ip", "netns", "exec", source, "sh", "-c", script, "sh", *targets)
        assert not missed, f"{source} on {host} does not reach {missed.split()}"

    async def ports(self, network: Network) -> None:
        await self.answers("h2", "/", "hello from c2 on h2")
        await self.answers("h2", "/ask/c3", "hello from c3 on h3")
        assert await self.cluster.page("h3") == ""
        await self.second.update_endpoint(network["id"], "c3", {"ports": [{"port": 8080, "host_port": 8080}]})
        await self.answers("h3", "/ask/c1", "hello from c1 on h1")
        await self.first.update_endpoint(network["id"], "c3", {"ports": []})

        async def is_closed() -> bool:
            return await self.cluster.page("h3") == ""

        await self.soon(is_closed, "the port is closed again")

    async def answers(self, host: str, path: str, wanted: str) -> None:
        async def does() -> bool:
            return await self.cluster.page(host, path) == wanted

        await self.soon(does, f"{host} answers {path} with {wanted!r}")

    async def without_a_third(self, network: Network, endpoints: dict[str, Endpoint]) -> None:
        """What worked works, and what is new is made: nobody waits for the dead."""
        await self.cluster.kill("controller-1", *self.cluster.members[:1])
        await self.reaches("c1", "h1", [str(endpoints["c2"]["address"]), "c3"])
        await self.attached("c4", "h1")
        made = await self.second.get_endpoint(network["id"], "c4")
        assert made["address"] not in {endpoint["address"] for endpoint in endpoints.values()}
        await self.reaches("c4", "h1", ["c1", "c2", "c3"])
        await self.reaches("c3", "h3", ["c4"])
        other = await self.second.create_network({"name": "another"})
        await self.second.delete_network(other["id"])

    async def both_agree(self) -> bool:
        told = []
        for client in (self.first, self.second):
            try:
                told.append([(e["id"], e["version"]) async for e in client.endpoints()])
            except KvnetError:
                return False
        return len(told[0]) == 4 and told[0] == told[1]

    async def host_crash(self, network: Network, lost: Endpoint) -> None:
        await self.cluster.kill("h3")
        await self.reaches("c1", "h1", ["c2"])
        await self.cluster.start("h3")

        async def is_released() -> bool:
            try:
                await self.first.get_endpoint(network["id"], lost["id"])
            except NotFound:
                return True
            return False

        await self.soon(is_released, "the endpoint of the host's former life is gone", AGAIN_S)
        await self.attached("c5", "h3", "--ip", str(lost["address"]), "--reuse")
        await self.reaches("c5", "h3", ["c1", "c2", "c4"])

    async def clean(self, network: Network) -> None:
        try:
            await self.first.delete_network(network["id"])
        except NetworkInUse as refusal:
            assert "h1" in refusal.detail  # noqa: PT017
        else:
            raise AssertionError("a network in use was deleted")
        async with asyncio.TaskGroup() as group:
            for host, names in (("h1", ("c1", "c4")), ("h2", ("c2",)), ("h3", ("c5",))):
                group.create_task(self.leave(host, names))
        await self.second.delete_network(network["id"])

    async def leave(self, host: str, names: Sequence[str]) -> None:
        """One is detached in order; of the others the namespace vanishes, as with a workload that crashes."""
        await self.cluster.exec(host, "kvnet", "detach", NETWORK, "--netns", names[0])
        for name in names:
            await self.cluster.exec(host, "workload", "--end", name)

        async def has_none() -> bool:
            return not [e async for e in self.second.endpoints(network=NETWORK, host=host)]

        await self.soon(has_none, f"{host} has no endpoint any more")

    async def nothing_left(self) -> None:
        """Not in the store, not in a kernel."""
        assert [n async for n in self.first.networks()] == []
        assert [e async for e in self.second.endpoints()] == []
        for host in set(PLACES.values()):

            async def is_bare(host: str = host) -> bool:
                links = await self.cluster.exec(host, "ip", "-o", "link")
                return not any(prefix in links for prefix in PREFIXES)

            await self.soon(is_bare, f"{host} has no interface of a network's")
        report = await self.first.check()
        assert report["ok"], report["findings"]
        self.say(await self.cluster.kvnet("check"))

    async def events(self, revision: int) -> None:
        told = set()
        async with asyncio.timeout(EVENTS_S):
            async for event in self.second.events(since=revision, follow=False):
                told.add(str(event.data.get("kind")))
        assert told >= TOLD, f"not told: {TOLD - told}"
