"""The way of a packet between two endpoints: finds the two, asks their hosts, and tells hop by hop what is there.

What should be is computed here, from the store, with the functions that the workers use; what is there is told by the
workers, each about its own host. A host that does not answer is a finding, and all else is still told. Changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controller.finding import Finder
from controller.questions import Questions
from controller.requests import Caller
from controller.state import State
from datapath.trace.asking import question
from datapath.trace.case import Case, End, Flow, Standing
from datapath.trace.seen import Sight, from_plain, to_plain
from datapath.trace.trace import as_json, trace
from kvnet.errors import Invalid, KvnetError
from kvnet.model import Address, Endpoint, Network
from kvnet.moments import moment

ASK_S = 6.0
LARGE_NETWORK = 1000
HERE = "here"


@dataclass(frozen=True, slots=True)
class Wish:
    """`family` 0: what both have, IPv4 first. `seen`: hosts that were looked at by somebody else than their workers."""

    source: str
    target: str
    flow: Flow = field(default_factory=Flow)
    family: int = 0
    seen: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    asks: bool = True


class Tracing:
    def __init__(self, state: State, questions: Questions) -> None:
        self._state = state
        self._questions = questions
        self._finder = Finder(state)

    async def trace(self, wish: Wish, caller: Caller) -> dict[str, Any]:
        """
        Raises:
            NotFound, AmbiguousName: one of the two.
            Invalid: they have no family of addresses in common, or what was seen is not an answer of a host.
        """
        case = self._case(wish)
        asked = {host: to_plain(question(case, host)) for host in case.own_hosts}
        sights = {host: _seen(seen, host) for host, seen in wish.seen.items() if host in case.own_hosts}
        silences: dict[str, str] = {}
        if wish.asks:
            left = {host: {"question": asked[host]} for host in case.own_hosts if host not in sights}
            answered, silences = await self._asked(left, caller)
            sights = {**answered, **sights}
        is_large = sum(len(case.endpoints.get(network.id, ())) for network in case.own_networks) > LARGE_NETWORK
        found = await asyncio.to_thread(trace, case, sights, silences) if is_large else trace(case, sights, silences)
        return {**as_json(found), "questions": None if wish.asks else asked}

    async def _asked(
        self, parameters: Mapping[str, Mapping[str, Any]], caller: Caller
    ) -> tuple[dict[str, Sight], dict[str, str]]:
        sights: dict[str, Sight] = {}
        silences: dict[str, str] = {}
        for host, answer in (await self._questions.ask_all(parameters, "look", caller, ASK_S)).items():
            if isinstance(answer, KvnetError):
                silences[host] = answer.detail
                continue
            try:
                sights[host] = from_plain(Sight, answer)
            except Invalid as error:
                silences[host] = f"its worker answers in another way ({error.detail}): is it another version?"
        return sights, silences

    def _case(self, wish: Wish) -> Case:
        a, family_a = self._finder.find(wish.source, "/from")
        b, family_b = self._finder.find(wish.target, "/to")
        family = _family(a, b, family_a or wish.family, family_b or wish.family)
        first = self._end(a, family)
        second = first if (a.network, a.id) == (b.network, b.id) else self._end(b, family)
        networks = self._networks(first.network, second.network)
        state = self._state
        own = {first.network.id, second.network.id}
        hosts = {name: host.value for name, host in state.hosts.items.items()}
        return Case(
            first,
            second,
            wish.flow,
            hosts,
            {host: self._standing(host) for host in {a.host, b.host}},
            networks,
            {id_: {e: found.value for e, found in state.endpoints_of(id_).items()} for id_ in own},
            {id_: tuple(block.value for block in state.blocks_of(id_).values()) for id_ in networks},
            {id_: state.latest_change(id_) for id_ in networks},
            {host: frozenset(state.networks_on(host)) for host in {a.host, b.host}},
        )

    def _end(self, endpoint: Endpoint, family: int) -> End:
        network = self._state.networks.get(endpoint.network)
        address = next(address for address in endpoint.addresses if address.version == family)
        if network is None:
            raise Invalid(f"the network of {endpoint.name} is gone", fix="'kvnet check' finds what is left of it")
        return End(endpoint, network.value, address)

    def _networks(self, *own: Network) -> dict[str, Network]:
        found = {network.id: network for network in own}
        for network in own:
            for id_ in network.peers:
                peer = self._state.networks.get(id_)
                if peer is not None:
                    found[id_] = peer.value
        return found

    def _standing(self, host: str) -> Standing:
        record = self._state.hosts.get(host)
        seen = self._state.last_seen(host)
        is_alive = self._state.alive.get(host) is not None
        return Standing(record.value if record is not None else None, is_alive, "" if seen is None else moment(seen))


def _seen(plain: Mapping[str, Any], host: str) -> Sight:
    return replace(from_plain(Sight, plain, f"/seen/{host}"), host=host, mode=HERE)


def _family(a: Endpoint, b: Endpoint, wanted_a: int, wanted_b: int) -> int:
    common = _versions(a.addresses) & _versions(b.addresses)
    if wanted_a and wanted_b and wanted_a != wanted_b:
        raise Invalid.field("/to", "the two addresses are of different families", "name both by one family")
    wanted = wanted_a or wanted_b
    if wanted and wanted not in common:
        lacking = a if wanted not in _versions(a.addresses) else b
        raise Invalid.field("/family", f"{lacking.name} has no IPv{wanted} address", "leave the family out")
    if not common:
        detail = f"{a.name} and {b.name} have no family of addresses in common, so nothing leads from one to the other"
        raise Invalid(detail, fix="attach one of them to a network that has both")
    return wanted or min(common)


def _versions(addresses: Collection[Address]) -> set[int]:
    return {address.version for address in addresses}
