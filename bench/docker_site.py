"""Two Docker hosts for the Docker figures: kvnet and Docker's own overlay with a store, in the same daemons.

One etcd serves both (kvnet over its API of today, Docker 20.10 over the old one), so what is measured in turn shares
the machine, the daemon, the store and the moment. Only times calls; chooses no figures.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kvnet.http import HttpClient
from lab import namespaces, processes
from lab.docker_hosts import IMAGE, DockerLab, open_docker_lab
from lab.lab import until
from lab.ping import ping
from tests.docker import programs
from tests.servers.binaries import program

STORE = "store"
ETCD_PORT = 2379
CALL_S = 60.0
PROBE_S = 0.004
PATIENCE_S = 10.0
ARP_RETRY_MS = 20
# driver -> what `POST /networks/create` needs for it
KVNET: dict[str, Any] = {"Driver": "kvnet", "IPAM": {"Driver": "kvnet", "Config": []}}
OVERLAY: dict[str, Any] = {"Driver": "overlay", "IPAM": {"Config": []}}
BRIDGE: dict[str, Any] = {"Driver": "bridge", "IPAM": {"Config": []}}


class Refused(Exception):
    """Docker's words."""


@dataclass(slots=True)
class Daemon:
    """One host's Docker over a connection that stays open: no start of a command line is in the times."""

    name: str
    client: HttpClient

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """
        Raises:
            Refused
        """

        sent = json.dumps(body).encode() if body is not None else b""
        reply = await self.client.request(method, "/v1.41" + path, sent, CALL_S)
        answer = json.loads(reply.body) if reply.body else None
        if reply.status >= 400:
            raise Refused(f"{method} {path}: {answer}")
        return answer

    async def create_network(self, name: str, kind: dict[str, Any], subnet: str = "") -> str:
        body = {"Name": name, "CheckDuplicate": True, **kind}
        if subnet:
            body["IPAM"] = {**kind["IPAM"], "Config": [{"Subnet": subnet}]}
        return str((await self.call("POST", "/networks/create", body))["Id"])

    async def create_container(self, name: str, network: str, address: str = "") -> str:
        body: dict[str, Any] = {"Image": IMAGE, "HostConfig": {"NetworkMode": network}}
        if address:
            body["NetworkingConfig"] = {"EndpointsConfig": {network: {"IPAMConfig": {"IPv4Address": address}}}}
        return str((await self.call("POST", f"/containers/create?name={name}", body))["Id"])

    async def run(self, name: str, network: str, address: str = "") -> str:
        id_ = await self.create_container(name, network, address)
        await self.call("POST", f"/containers/{id_}/start")
        return id_

    async def remove(self, container: str) -> None:
        await self.call("DELETE", f"/containers/{container}?force=1")

    async def connect(self, network: str, container: str) -> float:
        return await self._timed(f"/networks/{network}/connect", container)

    async def disconnect(self, network: str, container: str) -> float:
        return await self._timed(f"/networks/{network}/disconnect", container)

    async def _timed(self, path: str, container: str) -> float:
        """Milliseconds."""
        began = time.perf_counter()
        await self.call("POST", path, {"Container": container})
        return (time.perf_counter() - began) * 1000

    async def lists(self, network: str) -> bool:
        """By a list: to look at one network costs a daemon with a store three times as much, and who looks all the time
        would be what is measured."""
        wanted = quote(json.dumps({"name": [network]}))
        found = await self.call("GET", f"/networks?filters={wanted}")
        return any(known["Name"] == network for known in found)

    async def address(self, container: str, network: str) -> str:
        found = await self.call("GET", f"/containers/{container}/json")
        return str(found["NetworkSettings"]["Networks"][network]["IPAddress"])


@dataclass(slots=True)
class Site:
    lab: DockerLab
    daemons: dict[str, Daemon] = field(default_factory=dict)

    async def until_listed(self, host: str, network: str) -> None:
        await until(partial(self.daemons[host].lists, network), f"{host} lists {network}")

    async def netns_of(self, host: str, container: str) -> Path:
        found = await self.daemons[host].call("GET", f"/containers/{container}/json")
        return self.lab.hosts[host].root / f"proc/{found['State']['Pid']}/ns/net"

    async def until_answered(self, netns: Path, address: str) -> float:
        """When the first echo came back, as `time.perf_counter` counts."""
        deadline = time.perf_counter() + PATIENCE_S
        opener = partial(namespaces.open_socket, netns)
        while not (await ping(opener, ip_address(address), timeout_s=PROBE_S)).ok:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{address} does not answer")
        return time.perf_counter()


def retry_arp_soon(netns: Path) -> None:
    """Linux asks for an unknown neighbour once a second: far too coarse to see when a path opens."""

    def write() -> None:
        for folder in Path("/proc/sys/net/ipv4/neigh").iterdir():
            (folder / "retrans_time_ms").write_text(str(ARP_RETRY_MS))
            (folder / "mcast_solicit").write_text("1000")

    namespaces.call(netns, write)


@asynccontextmanager
async def open_site(directory: Path) -> AsyncIterator[Site]:
    """Everything runs; nothing is made yet."""
    found = programs.docker(directory)
    # %s: the store's address is known once the lab is there
    options = ("--cluster-store=etcd://%s:2379", "--cluster-advertise=%a:2376")
    async with open_docker_lab(directory, found, hosts=2, places=(STORE,), daemon_options=options) as lab:
        store = lab.lab.places[STORE]
        lab.lab.store_url = f"etcd://127.0.0.1:{ETCD_PORT}/kvnet"
        lab.lab.controller_place = STORE
        url = f"http://{store.underlay}:{ETCD_PORT}"
        command = [str(program("etcd3.4", "etcd")), "--enable-v2=true", f"--data-dir={directory / 'etcd'}"]
        command += [f"--listen-client-urls=http://0.0.0.0:{ETCD_PORT}", f"--advertise-client-urls={url}"]
        command += ["--listen-peer-urls=http://127.0.0.1:2380"]
        etcd = await processes.start("etcd", command, logs=directory, netns=store.netns)
        lab.lab.others.append(etcd)
        await lab.lab.start_controller()
        site = Site(lab)
        for name, host in lab.hosts.items():
            host.options = tuple(word.replace("%s", str(store.underlay)) for word in host.options)
            await lab.start_worker(name)
            await host.start()
            site.daemons[name] = Daemon(name, host.client())
        for name in lab.hosts:
            await lab.lab.until_ready(name)
        try:
            yield site
        finally:
            await asyncio.gather(*(daemon.client.close() for daemon in site.daemons.values()))
