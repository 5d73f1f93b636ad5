"""etcd, 3.4 and 3.5: flags that both know, clients over TLS where asked for, peers without.

Asked through its own `etcdctl` (changes) and its JSON gateway (states), so nothing here shares code with the adapter
under test. Never turns fsync off.
"""

from __future__ import annotations

import asyncio
import platform
from typing import Any

from tests.servers import binaries
from tests.servers.family import Credentials, Family, Launch, ServerFailed, Site, Standing, run
from tests.servers.places import NoAnswer, http

ADMIT_SECONDS = 15.0
ROOT = Credentials("root", "password-of-root")
OWNER = Credentials("kvnet", "password-of-kvnet")
STRANGER = Credentials("stranger", "password-of-stranger")
# etcd 3.4 starts elsewhere than on amd64 only when told that this is meant.
_ARCHITECTURES = {"aarch64": "arm64", "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x"}


class Etcd(Family):
    SCHEME = "etcd"
    PORTS = ("client", "peer")

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        if site.token_ttl_s is not None and site.kind == "etcd3.4":
            raise ServerFailed("etcd 3.4 cannot be told how long a token lasts (300 s); etcd 3.5 can")

    def launch(self, index: int, *, joins: bool) -> Launch:
        site = self.site
        peers = [f"{site.name(i)}=http://{site.at(i, 'peer')}" for i in site.everywhere()]
        scheme = "https" if site.certificates else "http"
        flags = {
            "name": site.name(index),
            "data-dir": site.data(index),
            "listen-client-urls": f"{scheme}://{site.at(index, 'client')}",
            "advertise-client-urls": f"{scheme}://{site.at(index, 'client')}",
            "listen-peer-urls": f"http://{site.at(index, 'peer')}",
            "initial-advertise-peer-urls": f"http://{site.at(index, 'peer')}",
            "initial-cluster": ",".join(peers),
            "initial-cluster-token": f"{site.kind}-{site.generation}",
            "initial-cluster-state": "existing" if joins else "new",
            "logger": "zap",
            "log-level": "warn",
        }
        if site.certificates:
            flags["cert-file"] = site.certificates.server.cert
            flags["key-file"] = site.certificates.server.key
            if site.client_certificates:  # an authority alone makes etcd 3.4 ask for certificates, too
                flags["trusted-ca-file"] = site.certificates.ca
                flags["client-cert-auth"] = "true"
        if site.token_ttl_s is not None:
            flags["auth-token-ttl"] = str(site.token_ttl_s)
        command = [str(binaries.program(site.kind, "etcd")), *(f"--{flag}={value}" for flag, value in flags.items())]
        architecture = _ARCHITECTURES.get(platform.machine())
        return Launch([*command, *site.options], {"ETCD_UNSUPPORTED_ARCH": architecture} if architecture else {})

    async def is_ready(self, index: int) -> bool:
        status, answer = await self._ask(index, "GET", "/health")
        return status == 200 and answer is not None and answer.get("health") == "true"

    async def standing(self, index: int) -> Standing:
        status, answer = await self._ask(index, "POST", "/v3/maintenance/status", {})
        if status != 200 or answer is None:
            raise NoAnswer(f"{self.site.name(index)} answers {status}: {answer}")
        is_leader = answer.get("leader", "0") == answer["header"]["member_id"]
        return Standing(is_leader, int(answer.get("raftTerm", 0)))

    async def admit(self, index: int) -> None:
        """Remove the old member and add a new one in its place; etcd refuses until the others have settled."""
        try:
            async with asyncio.timeout(ADMIT_SECONDS):
                while True:
                    try:
                        return await self._replace(index)
                    except ServerFailed as error:
                        refusal = error
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise ServerFailed(f"{self.site.name(index)} is not let in: {refusal}") from None

    async def secure(self) -> None:
        await self.ctl("user", "add", f"{ROOT.user}:{ROOT.password}", trusted=False)
        await self.ctl("role", "add", "root", trusted=False)
        await self.ctl("user", "grant-role", ROOT.user, "root", trusted=False)
        await self.ctl("auth", "enable", trusted=False)

    async def grant(self, prefix: str) -> Credentials:
        role = f"below-{prefix.strip('/').replace('/', '-')}"
        await self._add("role", "add", role)
        await self.ctl("role", "grant-permission", "--prefix=true", role, "readwrite", prefix)
        await self._add("user", "add", f"{OWNER.user}:{OWNER.password}")
        await self.ctl("user", "grant-role", OWNER.user, role)
        return OWNER

    async def stranger(self) -> Credentials:
        await self._add("user", "add", f"{STRANGER.user}:{STRANGER.password}")
        return STRANGER

    async def ctl(self, *words: str, trusted: bool = True) -> str:
        """`etcdctl WORDS` at a member that answers; as root where authentication is on.

        Raises:
            ServerFailed: with its words.
        """
        answering = sorted(self.site.answering)
        if not answering:
            raise ServerFailed(f"no member of {self.site.kind} runs")
        site = self.site
        tool = [str(binaries.program(site.kind, "etcdctl")), "--command-timeout=5s"]
        if site.certificates:
            client = site.certificates.client
            tool += [f"--cacert={site.certificates.ca}", f"--cert={client.cert}", f"--key={client.key}"]
        if site.auth and trusted:
            tool.append(f"--user={ROOT.user}:{ROOT.password}")
        scheme = "https" if site.certificates else "http"
        tool.append("--endpoints=" + ",".join(f"{scheme}://{site.at(i, 'client')}" for i in answering))
        return await run(site.places[answering[0]], [*tool, *words])

    async def _replace(self, index: int) -> None:
        peer = f"http://{self.site.at(index, 'peer')}"
        for line in (await self.ctl("member", "list")).splitlines():
            identity, _, _, peers, *_ = line.split(", ")
            if peers == peer:
                await self.ctl("member", "remove", identity)
        await self.ctl("member", "add", self.site.name(index), f"--peer-urls={peer}")

    async def _add(self, *words: str) -> None:
        try:
            await self.ctl(*words)
        except ServerFailed as error:
            if "already exists" not in str(error):
                raise

    async def _ask(self, index: int, method: str, path: str, body: object = None) -> tuple[int, Any]:
        place, port = self.site.places[index], self.site.ports[index]["client"]
        return await http(place, port, method, path, body=body, tls=self.tls)
