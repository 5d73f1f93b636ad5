"""A store of one or three real servers, and everything that can happen to it.

    async with Cluster("etcd3.5", directory, members=3) as store:
        await store.members[await store.leader()].kill()
        await store.until_healthy()

All data lies in the directory that the caller gives; every process ends with the cluster, at the latest with ours.
Members run on 127.0.0.1, or where `places` says: the lab gives namespaces that it made. Never waits without a bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Self
from urllib.parse import quote

from tests.servers import binaries, partition
from tests.servers.binaries import Kind
from tests.servers.certificates import Certificates
from tests.servers.consul import Consul
from tests.servers.etcd import Etcd
from tests.servers.family import Credentials, Family, ServerFailed, Site, Standing
from tests.servers.member import READY_SECONDS, Member
from tests.servers.places import LOOPBACK, NoAnswer, Place
from tests.servers.zookeeper import ZooKeeper

LEADER_SECONDS = 30.0
POLL_SECONDS = 0.05
BEGINNINGS = 3
PORT_TAKEN = "already in use"  # as Go and Java say it
FAMILIES: dict[Kind, type[Family]] = {
    "etcd3.4": Etcd,
    "etcd3.5": Etcd,
    "consul": Consul,
    "zookeeper": ZooKeeper,
    "zookeeper3.9": ZooKeeper,
}


class Cluster:
    """
    tls: clients must speak TLS; `certificates` has what they need.
    client_certificates: and must show a certificate of ours.
    auth: etcd's users, Consul's ACLs (default deny), ZooKeeper's SASL; `grant` and `stranger` make credentials.
    token_ttl_s: how long a simple token of etcd 3.5 lasts.
    options: further arguments of etcd and Consul, further lines of ZooKeeper's zoo.cfg.

    Raises:
        NotInstalled: the servers are not unpacked here.
    """

    def __init__(
        self,
        kind: Kind,
        directory: Path,
        *,
        members: int = 1,
        places: Sequence[Place] | None = None,
        tls: bool = False,
        client_certificates: bool = False,
        auth: bool = False,
        token_ttl_s: int | None = None,
        options: Sequence[str] = (),
    ) -> None:
        binaries.require(kind)
        where = tuple(places) if places is not None else (LOOPBACK,) * members
        self.kind = kind
        self.directory = directory
        self.certificates: Certificates | None = None
        if tls or client_certificates:
            self.certificates = Certificates(directory / "certificates", [place.address for place in where])
        self.site = Site(
            kind=kind,
            directory=directory,
            places=where,
            certificates=self.certificates,
            client_certificates=client_certificates,
            auth=auth,
            token_ttl_s=token_ttl_s,
            options=tuple(options),
        )
        self.family: Family = FAMILIES[kind](self.site)
        self.members = [Member(self.family, index) for index in self.site.everywhere()]
        self._secured_generation = 0

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await self.kill_all()
            raise
        return self

    async def _begin(self) -> None:
        """Between the choice of a port and its use somebody else may take it: another one is chosen then."""
        for _ in range(BEGINNINGS - 1):
            try:
                return await self.start()
            except ServerFailed as error:
                if PORT_TAKEN not in str(error):
                    raise
            await asyncio.gather(*(member.wipe() for member in self.members))
            self.family.choose_ports()
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.kill_all()

    @property
    def endpoints(self) -> list[str]:
        """`host:port` of every member, for clients."""
        return [member.endpoint for member in self.members]

    def url(self, root: str = "kvnet", who: Credentials | None = None) -> str:
        """The store URL, with credentials if given, and with the files that TLS needs."""
        scheme = self.family.SCHEME + ("s" if self.certificates else "")
        parameters = {}
        if self.certificates:
            parameters["ca"] = str(self.certificates.ca)
            if self.site.client_certificates:
                parameters["cert"] = str(self.certificates.client.cert)
                parameters["key"] = str(self.certificates.client.key)
        if self.kind.startswith("zookeeper") and self.site.auth:
            parameters["auth"] = "sasl"
        login = f"{quote(who.user, safe='')}:{quote(who.password, safe='')}@" if who else ""
        query = "&".join(f"{name}={quote(value)}" for name, value in parameters.items())
        return f"{scheme}://{login}{','.join(self.endpoints)}/{root}" + (f"?{query}" if query else "")

    async def start(self) -> None:
        """Start every member that does not run and wait until all of them serve clients.

        Raises:
            ServerFailed: one does not come up; with its last words.
        """
        await asyncio.gather(*(member.start() for member in self.members if not member.is_running))
        await self.until_healthy()
        if self.site.auth and self._secured_generation != self.site.generation:
            await self.family.secure()
            self._secured_generation = self.site.generation

    async def until_healthy(self, seconds: float = READY_SECONDS) -> None:
        """Wait until every member that runs and is not frozen serves clients.

        Raises:
            ServerFailed: not in time.
        """
        waiting = [m for m in self.members if m.is_running and not m.is_frozen]
        if not waiting:
            raise ServerFailed(f"no member of {self.kind} runs")
        await asyncio.gather(*(member.until_ready(seconds) for member in waiting))

    async def leader(self, seconds: float = LEADER_SECONDS) -> int:
        """The index of the member that leads now; waits while there is none.

        One that was cut off believes in itself until it notices: for some seconds it is the only one.

        Raises:
            ServerFailed: there is none in time.
        """
        try:
            async with asyncio.timeout(seconds):
                while True:
                    standings = dict(zip(sorted(self.site.answering), await self._standings(), strict=True))
                    leaders = [(s.term, index) for index, s in standings.items() if s is not None and s.leads]
                    if leaders:
                        return max(leaders)[1]
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise ServerFailed(f"{self.kind} has no leader after {seconds:g} s") from None

    async def restart_all(self) -> None:
        """Stop all members, then start them on the same data."""
        await self.stop_all()
        await self.start()

    async def kill_all(self) -> None:
        """As when the power fails. Repeating is no error."""
        await asyncio.gather(*(member.kill() for member in self.members))

    async def wipe_all(self) -> None:
        """Everything is lost: a new, empty cluster at the same addresses. Credentials must be granted anew."""
        await asyncio.gather(*(member.wipe() for member in self.members))
        await self.start()

    async def stop_all(self) -> None:
        """Repeating is no error."""
        await asyncio.gather(*(member.stop() for member in self.members))

    async def partition(self, index: int, from_: Sequence[str] | None = None) -> None:
        """Cut a member off from these addresses (other members or hosts), or from everyone; replaces its last cut.

        Raises:
            ServerFailed: it has no network namespace of its own.
        """
        await partition.cut(self.members[index].place, from_)

    async def heal(self) -> None:
        """Undo every `partition`."""
        await asyncio.gather(*(partition.heal(m.place) for m in self.members if m.place.netns is not None))

    async def grant(self, prefix: str) -> Credentials:
        """Someone who may do everything below this key prefix ("/kvnet/") and nothing elsewhere (needs `auth`)."""
        return await self.family.grant(prefix)

    async def stranger(self) -> Credentials:
        """Someone whom the store knows and allows nothing (needs `auth`)."""
        return await self.family.stranger()

    async def _standings(self) -> list[Standing | None]:
        return await asyncio.gather(*(self._standing(index) for index in sorted(self.site.answering)))

    async def _standing(self, index: int) -> Standing | None:
        try:
            return await self.family.standing(index)
        except NoAnswer:
            return None
