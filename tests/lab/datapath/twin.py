"""One small cluster twice: on the real kernel, and in memory. Both are built from the same desired states.

Three hosts: `h0` and `h1` on one segment, `h2` behind a router that knows no network of ours. Outside there is somebody
behind that router too, and every physical network of the hosts' uplinks has a machine of its own. The surroundings are
made by hand, as an operator would; everything of kvnet's comes from `desired` and `plan` alone.
"""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from pathlib import Path

from datapath.desired import Attachment
from datapath.fabric import OUTSIDE
from datapath.plan import plan
from kvnet.model import CrossSegment, Driver, Host, Network, PublishedPort, Subnet, UplinkMode
from lab import namespaces
from tests.unit.datapath.clusters import UPLINKS, World, endpoint, network
from worker.kernel.linux import LinuxKernel
from worker.kernel.sysctls import write_sysctl

HOSTS = ("h0", "h1", "h2")
SEGMENT_OF = {"h0": 7, "h1": 7, "h2": 8}
PORT = 8080
DNS = "169.254.53.53"
MACHINE_LAST = 1  # of a physical network's own machine: the subnets' gateway
COMMAND_SECONDS = 20

# Who publishes what, by network; all on h0, by its first endpoint. 127.0.0.1 and an address of the host's too.
ANYWHERE, AT_ADDRESS, OF_ISOLATED, ON_LOOPBACK, OF_ROUTED = 20001, 20002, 20003, 20004, 20005
_PUBLISHED = {
    1: [(ANYWHERE, None), (ON_LOOPBACK, "127.0.0.1")],
    7: [(AT_ADDRESS, "192.168.7.1")],
    3: [(OF_ISOLATED, None)],
    9: [(OF_ROUTED, None)],
}


def _id(number: int) -> str:
    return f"{number:012x}"


def _peered(number: int, *others: int, **options: object) -> Network:
    return network(number, peers=tuple(_id(other) for other in others), **options)  # type: ignore[arg-type]


def _two_subnets() -> Network:
    made = network(6, flood=True)
    return replace(made, subnets=(*made.subnets, Subnet(ip_network("10.106.0.0/24"), ip_address("10.106.0.1"))))


NETWORKS = (
    _peered(1, 2, 10),
    _peered(2, 1),
    network(3, icc=False),
    network(4, internal=True),
    network(5, masquerade=False),
    _two_subnets(),
    network(7, driver=Driver.BRIDGE),
    network(8, driver=Driver.BRIDGE, icc=False),
    network(9, driver=Driver.ROUTED),
    _peered(10, 1, driver=Driver.ROUTED, cross_segment=CrossSegment.TUNNEL),
    network(11, driver=Driver.ROUTED, cross_segment=CrossSegment.TUNNEL, internal=True),
    network(12, driver=Driver.TRANSPARENT, uplink="lan0", shim=True),
    network(13, driver=Driver.TRANSPARENT, uplink="lan1", ipv6=False),
    network(14, driver=Driver.TRANSPARENT, uplink="lan2", uplink_mode=UplinkMode.BRIDGE),
    network(15, driver=Driver.TRANSPARENT, uplink="br0", uplink_mode=UplinkMode.BRIDGE),
    network(16, driver=Driver.ROUTED, cross_segment=CrossSegment.TUNNEL, icc=False),
    _peered(17, 18, icc=False),
    _peered(18, 17),
    network(19, driver=Driver.BRIDGE, internal=True),
)


