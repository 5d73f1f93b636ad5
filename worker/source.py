"""What the reconciler works from: the live view, the last known one, or nothing yet, and what may be done with it.

Decides how far the knowledge of this moment reaches, never what the kernel should look like.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from enum import Enum

from backends.store import Store
from datapath.desired import HostView
from datapath.objects import DeleteLink, HostState, Ip, Operation, Scope, Veth
from datapath.scopes import scope_of
from worker.attachments import ASKED_FIRST, Attachments, Phase, Record
from worker.lastknown import with_attachments
from worker.passes import ends_a_path, may_lose_traffic
from worker.ports import Namespaces
from worker.session import NAME_TAKEN
from worker.trust import Doubt, Trust
from worker.view import View


class Mode(Enum):
    """BLIND: nothing is known, so nothing is done. RESTORED: the last known state; nothing is removed by it.
    DOUBT: the store cannot be believed; what was built stays and is repaired. LIVE: all of it."""

    BLIND = "blind"
    RESTORED = "restored"
    DOUBT = "doubt"
    LIVE = "live"


class Source:
    """`on_missing` is told of attachments whose interface and namespace are both not there.

    `is_settled`: the host's name is known to be ours; `is_disputed`: it is known to be another's. `dns`,
    `serves_docker`: as of a `HostView`.
    """

    def __init__(
        self,
        store: Store,
        view: View,
        trust: Trust,
        attachments: Attachments,
        namespaces: Namespaces,
        on_missing: Callable[[Record], None],
        is_disputed: Callable[[], bool] = lambda: False,
        is_settled: Callable[[], bool] = lambda: True,
        *,
        dns: Ip = b"",
        serves_docker: bool = False,
    ) -> None:
        self.restored: HostView | None = None
        self._store = store
        self._view = view
        self._trust = trust
        self._attachments = attachments
        self._namespaces = namespaces
        self._on_missing = on_missing
        self._is_disputed = is_disputed
        self._is_settled = is_settled
        self._dns = dns
        self._serves_docker = serves_docker
        self._was_live = False
        self._confirmed_lists = 0

    def mode(self) -> Mode:
        if self._view.is_ready and (self._was_live or (self._view.is_in_step and self._is_settled())):
            if self.doubt() is None:
                self._was_live = True
                return Mode.LIVE
            if self._was_live:
                return Mode.DOUBT
        return Mode.RESTORED if self.restored is not None else Mode.BLIND

    def doubt(self) -> Doubt | None:
        """Why the store is not believed; None also while it has not said anything yet."""
        if not self._view.is_ready:
            return None
        if self._is_disputed():
            return Doubt(
                NAME_TAKEN,
                "another worker holds this host's name, so its networks are not built here",
                "give one of the two another --host",
            )
        unknown = self._view.local.unknown
        if unknown:
            detail = self._view.local.broken[next(iter(unknown))]
            return Doubt("store-broken", f"a local key cannot be read: {detail}")
        return self._trust.doubt()

    def present(self) -> Collection[str]:
        """The networks this host takes part in, as far as is known now."""
        if self.restored is not None and self.mode() is Mode.RESTORED:
            return self.restored.networks.keys()
        return self._view.network_ids

    def held(self) -> frozenset[str]:
        return self._view.held()

    def version(self, network_id: str) -> int:
        return self._view.version(network_id)

    def broken(self, network_id: str) -> dict[str, str]:
        tables = self._view.tables(network_id)
        return dict(tables.broken) if tables else {}

    def view(self, networks: Collection[str] | None) -> HostView:
        interfaces = self._attachments.interfaces()
        if self.restored is not None and self.mode() is Mode.RESTORED:
            return self._told(with_attachments(self.restored, interfaces))
        return self._told(self._view.host_view(networks, interfaces))

    def outline(self, without: Collection[str]) -> HostView:
        interfaces = self._attachments.interfaces()
        if self.restored is not None and self.mode() is Mode.RESTORED:
            return self._told(with_attachments(self.restored, interfaces))
        return self._told(replace(self._view.outline(without), attachments=interfaces))

    def _told(self, view: HostView) -> HostView:
        """What an operator said of this host, and no store knows."""
        return replace(view, dns=self._dns, serves_docker=self._serves_docker)

    def network_of_interface(self, device: str) -> str:
        record = self._attachments.of_device(device)
        return record.network_id if record else ""

    def scope(self, network_id: str) -> Scope:
        return scope_of(self.outline(()), network_id)

    def macvlans(self) -> dict[str, tuple[str, str]]:
        """Interfaces without a half on the host, wherever one was made."""
        found = (r for r in self._attachments if r.is_inside and r.interface and not r.is_handed_over)
        return {r.device: (r.netns, r.interface) for r in found}

    async def inspect(self, actual: HostState, networks: Collection[str] | None) -> None:
        """Look after the interfaces that should be in what was read and are not.

        One whose namespace is still there is simply made again. Where that is gone too it must not be: a new
        namespace under the same path is somebody else's.
        """
        for record in self._attachments.of_phase(Phase.ATTACHED):
            if networks is not None and record.network_id not in networks:
                continue
            if record.device in actual.links or await self._is_namespace_there(record):
                self._attachments.lost.discard(record.endpoint)
            else:
                self._attachments.lost.add(record.endpoint)
                self._on_missing(record)

    async def _is_namespace_there(self, record: Record) -> bool:
        return bool(record.identity) and await self._namespaces.identity(record.netns) == record.identity

    async def confirm(self, operations: Sequence[Operation]) -> Doubt | None:
        """Ask the store itself before anything goes that was not ordered on this host.

        Of paths to others only where something was listed anew since: an older store that came back, and was written
        to, may look like a newer one until then. What a watch tells needs no second word.
        """
        lists = self._view.lists
        is_listed_anew = lists != self._confirmed_lists
        if any(
            may_lose_traffic(operation, self._is_ordered) or (is_listed_anew and ends_a_path(operation))
            for operation in operations
        ):
            doubt = await self._trust.confirm(self._store)
            if doubt is None:
                self._confirmed_lists = lists
            return doubt
        return None

    def is_leaving(self, operation: Operation) -> bool:
        """Whether it takes an interface away whose going somebody else sees to, at a better moment."""
        if not isinstance(operation, DeleteLink) or not isinstance(operation.link, Veth):
            return False
        record = self._attachments.of_device(operation.link.name)
        return record is not None and record.phase is Phase.DETACHING and record.runtime in ASKED_FIRST

    def _is_ordered(self, device: str) -> bool:
        record = self._attachments.of_device(device)
        return record is not None and record.phase in (Phase.DETACHING, Phase.CLAIMED)
