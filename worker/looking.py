"""Answers the question `look`: what this host shows of the way between two endpoints.

Puts together what the worker knows (its workloads, how far it has come, what it put right lately) and what the kernel
has now. Reads only. The answer is filtered to the pair, so that it stays small on a large host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, Protocol

from datapath.names import DNS_BRIDGE
from datapath.objects import Kernel, Scope
from datapath.trace.firewall import relevant
from datapath.trace.seen import Question, SeenNetwork, Sight, from_plain, to_plain
from kvnet.errors import KernelRefused, KvnetError
from worker.attachments import Attachments, Phase, Record
from worker.kernel.scene import Place, look
from worker.pausing import Pause
from worker.reconcile import Reconciler
from worker.repairs import Repairs
from worker.settings import Settings
from worker.source import Source
from worker.threads import Inside, Threads
from worker.view import View

MOST_CONDITIONS = 16
AT_ONCE = 2
HOST = Scope("0" * 12, bridge=DNS_BRIDGE)

Look = Callable[[Question, Mapping[str, Place], bool], Sight]


class Knowledge(Protocol):
    """What the worker knows besides its kernel."""

    def about(self, sight: Sight) -> Sight:
        """With its mode, its session and the address for names."""
        ...

    def network(self, network_id: str) -> SeenNetwork | None: ...

    def record(self, endpoint: str) -> Record | None: ...


class Knowing:
    """The worker's parts, as far as they know something of the pair."""

    def __init__(
        self,
        settings: Settings,
        view: View,
        source: Source,
        attachments: Attachments,
        reconciler: Reconciler,
        is_fenced: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._view = view
        self._source = source
        self._attachments = attachments
        self._reconciler = reconciler
        self._is_fenced = is_fenced

    def about(self, sight: Sight) -> Sight:
        doubt, settings = self._source.doubt(), self._settings
        return replace(
            sight,
            host=settings.host,
            mode=self._source.mode().value,
            is_fenced=self._is_fenced(),
            doubt=doubt.detail if doubt is not None else "",
            dns=str(settings.dns) if settings.dns is not None else "",
        )

    def network(self, network_id: str) -> SeenNetwork | None:
        observed = self._reconciler.observed().get(network_id)
        if observed is None:
            return None
        told = tuple(f"{condition.code}: {condition.detail}" for condition in observed.conditions[:MOST_CONDITIONS])
        return SeenNetwork(network_id, observed.version, self._view.version(network_id), told)

    def record(self, endpoint: str) -> Record | None:
        record = self._attachments.get(endpoint)
        return record if record is not None and record.phase is not Phase.DETACHING else None


class Looker:
    """`look_there`: reads the kernel; in place of the real one for tests."""

    def __init__(
        self,
        kernel: Kernel,
        knowledge: Knowledge,
        pause: Pause,
        repairs: Repairs,
        look_there: Look = lambda question, places, with_own: look(question, places, with_own=with_own),
    ) -> None:
        self._kernel = kernel
        self._knowledge = knowledge
        self._pause = pause
        self._repairs = repairs
        self._look_there = look_there
        self._threads = Threads(AT_ONCE, "look")

    async def answer(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """
        Raises:
            Invalid: not a question.
            KernelRefused: nothing can be read.
        """
        question = from_plain(Question, parameters.get("question"), "/question")
        known = self._knowledge
        records = (known.record(inner.endpoint) for inner in question.inner)
        places = {record.endpoint: place_of(record) for record in records if record is not None}
        sight = await sight_of(self._kernel, question, places, self._look_there, self._threads.run)
        words = [*question.devices, *question.macs, *question.addresses]
        sight = replace(
            sight,
            networks=tuple(n for id_ in question.networks if (n := known.network(id_)) is not None),
            paused_s=self._pause.left_s,
            repairs=tuple(self._repairs.of(question.networks, words)),
        )
        return to_plain(known.about(sight))


async def sight_of(
    kernel: Kernel,
    question: Question,
    places: Mapping[str, Place],
    look_there: Look,
    inside: Inside = asyncio.to_thread,
) -> Sight:
    """What the kernel shows.

    Raises:
        KernelRefused
    """
    unread = []
    firewall = None
    try:
        firewall = (await kernel.read(HOST, firewall=True)).firewall
    except KvnetError as error:
        unread.append(f"kvnet's firewall: {error.detail}")
    try:
        sight = await inside(look_there, question, places, firewall is None)
    except OSError as error:
        raise KernelRefused(f"the kernel cannot be read: {error.strerror or error}", fix="see its log") from error
    ends = [ip_address(end).packed for end in question.ends]
    rules = None if firewall is None else relevant(firewall, question.devices, ends)
    return replace(sight, rules=rules, unread=(*sight.unread, *unread))


def place_of(record: Record) -> Place:
    _, _, identity = record.identity.rpartition(":")
    device = record.identity.rsplit(":", 2)[-2] if record.identity.count(":") >= 2 else ""
    return Place(
        record.netns,
        record.interface,
        int(device) if device.isdigit() else 0,
        int(identity) if identity.isdigit() else 0,
        record.order,
        record.is_handed_over,
        record.routes,
    )
