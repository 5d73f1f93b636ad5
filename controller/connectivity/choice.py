"""Which endpoints are tried with which, and how large a packet hosts must let through: pure, and bounded.

By default a network is represented by one endpoint on each of its hosts: what is wrong between two hosts is wrong for
all of them. What is left out is counted and told, never dropped silently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from datapath.objects import VXLAN_OVERHEAD_IPV4, VXLAN_OVERHEAD_IPV6
from kvnet.model import Driver, Endpoint, Host, Network, NetworkState

MAX_PAIRS = 4096
ACROSS_HOSTS = frozenset({Driver.OVERLAY, Driver.ROUTED, Driver.TRANSPARENT})


@dataclass(frozen=True, slots=True)
class Pair:
    """One endpoint that asks another, by one family of addresses."""

    network: Network
    source: Endpoint
    target: Endpoint
    family: int


@dataclass(slots=True)
class Choice:
    """`left_out`: how many pairs were not chosen, by the reason."""

    pairs: list[Pair] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def choose(
    networks: Iterable[Network],
    endpoints: Mapping[str, Collection[Endpoint]],
    attached: Mapping[str, Collection[str]],
    hosts: Collection[str],
    *,
    everything: bool = False,
) -> Choice:
    """`endpoints` by network; `attached`: ids of those that have an interface, by host that answers.

    `hosts`: those that are to be tried. `everything`: every endpoint instead of representatives.
    """
    choice = Choice()
    for network in networks:
        if network.state is not NetworkState.ACTIVE or not endpoints.get(network.id):
            continue
        members = [e for e in endpoints[network.id] if e.host in hosts]
        silent = sum(e.host not in attached for e in members)
        bare = sum(e.host in attached and e.id not in attached[e.host] for e in members)
        choice.left_out["endpoints whose host does not answer"] += silent
        choice.left_out["endpoints without an interface"] += bare
        there = [e for e in members if e.id in attached.get(e.host, ())]
        if not network.icc and not network.peers:
            choice.left_out["endpoints of networks whose icc is off"] += len(there)
            continue
        for source, target in _wanted(network, _by_host(there), everything=everything):
            _add(choice, network, source, target)
    choice.left_out = +choice.left_out
    return choice


def _by_host(endpoints: Iterable[Endpoint]) -> dict[str, list[Endpoint]]:
    found: dict[str, list[Endpoint]] = {}
    for endpoint in sorted(endpoints, key=lambda e: (e.host, e.created_at, e.id)):
        found.setdefault(endpoint.host, []).append(endpoint)
    return found


def _wanted(
    network: Network, by_host: Mapping[str, Sequence[Endpoint]], *, everything: bool
) -> Iterator[tuple[Endpoint, Endpoint]]:
    if everything:
        members = [endpoint for there in by_host.values() for endpoint in there]
        yield from (
            (a, b)
            for a in members
            for b in members
            if a.id != b.id and (a.host == b.host or network.driver in ACROSS_HOSTS)
        )
        return
    yield from ((there[0], there[1]) for there in by_host.values() if len(there) > 1)
    if network.driver in ACROSS_HOSTS:
        yield from ((a[0], b[0]) for x, a in by_host.items() for y, b in by_host.items() if x != y)


def _add(choice: Choice, network: Network, source: Endpoint, target: Endpoint) -> None:
    for family in (4, 6):
        both = (source.address, target.address) if family == 4 else (source.address6, target.address6)
        if None in both:
            continue
        if len(choice.pairs) < MAX_PAIRS:
            choice.pairs.append(Pair(network, source, target, family))
        else:
            choice.left_out[f"pairs beyond {MAX_PAIRS}"] += 1


def needed_sizes(
    hosts: Mapping[str, Host], networks: Iterable[Network], hosts_of: Mapping[str, Collection[str]]
) -> dict[tuple[str, str], int]:
    """By two hosts: the largest packet that must pass between them, as the networks that both are in ask for it.

    Where they have none in common, what a new network of theirs would use.
    """
    needed = {
        (a, b): min(hosts[a].mtu, hosts[b].mtu)
        for a in hosts
        for b in hosts
        if a != b and hosts[a].underlay.version == hosts[b].underlay.version
    }
    for network in networks:
        if network.mtu is None:
            continue  # what is chosen by itself fits through every host's link
        members = [name for name in hosts_of.get(network.id, ()) if name in hosts]
        for pair in ((a, b) for a in members for b in members if (a, b) in needed):
            needed[pair] = max(needed[pair], network.mtu + _overhead(network, hosts[pair[0]]))
    return needed


def _overhead(network: Network, host: Host) -> int:
    if network.driver is not Driver.OVERLAY:
        return 0
    return VXLAN_OVERHEAD_IPV4 if host.underlay.version == 4 else VXLAN_OVERHEAD_IPV6
