"""Users, outages and restarts in any order: Docker and the store never contradict each other, and all of it can go."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from kvnet.errors import KvnetError
from tests.unit.worker.docker.kit import Cluster, Container, DockerError, DockerNetwork, Host, a_cluster
from worker.runtimes.docker import patience, plugin, pools

pytestmark = pytest.mark.anyio

STEPS = 120
SUBNETS = ("", "10.90.1.0/24", "10.90.2.0/24", "10.90.2.0/25")


@dataclass
class Storm:
    cluster: Cluster
    rng: random.Random
    networks: dict[str, list[DockerNetwork]] = field(default_factory=dict)
    containers: dict[str, list[Container]] = field(default_factory=dict)
    named: int = 0

    async def step(self) -> None:
        host = self.rng.choice(list(self.cluster.hosts.values()))
        step = self.rng.choices((self.create, self.run, self.stop, self.remove, self.trouble), (3, 5, 3, 2, 2))[0]
        with contextlib.suppress(DockerError):
            await step(host)

    async def create(self, host: Host) -> None:
        network = await host.docker.create(subnets=(self.rng.choice(SUBNETS), *self.rng.choice(((), ("6",)))))
        self.networks.setdefault(host.name, []).append(network)
        binding = host.ledger.binding(network.id)
        assert binding is not None
        self.named += 1
        with contextlib.suppress(KvnetError):
            await host.line.name_network(binding.network, {"name": f"n{self.named}"})

    async def run(self, host: Host) -> None:
        if mine := self.networks.get(host.name):
            container = await host.docker.run(self.rng.choice(mine))
            self.containers.setdefault(host.name, []).append(container)

    async def stop(self, host: Host) -> None:
        if mine := self.containers.get(host.name):
            await host.docker.stop(mine.pop(self.rng.randrange(len(mine))))

    async def remove(self, host: Host) -> None:
        in_use = {container.network for container in self.containers.get(host.name, ())}
        mine = [network for network in self.networks.get(host.name, ()) if network.id not in in_use]
        if mine:
            network = self.rng.choice(mine)
            self.networks[host.name].remove(network)
            await host.docker.remove(network)

    async def trouble(self, host: Host) -> None:
        if self.rng.random() < 0.5:
            await host.restart()
        else:
            host.line.state = "cut" if host.line.state == "up" else "up"

    async def check(self) -> None:
        """Every container that runs has its endpoint, with an address that is nobody else's."""
        endpoints = {}
        for network in await self.cluster.networks():
            for endpoint in await self.cluster.endpoints(network["id"]):
                for address in endpoint["addresses"]:
                    assert address not in endpoints
                    endpoints[address] = endpoint["host"]
        for host, containers in self.containers.items():
            for container in containers:
                assert endpoints[container.address] == host
                assert ip_address(container.address) in ip_network(container.pool)

    async def end(self) -> None:
        for host in self.cluster.hosts.values():
            host.line.state = "up"
            for container in self.containers.pop(host.name, []):
                await host.docker.stop(container)
            await host.workloads.settle_debts()
        for host in self.cluster.hosts.values():
            for network in self.networks.pop(host.name, []):
                await host.docker.remove(network)
        for host in self.cluster.hosts.values():
            for binding in host.ledger.bindings():  # the follower finds them without a network of Docker's
                await host.plugin.network_gone(binding.docker)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_nothing_is_shared_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(patience, "PASSING_S", 0.05)
    monkeypatch.setattr(pools, "BECOMES_NETWORK_S", 0.1)
    monkeypatch.setattr(plugin, "ANSWER_S", 2.0)
    async with a_cluster(tmp_path, "h1", "h2") as cluster:
        storm = Storm(cluster, random.Random(seed))
        import builtins

        builtins.STORM = storm
        for _ in range(STEPS):
            await storm.step()
        await storm.check()
        print(
            "ALIVE",
            {h: (len(storm.networks.get(h, ())), len(storm.containers.get(h, ()))) for h in cluster.hosts},
            {
                k: (v["count"], v["failed"])
                for h in cluster.hosts.values()
                for k, v in h.plugin.status()["calls"].items()
                if "Request" in k or "Create" in k
            },
        )
        await storm.end()

        for host in cluster.hosts.values():
            assert not list(host.ledger.bindings()), seed
            assert not host.workloads.records(), seed
            assert "fault" not in host.said.getvalue(), host.said.getvalue()
        for network in await cluster.networks():
            assert network["state"] == "naming", (seed, network)  # goes by itself, as holds do
            assert not await cluster.endpoints(network["id"]), seed
