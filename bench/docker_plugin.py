"""Asks the plugin as Docker does, for an endpoint that Docker knows nothing of: what the handlers take by themselves.

The sequence of calls is that of a real start and stop; only moving the interface into the sandbox is left out.
"""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

from bench.docker_site import Refused, Site
from kvnet.http import HttpClient, Target
from lab import namespaces
from lab.docker_hosts import PLUGIN

ROUNDS = 40
WARM_UP = 5
CALL_S = 10.0
MAC_OPTION = "com.docker.network.endpoint.macaddress"
Times = list[dict[str, float]]


async def handler_times(site: Site, host: str, network: str, subnet: str) -> tuple[Times, Times]:
    """Milliseconds by method, for each attachment and each detachment."""
    found = await site.daemons[host].call("GET", f"/networks/{network}")
    client = HttpClient((Target.parse(f"unix://{site.lab.hosts[host].root / PLUGIN}"),), {})
    sandbox = namespaces.create("sandbox")
    attached: Times = []
    detached: Times = []
    try:
        for _ in range(WARM_UP + ROUNDS):
            asked = Asked(client)
            await asked.endpoint(found["Id"], subnet, str(sandbox))
            attached.append(asked.attach)
            detached.append(asked.detach)
    finally:
        await client.close()
        namespaces.destroy(sandbox)
    return attached[WARM_UP:], detached[WARM_UP:]


class Asked:
    """One endpoint's life."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self.attach: dict[str, float] = {}
        self.detach: dict[str, float] = {}

    async def endpoint(self, network: str, subnet: str, sandbox: str) -> None:
        mac = "02:42:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(4))
        it = {"NetworkID": network, "EndpointID": secrets.token_hex(32)}
        answer = await self._call(
            self.attach, "IpamDriver.RequestAddress", {"PoolID": subnet, "Address": "", "Options": {MAC_OPTION: mac}}
        )
        address = answer["Address"]
        interface = {"Address": address, "AddressIPv6": "", "MacAddress": mac}
        ports: dict[str, Any] = {"com.docker.network.endpoint.exposedports": [], "com.docker.network.portmap": []}
        await self._call(
            self.attach, "NetworkDriver.CreateEndpoint", {**it, "Interface": interface, "Options": {**ports}}
        )
        await self._call(self.attach, "NetworkDriver.Join", {**it, "SandboxKey": sandbox, "Options": ports})
        await self._call(self.attach, "NetworkDriver.ProgramExternalConnectivity", {**it, "Options": ports})
        await self._call(self.attach, "NetworkDriver.EndpointOperInfo", it)
        await self._call(self.detach, "NetworkDriver.RevokeExternalConnectivity", it)
        await self._call(self.detach, "NetworkDriver.Leave", it)
        await self._call(self.detach, "NetworkDriver.DeleteEndpoint", it)
        bare = address.partition("/")[0]
        await self._call(self.detach, "IpamDriver.ReleaseAddress", {"PoolID": subnet, "Address": bare})

    async def _call(self, times: dict[str, float], method: str, body: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        reply = await self._client.request("POST", f"/{method}", json.dumps(body).encode(), CALL_S)
        times[method.partition(".")[2]] = (time.perf_counter() - began) * 1000
        answer: dict[str, Any] = json.loads(reply.body)
        if reply.status != 200 or answer.get("Err") or answer.get("Error"):
            raise Refused(f"{method}: {answer}")
        return answer
