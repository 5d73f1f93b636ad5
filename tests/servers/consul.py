"""Consul 1.8 servers: one datacenter, no agents beside them, ACLs and HTTPS where asked for.

A member keeps its node id when it is wiped, so the others take it back without an operator. Gossip and Raft speak
without TLS. Never relies on a Consul client library.
"""

from __future__ import annotations

import json
import uuid
from typing import Any
from urllib.parse import quote

from tests.servers import binaries
from tests.servers.family import Credentials, Family, Launch, ServerFailed, Site, Standing
from tests.servers.places import NoAnswer, http

CONNECTIONS_PER_CLIENT = 8192  # the default of 200 is less than one busy test needs
MANAGEMENT_TOKEN = "6d616e61-6765-4d65-8e74-6b766e657400"


class Consul(Family):
    SCHEME = "consul"
    PORTS = ("client", "server", "serf")

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._node_ids = [str(uuid.uuid4()) for _ in site.places]

    def launch(self, index: int, *, joins: bool) -> Launch:
        site = self.site
        ports = site.ports[index]
        has_tls = site.certificates is not None
        settings: dict[str, Any] = {
            "server": True,
            "bootstrap_expect": len(site.places),
            "node_name": site.name(index),
            "node_id": self._node_ids[index],
            "data_dir": str(site.data(index)),
            "bind_addr": site.places[index].address,
            "client_addr": site.places[index].address,
            "ports": {
                "http": -1 if has_tls else ports["client"],
                "https": ports["client"] if has_tls else -1,
                "server": ports["server"],
                "serf_lan": ports["serf"],
                "serf_wan": -1,
                "grpc": -1,
                "dns": -1,
            },
            "retry_join": [site.at(i, "serf") for i in site.everywhere() if i != index],
            "retry_interval": "1s",
            "performance": {"raft_multiplier": 1},
            "limits": {"http_max_conns_per_client": CONNECTIONS_PER_CLIENT},
            "disable_update_check": True,
            "log_level": "WARN",
        }
        if site.certificates:
            settings["ca_file"] = str(site.certificates.ca)
            settings["cert_file"] = str(site.certificates.server.cert)
            settings["key_file"] = str(site.certificates.server.key)
            settings["verify_incoming_https"] = site.client_certificates
        if site.auth:
            tokens = {"master": MANAGEMENT_TOKEN, "agent": MANAGEMENT_TOKEN}
            settings["acl"] = {"enabled": True, "default_policy": "deny", "tokens": tokens}
        file = site.folder(index) / "consul.json"
        file.write_text(json.dumps(settings, indent=1))
        return Launch([str(binaries.program("consul", "consul")), "agent", f"-config-file={file}", *site.options])

    async def is_ready(self, index: int) -> bool:
        """It reads through the leader, and the leader knows its node: before, no session can be made."""
        if self.site.auth and (await self._ask(index, "GET", "/v1/acl/token/self"))[0] != 200:
            return False
        read, _ = await self._ask(index, "GET", "/v1/kv/kvnet-probe?consistent")
        listed, node = await self._ask(index, "GET", f"/v1/catalog/node/{self.site.name(index)}")
        return read in (200, 404) and listed == 200 and bool(node) and bool(node.get("Node"))

    async def standing(self, index: int) -> Standing:
        status, answer = await self._ask(index, "GET", "/v1/agent/self")
        if status != 200 or answer is None:
            raise NoAnswer(f"{self.site.name(index)} answers {status}")
        raft = answer["Stats"]["raft"]
        return Standing(raft["state"] == "Leader", int(raft["term"]))

    async def grant(self, prefix: str) -> Credentials:
        below = prefix.lstrip("/")
        rules = f'key_prefix "{below}" {{ policy = "write" }} session_prefix "" {{ policy = "write" }}'
        policy = f"below-{uuid.uuid4()}"
        await self.change("/v1/acl/policy", {"Name": policy, "Rules": rules})
        return await self._token([{"Name": policy}])

    async def stranger(self) -> Credentials:
        return await self._token([])

    async def change(self, path: str, body: object) -> Any:
        """PUT with the management token, to a member that answers.

        Raises:
            ServerFailed: it was refused.
        """
        for index in sorted(self.site.answering):
            try:
                status, answer = await self._ask(index, "PUT", path, body)
            except NoAnswer:
                continue
            if status == 200:
                return answer
            raise ServerFailed(f"PUT {path}: {status} {answer}")
        raise ServerFailed(f"PUT {path}: no member of {self.site.kind} answers")

    async def _token(self, policies: list[dict[str, str]]) -> Credentials:
        made = await self.change("/v1/acl/token", {"Policies": policies})
        return Credentials("", str(made["SecretID"]))

    async def _ask(self, index: int, method: str, path: str, body: object = None) -> tuple[int, Any]:
        place, port = self.site.places[index], self.site.ports[index]["client"]
        headers = {"X-Consul-Token": MANAGEMENT_TOKEN} if self.site.auth else {}
        return await http(place, port, method, quote(path, safe="/?=&"), body=body, headers=headers, tls=self.tls)
