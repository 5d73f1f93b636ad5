"""What Docker asks, as plain data: checked at the edge, before anything is done. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kvnet.errors import NotSupported
from kvnet.rules import MAX_PORTS
from kvnet.wire import PortBody
from worker.runtimes.docker.members import Members

PREFIX = "com.docker.network."
GENERIC = PREFIX + "generic"
INTERNAL = PREFIX + "internal"
IPV6 = PREFIX + "enable_ipv6"
PORT_MAP = PREFIX + "portmap"
MAC_ADDRESS = PREFIX + "endpoint.macaddress"
ENDPOINT_NAME = PREFIX + "endpoint.name"  # of the container; from engine 29 on
GATEWAY = PREFIX + "gateway"
ADDRESS_TYPE = "RequestAddressType"
MAX_POOLS = 64  # the controller takes fewer, and says so
PROTOCOLS = {6: "tcp", 17: "udp"}
SCTP = 132
_EVERYWHERE = frozenset({"", "0.0.0.0", "::"})


@dataclass(frozen=True, slots=True)
class PoolRequest:
    """`pool` "": choose one. `version` counts only then. `options`: the user's --ipam-opt."""

    space: str
    pool: str = ""
    range: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    version: int = 4

    @classmethod
    def of(cls, members: Members) -> PoolRequest:
        version = 6 if members.flag("V6") else 4
        pool, part = members.cidr("Pool"), members.cidr("SubPool")
        if part and not pool:
            raise members.wrong("SubPool", "is given without a subnet: --ip-range needs --subnet")
        return cls(members.text("AddressSpace"), pool, part, members.texts("Options"), version)


@dataclass(frozen=True, slots=True)
class AddressRequest:
    """Of a container if it has a MAC, else a gateway or (neither) an address to be kept free."""

    pool: str
    address: str = ""
    is_gateway: bool = False
    mac: str = ""
    name: str = ""

    @classmethod
    def of(cls, members: Members) -> AddressRequest:
        pool = members.cidr("PoolID")
        if not pool:
            raise members.wrong("PoolID", "is not a pool of kvnet's")
        options = members.object("Options")
        return cls(
            pool,
            members.address("Address"),
            options.text(ADDRESS_TYPE) == GATEWAY,
            options.mac(MAC_ADDRESS),
            options.text(ENDPOINT_NAME),
        )


@dataclass(frozen=True, slots=True)
class NetworkPool:
    """A pool as Docker tells the network driver of it. `reserved`: --aux-address, by name."""

    space: str
    cidr: str
    gateway: str
    reserved: Mapping[str, str]

    @classmethod
    def of(cls, members: Members) -> NetworkPool:
        gateway = members.interface("Gateway")
        return cls(members.text("AddressSpace"), members.cidr("Pool"), gateway, members.interfaces("AuxAddresses"))


@dataclass(frozen=True, slots=True)
class NetworkRequest:
    """`words`: the user's -o."""

    docker: str
    pools: Sequence[NetworkPool]
    words: Mapping[str, str] = field(default_factory=dict)
    internal: bool = False
    ipv6: bool = False

    @classmethod
    def of(cls, members: Members) -> NetworkRequest:
        options = members.object("Options")
        pools = [NetworkPool.of(m) for name in ("IPv4Data", "IPv6Data") for m in members.objects(name, most=MAX_POOLS)]
        return cls(members.id("NetworkID"), pools, options.texts(GENERIC), options.flag(INTERNAL), options.flag(IPV6))


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """`sandbox`: the path of its namespace; only a Join has it. Addresses and MAC: only a CreateEndpoint."""

    network: str
    endpoint: str
    address: str = ""
    address6: str = ""
    mac: str = ""
    sandbox: str = ""

    @classmethod
    def of(cls, members: Members) -> EndpointRequest:
        interface = members.object("Interface")
        sandbox = members.text("SandboxKey")
        if sandbox and not sandbox.startswith("/"):
            raise members.wrong("SandboxKey", "is not a path")
        return cls(
            members.id("NetworkID"),
            members.id("EndpointID"),
            interface.interface("Address"),
            interface.interface("AddressIPv6"),
            interface.mac("MacAddress"),
            sandbox,
        )


def port_map(members: Members) -> list[PortBody]:
    """The ports to publish, each once, as the controller is asked for them.

    Raises:
        NotSupported: SCTP.
    """
    found: list[PortBody] = []
    for mapping in members.object("Options").objects(PORT_MAP, most=MAX_PORTS):
        port = _port(mapping)
        if port not in found:
            found.append(port)
    return found


def _port(mapping: Members) -> PortBody:
    number, protocol = mapping.number("Port", most=65535), mapping.number("Proto", most=255)
    if protocol == SCTP:
        raise NotSupported(f"port {number}/sctp cannot be published", fix="kvnet publishes tcp and udp")
    if protocol not in PROTOCOLS:
        raise mapping.wrong("Proto", f"{protocol} is not a protocol whose ports can be published: tcp or udp")
    if not number:
        raise mapping.wrong("Port", "is missing")
    body: PortBody = {"port": number, "protocol": PROTOCOLS[protocol]}
    first, last = mapping.number("HostPort", most=65535), mapping.number("HostPortEnd", most=65535)
    if first:
        body["host_port"] = first
    if first < last and first:
        body["host_port_end"] = last
    if mapping.text("HostIP") not in _EVERYWHERE:
        body["host_address"] = mapping.address("HostIP")
    return body