@dataclass(slots=True)
class Twin:
    """`world`: the cluster, with its fake kernels. `real`: the others. `places`: namespaces by name.

    Places: an endpoint's id, a host, "outside", "router", and a physical network's name ("wire-lan0") for its machine.
    """

    world: World
    real: dict[str, LinuxKernel] = field(default_factory=dict)
    places: dict[str, Path] = field(default_factory=dict)
    cables: dict[str, str] = field(default_factory=dict)  # host -> its cable's name in "fabric"
    homes: dict[str, tuple[str, str]] = field(default_factory=dict)  # endpoint -> host, its namespace there

    async def settle(self) -> None:
        """Each host's pass, on both; the second finds nothing to do."""
        self.world.settle()
        for name, kernel in self.real.items():
            wanted, scope = self.world.desired(name), self.world.scope(name)
            failures = await kernel.apply(plan(wanted, await kernel.read(scope)).operations)
            assert failures == [], failures
            assert plan(wanted, await kernel.read(scope)).operations == ()

    def filter_bridged(self, on: bool) -> None:
        for name in HOSTS:
            self.world.kernels[name].tables.bridge_calls_iptables = on
            for setting in ("iptables", "ip6tables"):
                path = f"net/bridge/bridge-nf-call-{setting}"
                namespaces.call(self.places[name], lambda path=path: write_sysctl(path, str(int(on))))

    def underlay(self, host: str, version: int) -> str:
        number, segment = int(host[1:]) + 1, SEGMENT_OF[host]
        return f"192.168.{segment}.{number}" if version == 4 else f"fd99:{segment}::{number}"


@asynccontextmanager
async def open_twin(networks: Iterable[Network] = NETWORKS) -> AsyncIterator[Twin]:
    async with AsyncExitStack() as stack:
        twin = Twin(World(dns=ip_address(DNS).packed))
        for name in ("fabric", "router", "outside", *HOSTS, *(f"wire-{name}" for name in UPLINKS)):
            _add_place(stack, twin, name)
        for number, name in enumerate(HOSTS):
            _add_host(twin, name, number)
        chosen = list(networks)
        _make_surroundings(twin, chosen)
        for net in chosen:
            _add_network(stack, twin, net)
        for name in HOSTS:
            opened = await LinuxKernel.open(netns=str(twin.places[name]))
            twin.real[name] = await stack.enter_async_context(opened)
        await twin.settle()
        yield twin


def _add_place(stack: AsyncExitStack, twin: Twin, name: str) -> Path:
    path = twin.places[name] = namespaces.create(name)
    stack.callback(namespaces.destroy, path)
    namespaces.call(path, lambda: write_sysctl("net/ipv6/conf/default/accept_dad", "0"))
    return path


def _add_host(twin: Twin, name: str, number: int) -> None:
    segment = SEGMENT_OF[name]
    block = ip_network(f"192.168.{segment}.0/24")
    record = Host(name, ip_address(twin.underlay(name, 4)), 1500, segment=block)
    twin.world.add_host(record, also=[ip_address(twin.underlay(name, 6)).packed])


def _add_network(stack: AsyncExitStack, twin: Twin, net: Network) -> None:
    """Two endpoints on h0, one on each other host."""
    number, world = int(net.id, 16), twin.world
    world.add_network(net)
    if net.driver is Driver.TRANSPARENT:
        for version in {subnet.cidr.version for subnet in net.subnets}:
            address = next(s.cidr.network_address for s in net.subnets if s.cidr.version == version) + MACHINE_LAST
            world.fabric.machines.setdefault(f"wire-{net.uplink}", {})[address.packed] = "machine"
    for at, host in enumerate(("h0", "h0", "h1", "h2")):
        record = endpoint(net, at, host)
        if len(net.subnets) > 2:  # of IPv4 the one half has addresses of the first subnet, the other of the second
            first = record.addresses[2] if at % 2 else record.addresses[0]
            record = replace(record, addresses=(first, record.addresses[1]))
        if at == 0:
            record = replace(record, ports=tuple(_published(number)))
        path = _add_place(stack, twin, record.id)
        world.add(record, attached=False)
        world.kernels[host].add_namespace(str(path))
        world.attachments[host][record.id] = Attachment(record.id, str(path), "eth0")
        twin.homes[record.id] = host, str(path)


def _published(number: int) -> Iterator[PublishedPort]:
    for host_port, address in _PUBLISHED.get(number, ()):
        for protocol in ("udp", "tcp"):
            yield PublishedPort(PORT, protocol, host_port, ip_address(address) if address is not None else None)


# --- what is around, by hand


