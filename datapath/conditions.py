"""What `desired` had to leave out, or what will not work as asked, in words for the operator.

Pure and without a clock: the worker turns a finding into a `Condition` of the network by adding since when it holds.
What is in the way on the host itself (foreign links, uplinks that are missing or taken) is told by `conflicts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from datapath.desired import Memo, network_view, own_record
from datapath.drivers.overlay import peers_of
from datapath.drivers.parts import PORTS_OF_A_BRIDGE
from datapath.drivers.routed import fitting_mtu, ways_to
from datapath.drivers.sides import own_blocks
from datapath.names import bridge_of
from datapath.presence import is_built_of
from datapath.view import HostView, NetworkView
from kvnet.model import Block, Driver, Host, Network, UplinkMode
from kvnet.rules import MTU_MIN, MTU_MIN_IPV6

Told = Iterator[tuple[str, str]]  # code, detail


@dataclass(frozen=True, slots=True)
class Finding:
    """`code` is stable, as in errors.

    Of any network: shared-address, mtu-impossible, bridge-full. Of overlay and routed: vni-missing, peer-unknown,
    peer-unreachable. Of routed: peer-not-adjacent, family-unreachable, block-missing. Of transparent: uplink-missing
    (none is named), uplink-down, uplink-mtu.
    """

    network: str
    code: str
    detail: str


def findings(view: HostView, network_id: str | None = None, memo: Memo | None = None) -> list[Finding]:
    """All findings of the networks on this host, or of one network. `memo`: as of `desired`.

    Raises:
        NotFound: as `desired`.
    """
    host = own_record(view)
    networks = [network for network in view.networks.values() if network_id in (None, network.id)]
    return [Finding(network.id, *told) for network in networks for told in _of_network(view, host, network, memo)]


def _of_network(view: HostView, host: Host, network: Network, memo: Memo | None) -> Told:
    endpoints = view.endpoints.get(network.id, {})
    remembered = memo.of_network(bridge_of(network), network.has_ipv6) if memo is not None else None
    seen = network_view(view, host, network, remembered)
    if not is_built_of(view, network, seen.members):
        if memo is not None:
            memo.forget(bridge_of(network))
        return
    if len(seen.members.endpoints) != len(endpoints):
        for endpoint_id in sorted(endpoints.keys() - seen.members.endpoints.keys()):
            shared = f"endpoint {endpoint_id} shares its MAC or an address with a newer one, which has it now"
            yield "shared-address", shared
    match network.driver:
        case Driver.OVERLAY:
            yield from _of_overlay(seen)
        case Driver.ROUTED:
            yield from _of_routed(seen)
        case Driver.TRANSPARENT:
            yield from _of_transparent(seen)
        case Driver.BRIDGE:
            pass
    yield from _of_ports(network, len(seen.members.local))


def _of_ports(network: Network, carried: int) -> Told:
    """A bridge takes so many ports, and a tunnel or an uplink is one of them."""
    is_on_uplink = network.driver is Driver.TRANSPARENT and network.uplink_mode is UplinkMode.MACVLAN
    limit = PORTS_OF_A_BRIDGE - (network.driver in (Driver.OVERLAY, Driver.TRANSPARENT))
    if carried > limit and not is_on_uplink:
        detail = f"{carried} endpoints here, but a bridge has room for {limit}: the newest get no interface; move some"
        yield "bridge-full", detail


def _of_overlay(view: NetworkView) -> Told:
    if view.network.vni is None:
        yield "vni-missing", "the overlay has no VNI, so it cannot be built"
        return
    reached = peers_of(view)
    apart, everyone = reached.apart, view.members.endpoints.values()
    carried = Counter(endpoint.host for endpoint in everyone if endpoint.host in apart) if apart else Counter()
    for name in sorted(apart):
        lost = f"its {carried[name]} endpoint(s) cannot be reached from here"
        yield from _of_tunnel_peer(view, name, lost)
    yield from _of_mtu(view.network, reached.mtu)


def _of_tunnel_peer(view: NetworkView, name: str, lost: str) -> Told:
    peer, family = view.hosts.get(name), view.host.underlay.version
    if peer is None:
        yield "peer-unknown", f"host {name} has not registered, so {lost}"
    elif peer.underlay.version != family:
        detail = f"host {name} has an IPv{peer.underlay.version} underlay and this one IPv{family}, so {lost}"
        yield "peer-unreachable", detail


def _of_mtu(network: Network, fitting: int) -> Told:
    """`fitting`: the largest packet that the hosts' links carry whole."""
    least = MTU_MIN_IPV6 if network.has_ipv6 else MTU_MIN
    if network.mtu is not None and network.mtu > fitting:
        fix = f"set its MTU to {fitting} or less, or raise those of the links" if fitting >= least else "raise those"
        yield "mtu-impossible", f"the network's MTU is {network.mtu}, but its hosts' links carry {fitting} only; {fix}"
    elif network.mtu is None and fitting < least:
        why = f"IPv6 needs {MTU_MIN_IPV6}" if network.has_ipv6 else f"networks need {MTU_MIN}"
        yield "mtu-impossible", f"its hosts' links carry packets of {fitting} only, and {why}; raise their MTU"


