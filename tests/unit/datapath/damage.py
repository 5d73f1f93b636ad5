"""What can go wrong in a kernel behind a worker's back, as random operations on whatever is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from datapath.fake import FakeKernel
from datapath.names import bridge_name, vxlan_name
from datapath.objects import (
    AddAddress,
    Bridge,
    ContainerSide,
    CreateLink,
    DeleteLink,
    Firewall,
    Gate,
    InterfaceAddress,
    Link,
    Macvlan,
    Neighbour,
    Operation,
    PortEntry,
    Release,
    RemoveAddress,
    RemoveNeighbour,
    RemovePort,
    RemoveRoute,
    RemoveVtep,
    ReplaceNeighbour,
    ReplacePort,
    ReplaceRoute,
    ReplaceVtep,
    Route,
    SetSysctl,
    Shim,
    UpdateLink,
    Veth,
    VtepEntry,
    Vxlan,
)

STRANGE_MAC = b"\x02\xee\xee\xee\xee\xee"
STRANGE_GATEWAY = b"\x02\xee\xee\xee\xee\xef"
STALE = f"{0xDEAD:012x}"

Damage = Callable[[FakeKernel, int], Sequence[Operation]]


def damages(max_size: int = 12) -> st.SearchStrategy[list[tuple[Damage, int]]]:
    return st.lists(st.tuples(st.sampled_from(ALL), st.integers(0, 10_000)), max_size=max_size)


def inflict(kernel: FakeKernel, harm: list[tuple[Damage, int]]) -> None:
    for damage, choice in harm:
        kernel.meddle(*damage(kernel, choice))


def _pick(things: Any, choice: int) -> list[Any]:
    ordered = sorted(things, key=repr)
    return [ordered[choice % len(ordered)]] if ordered else []


def delete_a_link(kernel: FakeKernel, choice: int) -> Sequence[Operation]:
    state = kernel.state()
    return [DeleteLink(link, state.containers.get(link.name)) for link in _pick(state.links.values(), choice)]


def alter_a_link(kernel: FakeKernel, choice: int) -> Sequence[Operation]:
    state = kernel.state()
    picked = _pick(state.links.values(), choice)
    changes = [(_altered(link, choice // 7), link, state.containers.get(link.name)) for link in picked]
    return [
        UpdateLink(new, old, replace(side, mtu=new.mtu) if side is not None else None) for new, old, side in changes
    ]


def _altered(link: Link, choice: int) -> Link:
    match link:
        case Bridge():
            changes: list[dict[str, Any]] = [
                {"up": False},
                {"mac": STRANGE_GATEWAY},
                {"mtu": 1300},
                {"ipv6": not link.ipv6},
            ]
        case Vxlan() if not link.bridge:
            changes = [{"up": False}, {"mac": STRANGE_MAC}, {"mtu": 1300}]
        case Vxlan():
            changes = [{"up": False}, {"bridge": ""}, {"learning": True}, {"suppress": False}, {"mtu": 1300}]
        case Veth():
            changes = [{"up": False}, {"bridge": ""}, {"isolated": True}, {"hairpin": True}, {"mtu": 1300}]
        case Shim():
            changes = [{"up": False}, {"mac": STRANGE_MAC}, {"mtu": 1300}]
        case Macvlan():
            changes = [{"mtu": 1300}]
    return replace(link, **changes[choice % len(changes)])


def flap_a_bridge(kernel: FakeKernel, choice: int) -> Sequence[Operation]:
    """Down and up again, or down and its neighbours written again while it is."""
    bridges = [link for link in kernel.state().links.values() if isinstance(link, Bridge)]
    for link in _pick(bridges, choice):
        down = replace(link, up=False)
        if choice % 2:
            return [UpdateLink(down, link), UpdateLink(link, down)]
        kept = [ReplaceNeighbour(n) for n in kernel.state().neighbours if n.device == link.name]
        return [UpdateLink(down, link), *kept]
    return []


def move_a_port(kernel: FakeKernel, choice: int) -> Sequence[Operation]:
    links = kernel.state().links.values()
    bridges = _pick([link for link in links if isinstance(link, Bridge)], choice)
    ports = _pick([link for link in links if isinstance(link, Veth | Vxlan) and link.bridge], choice // 7)
    return [UpdateLink(replace(port, bridge=bridge.name), port) for port in ports for bridge in bridges]


def rebuild_a_tunnel_wrongly(kernel: FakeKernel, choice: int) -> Sequence[Operation]:
    tunnels = [link for link in kernel.state().links.values() if isinstance(link, Vxlan)]
    wrong: list[dict[str, Any]] = [{"vni": 77}, {"local": b"\x01\x02\x03\x04"}, {"port": 8472}]
    return [
        operation
        for link in _pick(tunnels, choice)
        for operation in (DeleteLink(link), CreateLink(replace(link, **wrong[choice % len(wrong)])))
    ]


def swap_the_kind(kernel: FakeKernel, choice: int) -> Sequence[Operation]:
    tunnels = [link for link in kernel.state().links.values() if isinstance(link, Vxlan)]
    return [
        operation
        for link in _pick(tunnels, choice)
        for operation in (DeleteLink(link), CreateLink(Bridge(link.name, STRANGE_MAC, 1500, True)))
    ]


def leave_a_stale_network(kernel: FakeKernel, choice: int) -> Sequence[Operation]:
    """A network that is no more, whose tunnel still holds the VNI of another."""
    bridge = Bridge(bridge_name(STALE), STRANGE_MAC, 1500, True)
    kernel.add_namespace("/run/netns/stale")
    inside = ContainerSide("/run/netns/stale", "eth0", STRANGE_MAC, 1500, (), ())
    operations: list[Operation] = [CreateLink(bridge), CreateLink(Veth("kvestale", 1500, bridge.name), inside)]
    for tunnel in _pick([link for link in kernel.state().links.values() if isinstance(link, Vxlan)], choice):
        stale = replace(tunnel, name=vxlan_name(STALE), bridge=bridge.name, mac=b"")
        operations += [DeleteLink(tunnel), CreateLink(stale), ReplacePort(PortEntry(stale.name, STRANGE_MAC))]
    address = InterfaceAddress(bridge.name, b"\x0a\xfe\x00\x01", 24)
    route = Route(b"\x0a\xfe\x00\x00", 24, bridge.name, source=address.address)
    return [*operations, AddAddress(address), ReplaceRoute(route)]


def lose_an_entry(kernel: FakeKernel, choice: int) -> Sequence[Operation]:
    state = kernel.state()
    removals: list[list[Operation]] = [
        [RemoveNeighbour(entry) for entry in _pick(state.neighbours, choice)],
        [RemoveVtep(entry) for entry in _pick(state.vteps, choice)],
        [RemovePort(entry) for entry in _pick(state.ports, choice)],
        [RemoveRoute(entry) for entry in _pick(state.routes, choice)],
        [RemoveAddress(entry) for entry in _pick(state.addresses, choice)],
        [Release(entry) for entry in _pick(state.enslaved, choice)],
    ]
    return removals[choice % len(removals)]


def falsify_an_entry(kernel: FakeKernel, choice: int) -> Sequence[Operation]:
    state = kernel.state()
    port = _pick([link.name for link in state.links.values() if isinstance(link, Veth | Vxlan)], choice // 5)
    other = [(b"\x09" * len(entry.remote)) for entry in _pick(state.vteps, choice)]
    changes: list[list[Operation]] = [
        [ReplaceNeighbour(entry._replace(mac=STRANGE_MAC)) for entry in _pick(state.neighbours, choice)],
        [ReplaceVtep(e._replace(remote=remote)) for e in _pick(state.vteps, choice) for remote in other],
        [ReplacePort(entry._replace(port=name)) for entry in _pick(state.ports, choice) for name in port],
        [ReplaceRoute(entry._replace(source=b"")) for entry in _pick(state.routes, choice)],
        [_wrong_length(entry) for entry in _pick(state.addresses, choice)],
    ]
    return changes[choice % len(changes)]


def _wrong_length(entry: InterfaceAddress) -> Operation:
    return AddAddress(entry._replace(prefix_length=entry.prefix_length - 4))


def add_an_entry(kernel: FakeKernel, choice: int) -> Sequence[Operation]:
    operations: list[Operation] = []
    for link in _pick(kernel.state().links.values(), choice):
        match link:
            case Bridge():
                operations += [ReplaceNeighbour(Neighbour(link.name, bytes([10, 200, 0, choice % 256]), STRANGE_MAC))]
            case Vxlan():
                operations += [ReplaceVtep(VtepEntry(link.name, STRANGE_MAC, b"\x09" * len(link.local)))]
                operations += [ReplaceVtep(VtepEntry(link.name, bytes(6), b"\x08" * len(link.local)))]
                operations += [ReplacePort(PortEntry(link.name, STRANGE_MAC))]
            case Veth() if link.bridge:
                operations += [ReplacePort(PortEntry(link.name, STRANGE_MAC))]
    return operations


def put_an_address_before_ours(kernel: FakeKernel, choice: int) -> Sequence[Operation]:
    """Ours becomes the secondary of somebody's: when that is removed, the kernel removes ours too."""
    operations: list[Operation] = []
    for ours in _pick(kernel.state().addresses, choice):
        theirs = ours._replace(address=ours.address[:-1] + b"\xfa")
        operations += [RemoveAddress(ours), AddAddress(theirs), AddAddress(ours)]
    return operations


