"""The name service of one host: who asks, what that means to him, and what is told where it cannot be said.

Answers always: what is not known yet is a failure that the asker tries again, never "there is no such name". Never ends
because of what is asked.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from kvnet import keys
from kvnet.model import Condition, Driver, Endpoint, Host
from worker.attachments import Phase, Record
from worker.dns import answers as made
from worker.dns.askers import Askers, Knowledge, Known, Listing, knowledge_of
from worker.dns.bare import BareNames
from worker.dns.forward import PORT as RESOLVER_PORT
from worker.dns.forward import Forwarder, Resolvers
from worker.dns.resolv import FOLDER, NamespaceFiles
from worker.dns.server import PORT, Answering, Asked, Server
from worker.dns.zone import Found, Under, Verdict
from worker.log import Log
from worker.ports import Time
from worker.source import Source
from worker.view import View

RESOLV_CONF = Path("/etc/resolv.conf")
DOMAIN_S, DOMAIN_RETRY_S = 3600.0, 30.0  # how long it is believed that others know a domain, or do not


MOST_DOMAINS = 1024


@dataclass(slots=True)
class Domain:
    """`answer`: whether others know it, as soon as they have said so; asked again after `until`."""

    answer: asyncio.Future[bool]
    until: float = float("-inf")


class Cluster:
    """`Knowledge` from the mirrors; while the store is away at the start, from what was known last."""

    def __init__(self, view: View, source: Source) -> None:
        self._view = view
        self._source = source

    @property
    def is_complete(self) -> bool:
        return self._view.is_in_step or self._restored is not None

    @property
    def own(self) -> Host | None:
        return self._view.own

    @property
    def _restored(self) -> dict[str, Listing] | None:
        restored = self._source.restored
        return dict(knowledge_of(restored)) if restored is not None and not self._view.is_ready else None

    def networks(self) -> Iterable[str]:
        restored = self._restored
        return restored.keys() if restored is not None else list(self._view.network_ids)

    def listing(self, network_id: str) -> Listing | None:
        restored = self._restored
        if restored is not None:
            return restored.get(network_id)
        tables = self._view.tables(network_id)
        if tables is None:
            return None
        mark = (
            tables.endpoints.mirror.revision,
            tables.endpoints.lists,
            tables.specification.mirror.revision,
            tables.is_ready,
        )
        return Listing(tables.network, tables.endpoints.items, tables.known_blocks(), tables.is_ready, mark)

    def version(self, endpoint: Endpoint) -> int:
        tables = self._view.tables(endpoint.network)
        entry = tables.endpoints.mirror.entries.get(keys.endpoint(endpoint.network, endpoint.id)) if tables else None
        return entry.version if entry is not None else 0


class NameService:
    """`address`: where it answers. `records`: what is attached here. `namespace_files`: where plain namespaces have
    theirs."""

    def __init__(
        self,
        address: IPv4Address,
        host: str,
        knowledge: Knowledge,
        records: Callable[[], Iterable[Record]],
        *,
        time: Time,
        log: Log,
        resolv_conf: Path = RESOLV_CONF,
        namespace_files: Path = FOLDER,
        port: int = PORT,
        resolver_port: int = RESOLVER_PORT,
        measured: Callable[[Asked], Asked] = lambda asked: asked,
    ) -> None:
        self._knowledge = knowledge
        self._records = records
        own = frozenset({str(address), "127.0.0.1"})
        rng = random.Random(time.rng.getrandbits(64))
        self._askers = Askers(host, knowledge, records, own=own, clock=time.monotonic, rng=rng)
        resolvers = Resolvers(resolv_conf, frozenset({(str(address), port)}), time.monotonic, resolver_port)
        self._forwarder = Forwarder(resolvers, time)
        self._bare_names = BareNames(self._forwarder, time)
        self._server = Server(address, measured(self.asked), time=time, log=log, port=port)
        self._files = NamespaceFiles(
            host, address, self._namespaces, time=time, log=log, resolv_conf=resolv_conf, folder=namespace_files
        )
        self._time = time
        self._domains: dict[str, Domain] = {}

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def is_answering(self) -> bool:
        return self._server.is_answering

    @property
    def conditions(self) -> Sequence[Condition]:
        return self._server.conditions

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._server.run())
            group.create_task(self._files.run())

    async def until_told(self) -> None:
        """Return when the plain namespaces that are attached now know where to ask. Never fails."""
        await self._files.until_written()

    def asked(self, data: bytes, source: str, over_tcp: bool) -> bytes | Answering | None:
        """As `Server` has it."""
        known = self._askers.known(source)
        at_hand = known.answers.at_hand(data, self._time.monotonic(), over_tcp=over_tcp)
        if at_hand is not None:
            return at_hand
        try:
            question = made.understood(data)
        except made.Malformed as malformed:
            return malformed.answer
        return self._looked_up(data, question, known, over_tcp=over_tcp)

    def _looked_up(self, data: bytes, question: made.Question, known: Known, *, over_tcp: bool) -> bytes | Answering:
        zone = known.answers.zone
        meaning = zone.meaning(question.name)
        if isinstance(meaning, Found):
            return known.answers.prepare(data, question, meaning, over_tcp=over_tcp)
        is_known = known.is_whole and zone.is_complete
        if meaning in (Verdict.ABSENT, Verdict.BARE) and not is_known:
            return made.failed(question)
        if meaning is Verdict.ABSENT or (meaning is Verdict.BARE and zone.is_host):
            return known.answers.prepare_absent(data, question, over_tcp=over_tcp)
        if zone.is_host:
            return made.refused(question)
        if meaning is Verdict.BARE:
            until = self._bare_names.nobodys_until(question.name.lower())
            if until > self._time.monotonic():
                return known.answers.prepare_absent(data, question, over_tcp=over_tcp, until=until)
            return self._bare(data, question, known, over_tcp=over_tcp)
        if isinstance(meaning, Under):
            return self._under(data, question, meaning.domain, is_known=is_known, over_tcp=over_tcp)
        return self._forwarded(data, question, over_tcp=over_tcp)

    async def _forwarded(self, data: bytes, question: made.Question, *, over_tcp: bool) -> bytes:
        return await self._forwarder.ask(data, over_tcp=over_tcp) or made.failed(question)

    async def _bare(self, data: bytes, question: made.Question, known: Known, *, over_tcp: bool) -> bytes:
        answer = await self._bare_names.ask(question.name.lower(), data, over_tcp=over_tcp)
        meaning = known.answers.zone.meaning(question.name)
        if isinstance(meaning, Found):  # it came meanwhile
            return known.answers.prepare(data, question, meaning, over_tcp=over_tcp)
        return answer or made.absent(question)

    async def _under(
        self, data: bytes, question: made.Question, domain: str, *, is_known: bool, over_tcp: bool
    ) -> bytes:
        """A network may be called `dev`, and there are names under that in the world too."""
        if await self._is_known_elsewhere(domain):
            return await self._forwarded(data, question, over_tcp=over_tcp)
        return made.absent(question) if is_known else made.failed(question)

    async def _is_known_elsewhere(self, domain: str) -> bool:
        """Asked once in a while. What a resolver says is not there has nothing below it either (RFC 8020)."""
        now, found = self._time.monotonic(), self._domains.get(domain)
        if found is None or (found.answer.done() and now >= found.until):
            if len(self._domains) >= MOST_DOMAINS:
                self._domains.clear()
            found = self._domains[domain] = Domain(asyncio.ensure_future(self._ask_for(domain)))
        return await asyncio.shield(found.answer)

    async def _ask_for(self, domain: str) -> bool:
        answer = await self._forwarder.ask(made.about_domain(domain, self._time.rng.getrandbits(16)))
        is_told = answer is not None and not made.is_helpless(answer)
        found = self._domains.get(domain)
        if found is not None:  # not pushed out meanwhile
            found.until = self._time.monotonic() + (DOMAIN_S if is_told else DOMAIN_RETRY_S)
        return answer is not None and is_told and made.is_there(answer)

    def _namespaces(self) -> frozenset[str]:
        """The plain ones that are attached here and reach us."""
        attached = (r for r in self._records() if r.phase is Phase.ATTACHED and r.runtime == "netns")
        return frozenset(record.netns for record in attached if self._is_reached_by(record))

    def _is_reached_by(self, record: Record) -> bool:
        listing = self._knowledge.listing(record.network_id)
        endpoint = listing.endpoints.get(record.endpoint) if listing is not None else None
        if listing is None or listing.network is None or endpoint is None or endpoint.address is None:
            return False
        own = self._knowledge.own
        has_shim = listing.network.shim and own is not None and own.underlay.version == endpoint.address.version
        return listing.network.driver is not Driver.TRANSPARENT or has_shim
