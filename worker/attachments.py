"""Which workloads got an interface here: remembered on disk, because neither store nor kernel knows their namespaces.

A record goes through its phases in one direction: the intent before the controller is asked, claimed where the runtime
asks for the interface later (and may give it back), attached when that is there, detaching until both interface and
endpoint are gone. What a crash leaves half done is on its way out when the worker comes back. Decides nothing about
the kernel and never talks to the controller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import ip_network
from typing import Any

from datapath.names import macvlan_name, veth_name
from datapath.objects import Ip
from datapath.view import Attachment
from kvnet import codec
from kvnet.errors import StoreBroken
from kvnet.rules import IDENTIFIER
from worker.disk import StateDir
from worker.log import Log

FOLDER = "attachments"
MARK = "mark"
ROOM = 2048  # bytes of a record; few have more
# In place of a namespace that its runtime has not told yet.
ON_THE_HOST = "the host's own namespace"
VETH, MACVLAN, UNKNOWN = "veth", "macvlan", ""
ASKED_FIRST = frozenset({"docker"})  # runtimes that say whether a workload without a namespace is gone
CONTAINER = "docker.container"  # the label of endpoints that Docker's containers have


class Phase(StrEnum):
    ATTACHING = "attaching"
    CLAIMED = "claimed"  # the endpoint is there; its runtime has not asked for the interface yet, or gave it back
    ATTACHED = "attached"
    DETACHING = "detaching"


HAVING = frozenset({Phase.ATTACHING, Phase.ATTACHED})  # an interface, or soon


@dataclass(frozen=True, slots=True)
class Record:
    """One attachment, or what is left of it.

    Attributes:
        network: as it was asked for; `network_id` once the controller has told.
        identity: which namespace `netns` was, to tell it from another one under the same path.
        since: when the phase began.
        boot_id: of the host's start during which it was attached.
        answer: the endpoint as the controller returned it.
        is_certain: whether the endpoint is known to have been ours. If not, only the store can tell.
        interface: its name there; "" as long as it is not chosen, and until then nothing is made.
        order: the how manieth of its namespace it is, from 0.
        kind: of its interface; "" as long as that is not known.
        runtime: who attached it: "netns", "docker", "cni", "netavark".
        external: how that one calls it: Docker's endpoint id, a CNI attachment's key.
        is_handed_over: the inner half was left in the host's namespace under the name `interface`, for its runtime to
            move; once it is known what it is called in `netns`, that is `interface` and this is False.
        routes: what leads over its interface besides the network, on the link, as CIDRs.

    A claimed one has an interface only while that is on its way: made before its runtime asks for it or while that
    waits (handed over), or (not so) to be taken away.
    """

    endpoint: str
    network: str
    name: str
    netns: str
    interface: str
    phase: Phase
    since: float
    network_id: str = ""
    identity: str = ""
    boot_id: str = ""
    answer: Mapping[str, Any] = field(default_factory=dict)
    is_certain: bool = True
    order: int = 0
    kind: str = VETH
    runtime: str = "netns"
    external: str = ""
    is_handed_over: bool = False
    routes: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """What its interface is called in a state of the host."""
        return macvlan_name(self.endpoint) if self.is_inside else veth_name(self.endpoint)

    @property
    def is_inside(self) -> bool:
        """Its interface has no half on the host."""
        return self.kind == MACVLAN


class Attachments:
    """By endpoint id. `lost`: those whose namespace is not there (any more): their interface cannot be made."""

    def __init__(self, state: StateDir, log: Log) -> None:
        self._state = state
        self._log = log
        self._records: dict[str, Record] = {}
        self._by_device: dict[str, str] = {}
        self._told: dict[str, tuple[Record, bool, Attachment]] = {}
        self._all: tuple[frozenset[str], Mapping[str, Attachment]] | None = None
        self._mark = ""
        self.lost: set[str] = set()
        self.on_change: Callable[[], None] = lambda: None

    def bears_mark(self, endpoint: str) -> bool:
        """Whether the id was given out here, in this run or an earlier one."""
        return bool(self._mark) and endpoint.startswith(self._mark)

    def marked(self, rest: str) -> str:
        """An id that shows after a power failure whose it is, though its record was lost with that."""
        return self._mark + rest

    async def load_mark(self, fresh: str) -> None:
        """That of this state directory; `fresh` for a new one.

        Raises:
            StateUnusable
        """
        known = (self._state.read(MARK) or b"").decode(errors="replace")
        if not IDENTIFIER.match(known):
            known = fresh
            await asyncio.to_thread(self._state.write, MARK, known.encode(), durable=True)
        self._mark = known

    def load(self, now: float, *, is_new_store: bool = False) -> None:
        """What the last run left. An intent that was not finished is to be undone, whatever came of it.

        `is_new_store`: as `start_over`.
        """
        for endpoint in self._state.names(FOLDER):
            record = self._read(endpoint, now)
            if record is None:
                continue
            if record.phase is Phase.ATTACHING:
                record = replace(record, phase=Phase.DETACHING, since=now, is_certain=False)
            elif record.phase is Phase.CLAIMED:
                record = replace(record, is_handed_over=False)
            self._keep(record)
        if is_new_store:
            self.start_over()

    def start_over(self) -> None:
        """The versions in the records are those of another store, or of another past of it, and say nothing."""
        for record in self:
            self._keep(replace(record, answer={**record.answer, "version": 0}))

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def get(self, endpoint: str) -> Record | None:
        return self._records.get(endpoint)

    def of_device(self, device: str) -> Record | None:
        return self._records.get(self._by_device.get(device, ""))

    def of_phase(self, phase: Phase) -> list[Record]:
        return [record for record in self._records.values() if record.phase is phase]

    def is_attached(self, endpoint: str) -> bool:
        """Whether a workload has its interface, or will in a moment: an attachment under way is undone if it fails."""
        record = self._records.get(endpoint)
        return record is not None and _has_one(record) and endpoint not in self.lost

    def interfaces(self) -> Mapping[str, Attachment]:
        """What the desired state needs to know; those on their way out are not in it.

        Made once: every pass asks for it, several times. Never changed itself.
        """
        if self._all is None or self._all[0] != self.lost:
            having = (record for record in self._records.values() if record.interface and _has_one(record))
            self._all = frozenset(self.lost), {record.endpoint: self._attachment(record) for record in having}
        return self._all[1]

    def _attachment(self, record: Record) -> Attachment:
        is_lost = record.endpoint in self.lost
        known = self._told.get(record.endpoint)
        if known is None or known[0] is not record or known[1] != is_lost:
            attachment = Attachment(
                record.endpoint,
                "" if is_lost or _is_elsewhere(record) else _place(record),
                record.interface,
                record.order,
                record.is_handed_over,
                tuple(map(_packed, record.routes)),
            )
            known = self._told[record.endpoint] = (record, is_lost, attachment)
        return known[2]

    def keep(self, record: Record) -> None:
        """In memory and on disk, safe from a crash of the worker.

        Raises:
            StateUnusable: not written; nothing has changed.
        """
        self._state.write(_file(record.endpoint), codec.encode(record), durable=False, room=ROOM)
        self._keep(record)

    def note(self, record: Record) -> None:
        """In memory only: what is on disk leads to the same after a restart."""
        self._keep(record)

    async def keep_durably(self, record: Record) -> None:
        """As `keep`, and safe from a power failure; in memory at once."""
        self._keep(record)
        try:
            await asyncio.to_thread(self._state.write, _file(record.endpoint), codec.encode(record), durable=True)
        except BaseException:
            self._drop(record.endpoint)
            raise

    def forget(self, endpoint: str) -> None:
        self._state.remove(_file(endpoint))
        self._drop(endpoint)

    def _keep(self, record: Record) -> None:
        self._all = None
        self._records[record.endpoint] = record
        self._by_device[veth_name(record.endpoint)] = record.endpoint
        self._by_device[macvlan_name(record.endpoint)] = record.endpoint
        self.on_change()

    def _drop(self, endpoint: str) -> None:
        self._all = None
        record = self._records.pop(endpoint, None)
        self._told.pop(endpoint, None)
        if record is not None:
            self._by_device.pop(veth_name(endpoint), None)
            self._by_device.pop(macvlan_name(endpoint), None)
        self.lost.discard(endpoint)
        self.on_change()

    def _read(self, endpoint: str, now: float) -> Record | None:
        data = self._state.read(_file(endpoint))
        if data is None or not IDENTIFIER.match(endpoint):
            return None
        try:
            record = codec.decode(Record, data)
        except (StoreBroken, TypeError) as error:
            # Never finished, or torn by a power failure: it was not acknowledged, or its workload went with the power.
            self._log.warning("attachment-unreadable", endpoint=endpoint, detail=str(error))
            return Record(endpoint, "", "", "", "", Phase.DETACHING, now, is_certain=False)
        return record


def _has_one(record: Record) -> bool:
    return record.phase in HAVING or (record.phase is Phase.CLAIMED and record.is_handed_over)


def _is_elsewhere(record: Record) -> bool:
    """Its runtime has it, and nobody knows yet under which name: it must not be made a second time."""
    return record.is_handed_over and record.phase is Phase.ATTACHED


def _place(record: Record) -> str:
    return record.netns or (ON_THE_HOST if record.is_handed_over else "")


def _packed(cidr: str) -> tuple[Ip, int]:
    network = ip_network(cidr)
    return network.network_address.packed, network.prefixlen


def _file(endpoint: str) -> str:
    return f"{FOLDER}/{endpoint}"
