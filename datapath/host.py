"""What concerns the whole host and no single network: the firewall's content, whether it forwards at all, and the
address at which it answers for names.

Pure, and cheap: it looks at the local endpoints only, however large the networks are. Never at the kernel: that a
device is not there yet, or cannot be made, is no reason to leave its rules out.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Sequence
from dataclasses import replace

from datapath.census import NOBODY
from datapath.drivers.routed import ways_to
from datapath.memo import NetworkMemo
from datapath.names import DNS_BRIDGE, DNS_MAC, bridge_name, bridge_of, vxlan_name
from datapath.objects import Bridge, Firewall, HostState, InterfaceAddress, Ip, Publication
from datapath.packing import packed_mac
from datapath.presence import built, is_carried, local_endpoints, peers_of
from datapath.sysctls import FORWARD_IPV4, FORWARD_IPV6, device_sysctls
from datapath.view import HostView, NetworkView
from kvnet.model import Address, Block, Driver, Endpoint, Network, UplinkMode

DNS_MTU = 1500  # nothing ever goes through it
_PROTOCOLS = {"tcp": 6, "udp": 17}  # IANA's numbers
_JUDGED = (Driver.BRIDGE, Driver.OVERLAY, Driver.ROUTED)  # what a transparent network lets pass is not ours to say


def host_state(view: HostView) -> HostState:
    """The firewall and the settings of this host, and no device but the one that bears the address for names.

    Of the view it looks at: `networks` (all that are on this host; others are left out), `endpoints` (those on this
    host, every one of them for its published ports), `blocks`, `hosts` (those that have blocks), `carried`, `uplinks`
    (of bridged transparent networks), `dockers`, `dns` and `serves_docker`. Endpoints on other hosts and attachments
    change nothing.
    """
    present = [network for network in built(view) if network.driver is not Driver.OVERLAY or network.vni is not None]
    judged = [network for network in present if network.driver in _JUDGED]
    forwarding = [network for network in judged if not network.internal or network.driver is Driver.ROUTED]
    settings = {FORWARD_IPV4: "1"} if forwarding else {}
    if any(network.has_ipv6 for network in forwarding):
        settings[FORWARD_IPV6] = "1"
    bridged = [network for network in present if _has_own_bridge_on_an_uplink(view, network)]
    dns = view.dns if present or view.carried or view.serves_docker else b""
    firewall = _firewall(view, judged, bridged, dns)
    # With br_netfilter on, the gates see bridged frames too: an internal network's, and those to and from an uplink.
    whole = HostState(sysctls=settings, firewall=firewall, is_forwarding=bool(judged or bridged))
    return _answering(whole, dns) if dns else whole


def _answering(state: HostState, dns: Ip) -> HostState:
    """With a bridge of the address's own: on a network's bridge it would come and go with that network."""
    bridge = Bridge(DNS_BRIDGE, DNS_MAC, DNS_MTU, ipv6=False)
    return replace(
        state,
        links={bridge.name: bridge},
        addresses=frozenset({InterfaceAddress(bridge.name, dns, len(dns) * 8)}),
        sysctls={**state.sysctls, **device_sysctls(bridge)},
    )


def _firewall(view: HostView, networks: Sequence[Network], bridged: Sequence[Network], dns: Ip) -> Firewall:
    here = {network.id for network in networks}
    with_bridge = [network for network in networks if _has_bridge(view, network)]
    outgoing = [network for network in networks if network.masquerade and not network.internal]
    tunnels = [network for network in networks if network.driver is Driver.OVERLAY]
    return Firewall(
        bridges=frozenset(bridge_of(network) for network in with_bridge),
        internal=frozenset(bridge_of(network) for network in with_bridge if network.internal),
        isolated=frozenset(bridge_of(network) for network in with_bridge if not network.icc),
        pairs=frozenset(_pairs(view, with_bridge)) | {(bridge_name(n.id), bridge_name(n.id)) for n in bridged},
        within=frozenset(element for network in with_bridge for element in _within(view, network, here)),
        blocks=_subnets(networks, 4) | _subnets(networks, 6),
        subnets4=_subnets(outgoing, 4),
        subnets6=_subnets(outgoing, 6),
        publications=frozenset(p for network in networks for p in _publications(view, network)),
        vxlans=frozenset(vxlan_name(network.id) for network in tunnels),
        apart=frozenset(vxlan_name(network.id) for network in tunnels if not network.icc),
        gateway_macs=frozenset(packed_mac(network.gateway_mac) for network in tunnels),
        dns=frozenset({dns} if dns else ()),
        # A network that stands on such a bridge makes it its operator's.
        dockers=frozenset(view.dockers) - {n.uplink for n in view.networks.values()} if with_bridge else frozenset(),
    )


def _has_bridge(view: HostView, network: Network) -> bool:
    """A routed network that is here for its peers only consists of routes."""
    if network.driver is not Driver.ROUTED or is_carried(view, network.id):
        return True
    return any(block.host == view.host for block in view.blocks.get(network.id, ()))


def _has_own_bridge_on_an_uplink(view: HostView, network: Network) -> bool:
    uplink = view.uplinks.get(network.uplink)
    is_bridged = network.driver is Driver.TRANSPARENT and network.uplink_mode is UplinkMode.BRIDGE
    return is_bridged and bool(network.uplink) and not (uplink is not None and uplink.is_bridge)


def _subnets(networks: Sequence[Network], version: int) -> frozenset[tuple[Ip, int]]:
    cidrs = (subnet.cidr for network in networks for subnet in network.subnets)
    return frozenset((cidr.network_address.packed, cidr.prefixlen) for cidr in cidrs if cidr.version == version)


def _pairs(view: HostView, networks: Sequence[Network]) -> Iterator[tuple[str, str]]:
    here = {network.id for network in networks}
    for network in networks:
        for peer in peers_of(view, network):
            if peer.id in here:
                yield bridge_of(network), bridge_of(peer)


def _within(view: HostView, network: Network, here: Container[str]) -> Iterator[tuple[str, tuple[Ip, int]]]:
    """Whom this network meets behind other hosts by plain routing, not over a bridge of ours.

    Its own workloads if it is routed (without ICC not those), the hosts that carry them, and peers of which one or the
    other is routed: the answers may take another way than the questions, so that connection tracking sees only half.
    Of a routed network only the blocks that a route of ours leads to: what is for any other address of its range would
    follow the host's default route, bare.
    """
    is_routed, bridge = network.driver is Driver.ROUTED, bridge_of(network)
    peers = [peer for peer in peers_of(view, network) if peer.id in here]
    friends = [peer for peer in peers if is_routed or peer.driver is Driver.ROUTED]
    if is_routed and network.icc:
        friends.append(network)
    for version in (4, 6):
        for block in _subnets([friend for friend in friends if friend.driver is not Driver.ROUTED], version):
            yield bridge, block
    for friend in friends:
        if friend.driver is Driver.ROUTED:
            yield from ((bridge, destination) for destination in _reached(view, friend))
    for address in _addresses_of_hosts(view, network) if is_routed and not network.internal else ():
        yield bridge, (address.packed, address.max_prefixlen)


def _reached(view: HostView, network: Network) -> Iterator[tuple[Ip, int]]:
    """The blocks of other hosts that this one has a way to."""
    host = view.hosts.get(view.host)
    if host is None:
        return
    blocks = view.blocks.get(network.id, ())
    memo = NetworkMemo(bridge_of(network), network.has_ipv6)
    ways = ways_to(NetworkView(network, host, view.hosts, NOBODY, {}, memo, blocks))
    for block, _ in (*ways.direct, *ways.tunnelled):
        yield block.cidr.network_address.packed, block.cidr.prefixlen


def _addresses_of_hosts(view: HostView, network: Network) -> Iterator[Address]:
    """Those that hosts send from: their underlay's, and over a tunnel their own in the network."""
    blocks: Collection[Block] = view.blocks.get(network.id, ())
    others = [block for block in blocks if block.host != view.host and block.host in view.hosts]
    yield from {view.hosts[block.host].underlay for block in others}
    if not network.icc:
        yield from (block.gateway for block in others)


def _publications(view: HostView, network: Network) -> Iterator[Publication]:
    if network.internal:
        return
    for endpoint in local_endpoints(view, network.id):
        if endpoint.ports:
            yield from _of_endpoint(endpoint)


def _of_endpoint(endpoint: Endpoint) -> Iterator[Publication]:
    """A port on one address of the host is published in that address's family only, else in every one it can be."""
    for port in endpoint.ports:
        at = port.host_address
        for address in endpoint.addresses:
            if port.host_port is None or (at is not None and at.version != address.version):
                continue
            host_address = b"" if at is None or at.is_unspecified else at.packed
            yield Publication(_PROTOCOLS[port.protocol], host_address, port.host_port, address.packed, port.port)
