"""A Docker in memory, and the rest of a worker as far as the follower needs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kvnet.errors import KvnetError, NameTaken, NotFound
from kvnet.model import Network, NetworkState, Versioned
from kvnet.wire import Endpoint, EndpointPatchBody, NameBody
from worker.attachments import Phase, Record
from worker.runtimes.docker.containers import places_of
from worker.runtimes.docker.ledger import Binding, Ledger
from worker.runtimes.docker.ports import DRIVER, EngineAway, EngineEvent, EngineNetwork, EngineRefused

EPOCH = 1_800_000_000.0


class FakeEngine:
    """`away`: it does not answer. `foreign`: names of other drivers' networks. `log`: what it was asked to change.
    `problem`: what the start of a container meets.

    With a `plugin` side: what Docker makes is bound, what it removes is unbound, as the plugin does.
    """

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.away = False
        self.id = "none-1"
        self.api = (1, 41)
        self.there: dict[str, EngineNetwork] = {}
        self.foreign: set[str] = set()
        self.boxes: dict[str, dict[str, Any]] = {}
        self.starting: dict[str, asyncio.Event] = {}
        self.log: list[str] = []
        self.asked = 0
        self.problem: KvnetError | None = None
        self.of_subnet: dict[str, str] = {}
        self._ledger = ledger
        self._streams: list[asyncio.Queue[EngineEvent | None]] = []
        self._serial = 0

    # as the worker sees it

    async def version(self) -> tuple[int, int]:
        self._enter()
        return self.api

    async def identity(self) -> str:
        self._enter()
        return self.id

    async def networks(self) -> Sequence[EngineNetwork]:
        self._enter()
        return [replace(known, endpoints={}) for known in self.there.values()]

    async def network(self, id: str) -> EngineNetwork | None:
        self._enter()
        return self.there.get(id)

    async def create_network(self, body: Mapping[str, Any]) -> str:
        self._enter()
        name = body["Name"]
        if name in self.foreign or (body["CheckDuplicate"] and any(n.name == name for n in self.there.values())):
            raise EngineRefused(f"network with name {name} already exists", 409)
        self.log.append(f"create {name}")
        return await self.appear(name, tuple(part["Subnet"] for part in body["IPAM"]["Config"]))

    async def remove_network(self, id: str) -> None:
        self._enter()
        known = self.there.get(id)
        if known is None:
            return
        if known.endpoints:
            raise EngineRefused(f"network {known.name} has active endpoints", 403)
        self.log.append(f"remove {known.name}")
        await self.vanish(id)

    async def containers(self) -> Sequence[Mapping[str, Any]]:
        self._enter()
        return [box for id_, box in self.boxes.items() if id_ not in self.starting]

    async def containers_of(self, id: str, name: str) -> Sequence[str]:
        self._enter()
        return [of for of, box in self.boxes.items() if {id, name} & {network for network, _ in places_of(box)}]

    async def listed(self, id: str) -> Mapping[str, Any] | None:
        self._enter()
        box = self.boxes.get(id)
        state = "created" if id in self.starting else "running"
        return None if box is None else {"Names": [box["Name"]], "State": state, "Labels": box["Config"]["Labels"]}

    async def container(self, id: str, timeout_s: float) -> Mapping[str, Any] | None:
        self._enter()
        if id in self.starting:
            try:
                async with asyncio.timeout(timeout_s):
                    await self.starting[id].wait()
            except TimeoutError:
                raise EngineAway("no answer") from None
        return self.boxes.get(id)

    async def exited(self) -> Sequence[Mapping[str, Any]]:
        self._enter()
        return [box for box in self.boxes.values() if box.get("State", {}).get("Status") == "exited"]

    async def start_container(self, id: str) -> None:
        self._enter()
        found = self.boxes[id]
        self.log.append(f"start {found['Name']}")
        if self.problem is not None:
            raise self.problem
        found["State"] = {**found["State"], "Status": "running", "Error": ""}

    async def events(self) -> AsyncGenerator[EngineEvent | None, None]:
        self._enter()
        queue: asyncio.Queue[EngineEvent | None] = asyncio.Queue()
        self._streams.append(queue)
        yield None
        while (event := await queue.get()) is not None:
            yield event
        raise EngineAway("the stream ended")

    # as its users and its own life have it

    async def appear(
        self, name: str, subnets: tuple[str, ...], *, network: str = "", is_automatic: bool = False
    ) -> str:
        self._serial += 1
        id_ = f"{self._serial:064x}"
        bound_to = network or self.of_subnet.get(subnets[0], "")
        if self._ledger is not None and bound_to:
            await self._ledger.bind(Binding(id_, bound_to, subnets, is_automatic=is_automatic, since=self.now()))
        self.there[id_] = EngineNetwork(id_, name, subnets)
        self.tell("network", "create", id_, name=name, type=DRIVER)
        return id_

    async def vanish(self, id: str) -> None:
        known = self.there.pop(id)
        if self._ledger is not None:
            await self._ledger.unbind(id)
        self.tell("network", "destroy", id, name=known.name, type=DRIVER)

    def now(self) -> float:
        return EPOCH + asyncio.get_running_loop().time()

    def tell(self, kind: str, action: str, id: str, **attributes: str) -> None:
        for stream in self._streams:
            stream.put_nowait(EngineEvent(kind, action, id, attributes))

    def die(self) -> None:
        self.away = True
        for stream in self._streams:
            stream.put_nowait(None)
        self._streams.clear()

    def _enter(self) -> None:
        self.asked += 1
        if self.away:
            raise EngineAway("Docker does not answer")


class FakeCatalogue:
    def __init__(self) -> None:
        self.is_in_step = True
        self.networks: dict[str, Versioned[Network]] = {}
        self._number = 1
        self._changed = asyncio.Event()

    def named(self, name: str) -> Network | None:
        return next((known.value for known in self.networks.values() if known.value.name == name), None)

    def of_subnet(self, cidr: str) -> Network | None:
        return None

    def put(self, network: Network) -> None:
        self.networks[network.id] = Versioned(network, self._number)
        self._tell()

    def drop(self, id: str) -> None:
        self.networks.pop(id, None)
        self._tell()

    def _tell(self) -> None:
        self._number += 1
        self._changed.set()

    async def changed(self, after: int) -> int:
        while self._number <= after:
            self._changed.clear()
            await self._changed.wait()
        return self._number


class FakeController:
    """Names and deletes in the catalogue. `away`: it does not answer."""

    def __init__(self, catalogue: FakeCatalogue) -> None:
        self.away: KvnetError | None = None
        self.holds: list[str] = []
        self._catalogue = catalogue

    async def name_network(self, network: str, body: NameBody) -> Any:
        self._enter()
        known = self._catalogue.networks.get(network)
        if known is None:
            raise NotFound(f"there is no network {network}")
        holder = self._catalogue.named(body["name"])
        if holder is not None and holder.id != network:
            raise NameTaken(f"{holder.id} has it")
        self._catalogue.put(replace(known.value, name=body["name"], state=NetworkState.ACTIVE))

    async def answers(self) -> bool:
        return self.away is None

    async def delete_network(self, network: str) -> None:
        self._enter()
        self._catalogue.drop(network)

    async def release_hold(self, hold: str) -> None:
        self._enter()
        self.holds.append(hold)

    def _enter(self) -> None:
        if self.away is not None:
            raise self.away


class FakePlugin:
    def __init__(self, ledger: Ledger, controller: FakeController) -> None:
        self._ledger = ledger
        self._controller = controller

    async def run(self) -> None:
        await asyncio.Event().wait()

    def status(self) -> Mapping[str, Any]:
        return {}

    async def network_gone(self, docker: str) -> None:
        binding = self._ledger.binding(docker)
        if binding is not None:
            await self._controller.delete_network(binding.network)
            await self._ledger.unbind(docker)


@dataclass
class FakeWorkloads:
    """`problem`: what changes meet."""

    kept: dict[str, Record] = field(default_factory=dict)
    changes: list[tuple[str, EndpointPatchBody]] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    problem: Exception | None = None

    def put(self, endpoint: str, external: str, phase: Phase = Phase.ATTACHED, **more: Any) -> Record:
        base = {"since": EPOCH, "network_id": "0123456789ab", "runtime": "docker", "external": external}
        record = Record(endpoint, "web", endpoint, "/ns", "kt", phase, **(base | more))
        self.kept[endpoint] = record
        return record

    def records(self) -> Sequence[Record]:
        return list(self.kept.values())

    def record(self, endpoint: str) -> Record | None:
        return self.kept.get(endpoint)

    async def change(self, endpoint: str, body: EndpointPatchBody) -> Endpoint:
        if self.problem is not None:
            raise self.problem
        self.changes.append((endpoint, body))
        self.kept[endpoint] = replace(self.kept[endpoint], answer={**self.kept[endpoint].answer, **body})
        return {}  # type: ignore[typeddict-item]

    async def settle(self, endpoint: str) -> Record:
        self.settled.append(endpoint)
        self.kept[endpoint] = replace(self.kept[endpoint], is_handed_over=False)
        return self.kept[endpoint]

    async def release(self, endpoint: str) -> bool:
        del self.kept[endpoint]
        return True


def box(
    id: str, name: str, endpoint: str, *, network: str = "web", aliases: Sequence[str] = (), **more: Any
) -> dict[str, Any]:
    """A container as it is inspected, and listed."""
    place = {"EndpointID": endpoint, "Aliases": list(aliases)}
    config = {"Hostname": more.get("hostname", id[:12]), "Labels": more.get("labels", {})}
    return {"Id": id, "Name": f"/{name}", "Config": config, "NetworkSettings": {"Networks": {network: place}}}