def _make_surroundings(twin: Twin, networks: Sequence[Network]) -> None:
    switches = ["seg7", "seg8", "world", *(f"wire-{name}" for name in UPLINKS)]
    made = [f"link add {name} type bridge mcast_snooping 0" for name in switches]
    _ip(twin, "fabric", *made, *(f"link set {name} up" for name in switches))
    for segment in (7, 8):
        addresses = [f"192.168.{segment}.254/24", f"fd99:{segment}::fe/64"]
        _cable(twin, f"seg{segment}", "router", f"seg{segment}", addresses)
    _cable(twin, "world", "router", "world", ["203.0.113.1/24", "2001:db8::1/64"])
    world = [f"{ip_address(OUTSIDE[length])}/{mask}" for length, mask in ((4, 24), (16, 64))]
    _cable(twin, "world", "outside", "eth0", world, ["203.0.113.1", "2001:db8::1"])
    for number, name in enumerate(HOSTS):
        segment = SEGMENT_OF[name]
        addresses = [f"{twin.underlay(name, 4)}/24", f"{twin.underlay(name, 6)}/64"]
        gateways = [f"192.168.{segment}.254", f"fd99:{segment}::fe"]
        twin.cables[name] = _cable(twin, f"seg{segment}", name, "under0", addresses, gateways)
        _make_uplinks(twin, name, number)
    for path in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        namespaces.call(twin.places["router"], lambda path=path: write_sysctl(path, "1"))
    # For whoever wants to get into a host's networks from the segment, whatever the router knows.
    for number, name in enumerate(HOSTS):
        table, segment = 100 + number, SEGMENT_OF[name]
        for version in (4, 6):
            way = f"route add default via {twin.underlay(name, version)} dev seg{segment} table {table}"
            _ip(twin, "router", way, f"rule add fwmark {table} table {table}", family=version)
    _make_machines(twin, networks)


def _make_uplinks(twin: Twin, host: str, number: int) -> None:
    for at, name in enumerate(UPLINKS):
        mac = f"02:aa:{at:02x}:00:00:{number:02x}"
        addresses = [f"172.16.1.{200 + number}/24"] if name == "lan1" else []
        if name == "br0":
            _ip(twin, host, f"link add br0 address {mac} type bridge", "link set br0 up")
            _cable(twin, f"wire-{name}", host, "br0port")
            _ip(twin, host, "link set br0port master br0")
        else:
            _cable(twin, f"wire-{name}", host, name, addresses, mac=mac)


def _make_machines(twin: Twin, networks: Sequence[Network]) -> None:
    for net in networks:
        if net.driver is Driver.TRANSPARENT:
            addresses = [f"{s.cidr.network_address + MACHINE_LAST}/{s.cidr.prefixlen}" for s in net.subnets]
            _cable(twin, f"wire-{net.uplink}", f"wire-{net.uplink}", "eth0", addresses)


def _cable(
    twin: Twin,
    switch: str,
    place: str,
    device: str,
    addresses: Sequence[str] = (),
    gateways: Sequence[str] = (),
    *,
    mac: str = "",
) -> str:
    """From a switch of the fabric into a place; the name of the fabric's end."""
    end = f"{place}.{device}"[-15:]
    own = f"address {mac} " if mac else ""
    _ip(twin, "fabric", f"link add {device} {own}netns {twin.places[place]} type veth peer name {end}")
    _ip(twin, "fabric", f"link set {end} master {switch} up")
    lines = [f"link set {device} up"]
    lines += [f"addr add {address} dev {device}{' nodad' if ':' in address else ''}" for address in addresses]
    _ip(twin, place, *lines)
    for gateway in gateways:
        _ip(twin, place, f"route add default via {gateway}", family=6 if ":" in gateway else 4)
    return end


def _ip(twin: Twin, place: str, *lines: str, family: int | None = None) -> None:
    """As an operator would type it. `family`: where the lines do not tell it."""
    chosen = [f"-{family}"] if family is not None else []
    arguments = ["nsenter", f"--net={twin.places[place]}", "ip", *chosen, "-batch", "-"]
    text = "\n".join(lines)
    done = subprocess.run(arguments, input=text, text=True, capture_output=True, timeout=COMMAND_SECONDS, check=False)
    assert done.returncode == 0, f"{place}: {text}: {done.stderr}"