def _of_routed(view: NetworkView) -> Told:
    ways = ways_to(view)
    for name in sorted({block.host for block in ways.unknown}):
        yield "peer-unknown", f"host {name} has not registered, so its block(s) cannot be reached from here"
    for peer, blocks in _by_host(ways.apart):
        yield "peer-not-adjacent", _not_adjacent(view.host, peer, blocks)
    for peer, blocks in _by_host(ways.unfit):
        if peer.underlay.version != view.host.underlay.version:
            yield from _of_tunnel_peer(view, peer.name, f"its block(s) {blocks} cannot be reached from here")
        else:
            detail = f"the underlay to host {peer.name} is IPv{peer.underlay.version} only, so its block(s) {blocks}"
            fix = "create the network with cross_segment=tunnel: a tunnel carries both families"
            yield "family-unreachable", f"{detail} cannot be reached from here; {fix}"
    own = own_blocks(view)
    for endpoint in view.members.local:
        outside = [a for a in endpoint.addresses if not any(a in block.cidr for block in own)]
        if outside:
            detail = f"{outside[0]} of endpoint {endpoint.id} is in no block of this host, so nothing leads there"
            yield "block-missing", f"{detail}; delete the endpoint and attach it again"
    if view.blocks:
        yield from _of_mtu(view.network, fitting_mtu(view, ways))


def _by_host(blocks: tuple[tuple[Block, Host], ...]) -> Iterator[tuple[Host, str]]:
    peers = {peer.name: peer for _, peer in blocks}
    for name in sorted(peers):
        yield peers[name], ", ".join(str(block.cidr) for block, peer in blocks if peer.name == name)


def _not_adjacent(host: Host, peer: Host, blocks: str) -> str:
    return (
        f"host {peer.name} ({peer.underlay} in {peer.segment or 'an unknown segment'}) is not on the segment of this "
        f"host ({host.underlay} in {host.segment or 'an unknown segment'}), and no router between them knows its "
        f"block(s) {blocks}; create the network with cross_segment tunnel, or put both hosts on one segment"
    )


def _of_transparent(view: NetworkView) -> Told:
    network, uplink = view.network, view.uplink
    if not network.uplink:
        yield "uplink-missing", "the network names no uplink, so it cannot be built"
    if uplink is None:
        return
    if not uplink.up:
        yield "uplink-down", f"the uplink {uplink.name} is down, so nothing passes; set it up"
    if network.mtu is not None and network.mtu > uplink.mtu:
        fix = f"set the network's to {uplink.mtu} or less, or raise the uplink's"
        yield "uplink-mtu", f"the network's MTU is {network.mtu}, but that of {uplink.name} {uplink.mtu}; {fix}"
    else:
        yield from _of_mtu(network, uplink.mtu)
