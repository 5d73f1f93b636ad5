"""Clusters for the datapath's tests: hand-made ones, random ones, and a world of fake kernels that carries them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import strategies as st

from datapath.desired import Attachment, HostView, desired, veth_name
from datapath.fake import FakeFabric, FakeKernel
from datapath.names import macvlan_name
from datapath.objects import AddAddress, HostState, Ip, Operation, RemoveAddress, RemoveNeighbour, Scope, Uplink
from datapath.plan import expected, plan
from datapath.scopes import scope_of, whole_scope
from kvnet.model import Address, Block, Cidr, CrossSegment, Driver, Endpoint, Host, Network, Subnet, UplinkMode

ADDRESSES_PER_NETWORK = 12
HOSTS_PER_ROUTED = 8  # so many blocks of a routed network are given out, by the hosts' numbers
BLOCK_LENGTHS = {4: 28, 6: 124}
# A plain uplink without an address, one with, one that becomes a bridge's port, and an operator's bridge.
UPLINKS = ("lan0", "lan1", "lan2", "br0")


def host(number: int, *, mtu: int = 1500, ipv6_underlay: bool = False) -> Host:
    underlay = ip_address(f"fd99::{number + 1:x}" if ipv6_underlay else f"192.168.7.{number + 1}")
    return Host(f"h{number}", underlay, mtu)


def network(number: int, *, driver: Driver = Driver.OVERLAY, ipv6: bool = True, **changes: Any) -> Network:
    subnets = [Subnet(ip_network(f"10.{number}.0.0/24"), ip_address(f"10.{number}.0.1"))]
    if ipv6:
        subnets.append(Subnet(ip_network(f"fd00:{number}::/64"), ip_address(f"fd00:{number}::1")))
    has_vni = driver is Driver.OVERLAY or changes.get("cross_segment") is CrossSegment.TUNNEL
    vni = 5000 + number if has_vni else None
    made = Network(f"{number:012x}", f"net{number}", driver, tuple(subnets), 0.0, vni=vni)
    return replace(made, **changes)


def endpoint(of: Network, number: int, on: str, *, id: str = "", mac: int | None = None) -> Endpoint:
    """Its addresses (in a routed network its block's) follow from its number, its MAC too unless it is given."""
    addresses: list[Address] = [subnet.cidr.network_address + 10 + number for subnet in of.subnets]
    if of.driver is Driver.ROUTED:
        addresses = [block_of(subnet, on).network_address + 2 + number for subnet in of.subnets]
    mac = int(of.id, 16) << 8 | number if mac is None else mac
    text = f"02:00:{mac >> 24 & 255:02x}:{mac >> 16 & 255:02x}:{mac >> 8 & 255:02x}:{mac & 255:02x}"
    name = f"e{number}"
    return Endpoint(id or f"{of.name}-{name}", of.id, on, name, tuple(addresses), text, float(number))


def block_of(subnet: Subnet, on: str) -> Cidr:
    """The part of the subnet that the host of that number has."""
    length = BLOCK_LENGTHS[subnet.cidr.version]
    first = subnet.cidr.network_address + (int(on[1:]) << subnet.cidr.max_prefixlen - length)
    return ip_network(f"{first}/{length}")


def namespace_of(endpoint: Endpoint) -> str:
    return f"/run/netns/{endpoint.id}"


@dataclass
class World:
    """Hosts on one fabric, what the store says, and which workloads are attached."""

    hosts: dict[str, Host] = field(default_factory=dict)
    networks: dict[str, Network] = field(default_factory=dict)
    endpoints: dict[str, dict[str, Endpoint]] = field(default_factory=dict)
    attachments: dict[str, dict[str, Attachment]] = field(default_factory=dict)
    kernels: dict[str, FakeKernel] = field(default_factory=dict)
    fabric: FakeFabric = field(default_factory=FakeFabric)
    dns: Ip = b""

    def add_host(self, record: Host, *, also: Sequence[Ip] = ()) -> None:
        """`also`: more addresses on the underlay."""
        self.hosts[record.name] = record
        segment = str(record.segment or "")
        kernel = self.kernels[record.name] = FakeKernel(record.name, [record.underlay.packed, *also], segment=segment)
        self.attachments[record.name] = {}
        self.fabric.join(kernel)
        number = int(record.name[1:])
        for at, name in enumerate(UPLINKS):
            uplink = Uplink(name, 1500, True, bytes((2, 0xAA, at, 0, 0, number)), is_bridge=name == "br0")
            own = [(bytes((172, 16, at, 200 + number)), 24)] if name == "lan1" else []
            kernel.set_uplink(uplink, lan=f"wire-{name}", blocks=own)

    def add_network(self, record: Network) -> None:
        self.networks[record.id] = record
        self.endpoints[record.id] = {}

    def add(self, record: Endpoint, *, attached: bool = True) -> None:
        self.endpoints[record.network][record.id] = record
        if attached:
            path = namespace_of(record)
            self.kernels[record.host].add_namespace(path)
            self.attachments[record.host][record.id] = Attachment(record.id, path, "eth0")

    def remove(self, record: Endpoint) -> None:
        del self.endpoints[record.network][record.id]
        self.attachments[record.host].pop(record.id, None)

    def move(self, record: Endpoint, to: str) -> None:
        """The workload is started again elsewhere, with its address and its MAC."""
        self.remove(record)
        self.add(replace(record, host=to))

    def blocks(self) -> dict[str, list[Block]]:
        """Every host has a block where it has an endpoint."""
        found: dict[str, list[Block]] = {}
        for network_id, records in self.endpoints.items():
            of = self.networks[network_id]
            if of.driver is Driver.ROUTED:
                hosts = sorted({record.host for record in records.values()})
                found[network_id] = [Block(of.id, block_of(s, on), on, 0.0) for on in hosts for s in of.subnets]
        return found

    def view(self, name: str) -> HostView:
        uplinks = self.kernels[name].tables.uplinks
        attachments = self.attachments[name]
        return HostView(
            name,
            self.hosts,
            self.networks,
            self.endpoints,
            attachments,
            self.blocks(),
            dict(uplinks),
            dockers=self.kernels[name].state().dockers,
            dns=self.dns,
        )

    def scope(self, name: str, network_id: str | None = None) -> Scope:
        return whole_scope(self.view(name)) if network_id is None else scope_of(self.view(name), network_id)

    def state(self, name: str, network_id: str | None = None) -> HostState:
        """What the host's worker would read; interfaces on uplinks that it no longer knows of too."""
        scope = self.scope(name, network_id)
        everything = self.kernels[name].state()
        found = self.kernels[name].state(scope)
        return found if network_id is not None else replace(everything, uplinks=found.uplinks)

    def desired(self, name: str, network_id: str | None = None) -> HostState:
        return desired(self.view(name), network_id)

    def look_after(self, name: str, network_id: str | None = None) -> int:
        """One pass of a worker; how many operations it took. Fails where the kernel refused or shrugged."""
        kernel = self.kernels[name]
        kernel.tables.vain.clear()
        wanted, actual = self.desired(name, network_id), self.state(name, network_id)
        made = plan(wanted, actual)
        assert kernel.execute(made.operations) == []
        in_vain = [operation for operation in kernel.tables.vain if not _is_to_be_safe(operation, made.operations)]
        assert in_vain == [], "the plan contains operations that find nothing to do"
        assert_same(self.state(name, network_id), expected(wanted, actual))
        return len(made.operations)

    def settle(self) -> None:
        for name in self.hosts:
            self.look_after(name)
        for name in self.hosts:
            assert self.look_after(name) == 0, "the second pass still finds something to do"

    def attached(self) -> list[Endpoint]:
        """The endpoints whose interface is there."""
        return [
            record
            for records in self.endpoints.values()
            for record in records.values()
            if self.kernels[record.host].tables.links.keys() & {veth_name(record.id), macvlan_name(record.id)}
        ]


def _is_to_be_safe(operation: Operation, operations: Sequence[Operation]) -> bool:
    """The last IPv4 address of a device takes others and all neighbours along, if it was the last: nobody knows."""
    removed = {o.address.device for o in operations if isinstance(o, RemoveAddress)}
    match operation:
        case AddAddress() | RemoveAddress():
            return True
        case RemoveNeighbour(neighbour):
            return neighbour.device in removed
    return False


def assert_same(actual: HostState, wanted: HostState) -> None:
    """The kernel's state is the wanted one. It tells of more settings than we want, and not of namespaces."""
    settings = {path: value for path, value in actual.sysctls.items() if path in wanted.sysctls}
    seen = replace(actual, sysctls=settings, containers=wanted.containers)
    if wanted.firewall is None:  # one network's part says nothing of it
        seen = replace(seen, firewall=None)
    for part in set(HostState.__slots__) - {"is_forwarding"}:
        assert getattr(seen, part) == getattr(wanted, part), part


@st.composite
def worlds(draw: st.DrawFn, *, min_endpoints: int = 0, plain: bool = False) -> World:
    """Random hosts, networks and endpoints, nothing applied yet. `plain`: everybody can reach everybody."""
    world = World()
    ipv6_underlay = draw(st.booleans())
    for number in range(draw(st.integers(1, 4))):
        odd = not plain and draw(st.integers(0, 9)) == 0
        mtu = draw(st.sampled_from([1500, 1280, 9000]))
        world.add_host(host(number, mtu=mtu, ipv6_underlay=ipv6_underlay != odd))
    for number in range(draw(st.integers(1, 3))):
        world.add_network(draw(networks(number, plain=plain)))
    places = [(n, i) for n in world.networks for i in range(ADDRESSES_PER_NETWORK)]
    for network_id, number in draw(st.lists(st.sampled_from(places), min_size=min_endpoints, max_size=12, unique=True)):
        on = draw(st.sampled_from(sorted(world.hosts)))
        record = endpoint(world.networks[network_id], number, on)
        world.add(record, attached=plain or draw(st.integers(0, 4)) > 0)
        if not plain and draw(st.integers(0, 9)) == 0:  # found after a restart, its namespace not known
            world.attachments[on][record.id] = Attachment(record.id, "", "")
    return world


@st.composite
def networks(draw: st.DrawFn, number: int, *, plain: bool = False) -> Network:
    """`plain`: overlays only."""
    driver = Driver.OVERLAY if plain else draw(st.sampled_from(Driver))
    changes: dict[str, Any] = {"internal": draw(st.booleans()), "mtu": draw(st.sampled_from([None, 1400]))}
    if driver is Driver.OVERLAY:
        changes["flood"] = draw(st.booleans())
    if driver is Driver.ROUTED:
        changes["cross_segment"] = draw(st.sampled_from(CrossSegment))
    if driver is Driver.TRANSPARENT:
        # Each network has an uplink of its own, but for macvlans, which share.
        at = draw(st.sampled_from(["lan0", "lan1", "lan2", "br0"] if number == 1 else ["lan0", "lan1"]))
        mode = UplinkMode.BRIDGE if at in ("lan2", "br0") else UplinkMode.MACVLAN
        shim = mode is UplinkMode.MACVLAN and draw(st.booleans())
        changes |= {"uplink": at, "uplink_mode": mode, "shim": shim, "internal": False}
    elif not plain:
        changes["icc"] = draw(st.booleans())
        changes["masquerade"] = draw(st.booleans())
    return network(number, driver=driver, ipv6=draw(st.booleans()), **changes)
