"""The question `probe`: one host's part in a test of who reaches whom, in three steps that a controller asks for.

`listen`: count what arrives, for a bounded time. `send`: try hosts and endpoints. `collect`: tell what was counted.
A test names hosts and endpoints; their addresses come from what this host's own mirrors know, so no question can make
it send anything to anybody else. One test at a time, each bounded in time, packets and pace. Nothing here changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from datapath.names import veth_name
from datapath.objects import VXLAN_PORT
from kvnet.errors import Invalid, MissingCapability, NotFound, ProbeBusy
from kvnet.model import Driver, Endpoint, Host, Network
from worker.attachments import Attachments, Phase, Record
from worker.ports import Time
from worker.probing.inside import Asked, Asker, Goal, ask, mtu_of
from worker.probing.parameters import Sending, parse_session, sending
from worker.probing.tally import Tally
from worker.probing.volley import Fired, Target, fire
from worker.probing.watch import Watch
from worker.view import View

SOURCES_AT_ONCE = 16


class Prober:
    """One per worker. What a test opened is closed with it, or when its time is over."""

    def __init__(self, view: View, attachments: Attachments, *, time: Time) -> None:
        self._view = view
        self._attachments = attachments
        self._time = time
        self._watch: Watch | None = None
        self._hosts: tuple[str, ...] = ()
        self._until = 0.0
        self._timer: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def answer(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """
        Raises:
            Invalid: not a step, or more than a test may be.
            ProbeBusy: another test is under way.
            NotFound: the test is over, or a host or endpoint is unknown here.
            MissingCapability: this worker may not open packet sockets.
        """
        step = parameters.get("step")
        steps = {"listen": self._listen, "send": self._send, "collect": self._collect}
        if step not in steps:
            raise Invalid.field("/step", f"{str(step)[:40]!r} is not a step", "listen, send or collect")
        try:
            return await steps[step](parameters)
        except PermissionError as error:
            raise MissingCapability(
                "this worker may not open raw sockets, which connectivity tests are made with",
                fix="on that host: systemctl start kvnet-raw.socket; or give the worker CAP_NET_RAW",
            ) from error

    async def _listen(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        asked = parse_session(parameters)
        async with self._turn:
            now = self._time.monotonic()
            if self._watch is not None and self._watch.tally.session != asked.session:
                left = self._until - now
                raise ProbeBusy(
                    f"another connectivity test is under way on {self._view.host}, for {left:.0f} s at most",
                    fix="repeat it then",
                )
            await self._stop()
            if self._view.host not in asked.hosts:
                raise Invalid.field("/hosts", f"{self._view.host} is not in the test", "name it among the hosts")
            own = asked.hosts.index(self._view.host)
            self._watch = await Watch.open(Tally(asked.session, own, len(asked.hosts), asked.pairs))
            self._hosts = asked.hosts
            self._until = now + asked.seconds
            self._timer = asyncio.create_task(self._expire(self._until - now))
        return self._introduction()

    def _introduction(self) -> dict[str, Any]:
        """What a peer needs to know to try this host."""
        own = self._view.own
        return {
            "host": self._view.host,
            "underlay": str(own.underlay) if own is not None else None,
            "mtu": own.mtu if own is not None else None,
            "port": VXLAN_PORT,
            "attached": [record.endpoint for record in self._attachments if _is_there(record)],
            "vnis": sorted(n.vni for n in self._networks() if n.vni is not None and n.driver is Driver.OVERLAY),
        }

    def _networks(self) -> list[Network]:
        """Those that are built here."""
        carried = set(self._view.local.items.values())
        known = [self._view.tables(id_) for id_ in carried]
        return [tables.network for tables in known if tables is not None and tables.network is not None]

    async def _send(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        asked = sending(parameters)
        watch = self._under_way(asked.session)
        fired: dict[int, Fired] = {}
        answers: dict[int, Asked] = {}
        own = self._view.own
        targets = [self._target(one) for one in asked.targets]
        reachable = [t for t in targets if own is not None and t.address.version == own.underlay.version]
        if own is not None and reachable:
            fired = await fire(own.underlay, watch.tally.own, asked.session, reachable, self._time.rng)
        gate = asyncio.Semaphore(SOURCES_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for asker, goals in (await self._askers(asked, watch, answers)).items():
                group.create_task(self._ask(gate, asker, goals, answers))
        return {
            "targets": [found.as_json(number) for number, found in sorted(fired.items())],
            "pairs": [found.as_json(pair) for pair, found in sorted(answers.items())],
        }

    async def _ask(self, gate: asyncio.Semaphore, asker: Asker, goals: list[Goal], answers: dict[int, Asked]) -> None:
        async with gate:
            answers.update(await ask(asker, goals, self._time.rng))

    def _target(self, one: Mapping[str, Any]) -> Target:
        host = self._host(self._hosts[one["to"]] if one["to"] < len(self._hosts) else "")
        return Target(
            one["to"], host.underlay, one["vni"], one["small"], tuple(one["sizes"]), one["repeat"], one["echoes"]
        )

    def _host(self, name: str) -> Host:
        found = self._view.hosts.items.get(name)
        if found is None or name == self._view.host:
            raise NotFound(f"{self._view.host} knows no other host {name!r}")
        return found

    async def _askers(self, asked: Sending, watch: Watch, answers: dict[int, Asked]) -> dict[Asker, list[Goal]]:
        """What is not there is told of its pair alone."""
        found: dict[Asker, list[Goal]] = {}
        for one in asked.pairs:
            try:
                asker, goal = await self._asked_for(one, watch)
            except (NotFound, OSError) as error:
                answers[one["pair"]] = Asked(error="NOT-HERE", detail=str(error))
                continue
            found.setdefault(asker, []).append(goal)
        return found

    async def _asked_for(self, one: Mapping[str, Any], watch: Watch) -> tuple[Asker, Goal]:
        source, target = self._endpoint(one["network"], one["from"]), self._endpoint(one["network"], one["to"])
        record = self._attachments.get(source.id)
        if record is None or not _is_there(record):
            raise NotFound(f"endpoint {source.name} has no interface on {self._view.host}")
        address = target.address if one["family"] == 4 else target.address6
        if address is None:
            raise NotFound(f"endpoint {target.name} has no IPv{one['family']} address")
        asker = Asker(record.netns, record.interface, watch.tally.own, watch.tally.session)
        full = await asyncio.to_thread(_full_size, source, asker)
        mac = bytes.fromhex(target.mac.replace(":", ""))
        on_link = self._network(one["network"]).driver is not Driver.ROUTED
        return asker, Goal(one["pair"], address, mac, full, on_link)

    def _network(self, network_id: str) -> Network:
        tables = self._view.tables(network_id)
        if tables is None or tables.network is None:
            raise NotFound(f"{self._view.host} has no network {network_id!r}")
        return tables.network

    def _endpoint(self, network_id: str, id_: str) -> Endpoint:
        tables = self._view.tables(network_id)
        found = tables.endpoints.items.get(id_) if tables is not None else None
        if found is None:
            raise NotFound(f"{self._view.host} knows no endpoint {id_!r} of network {network_id!r}")
        return found

    async def _collect(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        session = parse_session(parameters, is_whole=False).session
        watch = self._under_way(session)
        if parameters.get("end", True):
            async with self._turn:
                await self._stop()
        return {**watch.tally.as_json(), "missed": watch.missed}

    def _under_way(self, session: bytes) -> Watch:
        if self._watch is None or self._watch.tally.session != session:
            raise NotFound("that connectivity test is over on this host", fix="start it again")
        return self._watch

    async def _expire(self, seconds: float) -> None:
        """A controller that dies in the middle leaves nothing behind."""
        await self._time.sleep(seconds)
        async with self._turn:
            self._timer = None
            await self._stop()

    async def _stop(self) -> None:
        watch, self._watch = self._watch, None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if watch is not None:
            await watch.close()


def _is_there(record: Record) -> bool:
    """It has an interface in a namespace that is known, under a known name."""
    return record.phase is Phase.ATTACHED and bool(record.netns) and not record.is_handed_over


def _full_size(source: Endpoint, asker: Asker) -> int:
    """What the network lets through here: the MTU of the interface's half on the host, else of the interface."""
    try:
        return mtu_of(veth_name(source.id))
    except OSError:
        return mtu_of(asker.interface, asker.netns)