def change_a_setting(kernel: FakeKernel, choice: int) -> Sequence[Operation]:
    paths = _pick(kernel.state().sysctls.items(), choice)
    return [SetSysctl(path, "0" if value == "1" else "1") for path, value in paths]


def turn_a_gate(kernel: FakeKernel, choice: int) -> Sequence[Operation]:
    """A FORWARD chain comes up without our rule, or somebody puts it in or takes it out."""
    kernel.set_gate(Gate(("nft", "legacy")[choice % 2], (4, 6)[choice // 2 % 2]), choice // 4 % 2 == 0)
    return []


def damage_the_firewall(kernel: FakeKernel, choice: int) -> Sequence[Operation]:
    kernel.set_firewall(None if choice % 2 else Firewall(bridges=frozenset({"kvbelse"})))
    return []


ALL: list[Damage] = [
    delete_a_link,
    alter_a_link,
    flap_a_bridge,
    move_a_port,
    rebuild_a_tunnel_wrongly,
    swap_the_kind,
    leave_a_stale_network,
    lose_an_entry,
    falsify_an_entry,
    add_an_entry,
    put_an_address_before_ours,
    change_a_setting,
    damage_the_firewall,
    turn_a_gate,
]

# What the pass of one network can see and repair alone; the others involve two networks and take a pass of the host.
WITHIN_A_NETWORK = [damage for damage in ALL if damage not in (move_a_port, leave_a_stale_network)]
