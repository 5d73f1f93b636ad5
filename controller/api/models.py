"""What clients may send: strict, bounded, nothing unknown. Judging the meaning is the use cases' affair.

Addresses and CIDRs stay text here, so that there is one place that parses them and one wording when they are wrong.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from controller.changing import NetworkPatch, SubnetPatch
from controller.endpoint_patching import EndpointPatch
from controller.parsing import MAX_RESERVED, MAX_SUBNETS
from controller.requests import (
    EndpointRequest,
    Features,
    HoldRequest,
    NameRequest,
    NetworkRequest,
    PoolRequest,
    PortRequest,
    RepairRequest,
    ReservationRequest,
    SubnetRequest,
)
from controller.views import Finding
from kvnet.errors import Invalid
from kvnet.model import DockerFields
from kvnet.rules import (
    GATEWAY_PRIORITY,
    IDENTIFIER,
    MAX_ALIASES,
    MAX_LABEL_KEY,
    MAX_LABEL_VALUE,
    MAX_LABELS,
    MAX_PORTS,
    MAX_VERBATIM_BYTES,
    MAX_VERBATIM_ENTRIES,
    MTU_MAX,
    MTU_MIN,
    NAME,
    NETWORK_ID,
)

MAX_BULK = 500
MAX_REPORTED = 1_000
MAX_REPORTED_TEXT = 2_000
MAX_TESTED_NETWORKS = 500
MAX_TESTED_HOSTS = 128


# The model's own rule, in the spelling of JSON Schema (and of the regular expressions of pydantic).
NAME_PATTERN = "^" + NAME.pattern.removesuffix(r"\Z") + "$"
ID_PATTERN = "^" + IDENTIFIER.pattern.removesuffix(r"\Z") + "$"
NETWORK_ID_PATTERN = "^" + NETWORK_ID.pattern.removesuffix(r"\Z") + "$"
ETAG_PATTERN = r'^(\*|"[0-9]{1,19}")$'
KEY_PATTERN = r"^[!-~]{1,255}$"

Name = Annotated[str, Field(min_length=1, max_length=63, pattern=NAME_PATTERN)]
Id = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?$")]
AddressText = Annotated[str, Field(min_length=2, max_length=64, examples=["10.1.0.7"])]
CidrText = Annotated[str, Field(min_length=3, max_length=64, examples=["10.1.0.0/24"])]
LabelKey = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_KEY)]
LabelValue = Annotated[str, Field(max_length=MAX_LABEL_VALUE)]
Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=MAX_LABELS)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Device = Annotated[str, Field(min_length=1, max_length=15, examples=["br-app"])]
FEATURES = tuple(f.name for f in fields(Features))


FIXED: Any = Field(None, description="Cannot change; the same as it is, or left out.")


class SubnetIn(Body):
    """A block of the network. Without a gateway the first usable address is it."""

    cidr: CidrText
    gateway: AddressText | None = None
    range: CidrText | None = Field(None, description="Automatic choice stays inside this part of the block.")
    reserved: dict[Name, AddressText] = Field(
        default_factory=dict, max_length=MAX_RESERVED, description="Never handed out; by name."
    )

    def request(self) -> SubnetRequest:
        return SubnetRequest(self.cidr, self.gateway, self.range, self.reserved)


NetworkId = Annotated[str, Field(pattern=NETWORK_ID_PATTERN)]
Verbatim = Annotated[dict[str, str], Field(max_length=MAX_VERBATIM_ENTRIES)]


class DockerIn(Body):
    """What only Docker knows of a network, word for word. Its labels also become labels, where they can be."""

    options: Verbatim = Field(default_factory=dict, description="Its `-o`.")
    ipam_options: Verbatim = Field(default_factory=dict, description="Its `--ipam-opt`.")
    labels: Verbatim = Field(
        default_factory=dict,
        description=f"Options, IPAM options and labels have at most {MAX_VERBATIM_BYTES} bytes together.",
    )
    attachable: bool = False
    ipv6: bool = False
    host: Annotated[str, Field(max_length=63)] = Field("", description="Where it was made.")

    def fields(self) -> DockerFields:
        return DockerFields(**dict(self))


class NetworkIn(Body):
    """A network. Only the name is needed: without subnets kvnet chooses free ones that no host uses."""

    name: Name | None = Field(None, description="Needed, but for `naming`.")
    driver: str = Field("overlay", max_length=32, description="`overlay`, `bridge`, `routed` or `transparent`.")
    subnets: tuple[SubnetIn, ...] = Field((), max_length=MAX_SUBNETS)
    pool: Name | None = Field(None, description="Where the IPv4 subnet is cut from; default: `default`.")
    pool6: Name | None = Field(None, description="Where the IPv6 subnet is cut from; default: `default6`.")
    prefix_length: int | None = Field(None, ge=1, le=126, description="Of an automatic IPv4 subnet.")
    internal: bool = Field(False, description="No way out of the network.")
    ipv6: bool | None = Field(
        None, description="null: yes for automatic subnets (not of `routed`), as given for explicit ones."
    )
    mtu: int | None = Field(None, ge=MTU_MIN, le=MTU_MAX)
    flood: bool = Field(False, description="Flood broadcast and unknown frames to all hosts of the network.")
    icc: bool | None = Field(None, description="false: endpoints cannot reach each other. Default: true.")
    masquerade: bool | None = Field(None, description="Traffic leaves with its host's address. Default: true.")
    bridge_name: Device | None = Field(None, description="Name of the Linux bridge on every host.")
    interface_prefix: Annotated[str, Field(max_length=12)] | None = Field(
        None, description="Of interfaces in workloads; default: `eth`."
    )
    host_binding: AddressText | None = Field(None, description="Where ports are published that do not say so.")
    uplink: Device | None = Field(None, description="transparent: the host's link that the network is on.")
    uplink_mode: Annotated[str, Field(max_length=32)] | None = Field(
        None, description="transparent: `macvlan` (default), or `bridge`."
    )
    shim: bool | None = Field(None, description="transparent, macvlan: give the host a way to its endpoints.")
    block_prefix_length: int | None = Field(None, ge=1, le=32, description="routed: of a host's IPv4 blocks; 26.")
    block_prefix_length6: int | None = Field(None, ge=1, le=128, description="routed: of its IPv6 blocks; 122.")
    cross_segment: Annotated[str, Field(max_length=32)] | None = Field(
        None, description="routed: `refuse` hosts behind a router (default), or `tunnel` to them."
    )
    options: Labels = Field(default_factory=dict, description="Docker's names mean the same as the fields here.")
    labels: Labels = Field(default_factory=dict)
    force: bool = Field(False, description="Accept explicit subnets that overlap what a host uses.")
    id: NetworkId | None = Field(
        None, description="Chosen by the client: the same id and content again is the same network."
    )
    holds: tuple[NetworkId, ...] = Field(
        (),
        max_length=MAX_SUBNETS,
        description="Holds of its subnets; without `subnets` they are all that it gets. Its id is that of the first.",
    )
    naming: bool = Field(False, description="The name is still to come, within a minute: POST .../name.")
    docker: DockerIn | None = None

    def request(self, derived_id: str | None = None) -> NetworkRequest:
        if self.name is None and not self.naming:
            raise Invalid.field("/name", "missing")
        plain = dict(self)
        plain["name"] = self.name or ""
        plain["subnets"] = tuple(subnet.request() for subnet in self.subnets)
        plain["id"] = self.id or (self.holds[0] if self.holds else derived_id)
        plain["docker"] = self.docker.fields() if self.docker is not None else None
        features = Features(**{name: plain.pop(name) for name in FEATURES})
        return NetworkRequest(**plain, features=features)


class NameIn(Body):
    """The name of a network that was made without one."""

    name: Name
    docker: DockerIn | None = Field(None, description="null: as the network has it.")
    labels: Labels = Field(default_factory=dict, description="They come to those that it has.")

    def request(self) -> NameRequest:
        return NameRequest(self.name, self.docker.fields() if self.docker is not None else None, self.labels)


class HoldIn(Body):
    """A subnet to be kept for a network that a host is about to make. Without `cidr` kvnet chooses."""

    host: Name
    version: int | None = Field(None, description="Of IP: 4 or 6; null: that of `cidr`, or 4.")
    cidr: CidrText | None = None
    pool: Name | None = Field(None, description="Where it is cut from; default: `default` or `default6`.")
    prefix_length: int | None = Field(None, ge=1, le=126)
    force: bool = Field(
        False, description="Hold it even if it overlaps what a host uses; the network is judged by its own `force`."
    )

    def request(self) -> HoldRequest:
        return HoldRequest(**dict(self))


class SubnetPatchIn(Body):
    """A subnet as it is to be: one that is there, one that contains it (it grows), or a new one."""

    cidr: CidrText | None = Field(None, description="null: a new one, cut from `pool`.")
    gateway: AddressText | None = Field(None, description="Of a new one; that of a living one never changes.")
    range: CidrText | None = Field(None, description="Left out: as it is. null: none.")
    reserved: dict[Name, AddressText] | None = Field(
        None, max_length=MAX_RESERVED, description="All that are to be reserved. Left out: as they are."
    )
    pool: Name | None = None
    prefix_length: int | None = Field(None, ge=1, le=126, description="Of the one that is cut from `pool`.")

    def patch(self) -> SubnetPatch:
        given = {name: getattr(self, name) for name in self.model_fields_set & {"gateway", "range", "reserved"}}
        return SubnetPatch(self.cidr, given, self.pool, self.prefix_length)


class NetworkPatchIn(Body):
    """A JSON merge patch: what is left out stays, null is the default again."""

    labels: dict[LabelKey, LabelValue | None] | None = Field(None, description="A label that is null goes.")
    options: dict[LabelKey, LabelValue | None] | None = Field(
        None, description="Docker's names change the fields that they mean, and the other way round."
    )
    mtu: int | None = Field(None, ge=MTU_MIN, le=MTU_MAX)
    icc: bool | None = None
    masquerade: bool | None = None
    flood: bool | None = None
    interface_prefix: Annotated[str, Field(max_length=12)] | None = Field(None, description="Of later attachments.")
    host_binding: AddressText | None = Field(None, description="Of endpoints that are made later.")
    subnets: tuple[SubnetPatchIn, ...] | None = Field(
        None, max_length=MAX_SUBNETS, description="All that it is to have; one that is left out goes if it is unused."
    )
    force: bool = Field(False, description="Accept new subnets that overlap what a host uses.")
    id: str | None = FIXED
    name: str | None = FIXED
    driver: str | None = FIXED
    internal: bool | None = FIXED
    vni: int | None = FIXED
    bridge_name: str | None = FIXED
    uplink: str | None = FIXED
    uplink_mode: str | None = FIXED
    shim: bool | None = FIXED
    block_prefix_length: int | None = FIXED
    block_prefix_length6: int | None = FIXED
    cross_segment: str | None = FIXED
    docker: dict[str, Any] | None = FIXED
    peers: list[Any] | None = Field(None, description="Changed by POST and DELETE of /networks/{network}/peers/{peer}.")

    def patch(self) -> NetworkPatch:
        given = {name: getattr(self, name) for name in self.model_fields_set - {"subnets", "force"}}
        if "peers" in given:
            given["peers"] = [p.get("id", p) if isinstance(p, dict) else p for p in given["peers"] or ()]
        subnets = None if self.subnets is None else tuple(subnet.patch() for subnet in self.subnets)
        return NetworkPatch(given, subnets, self.force)


class PortIn(Body):
    """A port of the workload, or a range of them, that its host is to have."""

    port: int = Field(ge=1, le=65535)
    port_end: int | None = Field(None, ge=1, le=65535, description="Publish the range from `port` on, one to one.")
    protocol: Literal["tcp", "udp"] = "tcp"
    host_port: int | None = Field(None, ge=1, le=65535, description="null: kvnet chooses a free one.")
    host_port_end: int | None = Field(
        None, ge=1, le=65535, description="Without `port_end`: any free one from `host_port` to this."
    )
    host_address: AddressText | None = Field(
        None, description="null: the network's `host_binding`, else all addresses of the host."
    )

    def request(self) -> PortRequest:
        return PortRequest(**dict(self))


class EndpointIn(Body):
    """One interface of a workload on a host. Gets one address per family of the network."""

    host: Name
    name: Name
    id: Id | None = Field(None, description="Chosen by the client: the same id and content again is the same endpoint.")
    hostname: Annotated[str, Field(max_length=63)] = ""
    aliases: tuple[Name, ...] = Field((), max_length=MAX_ALIASES)
    address: AddressText | None = None
    address6: AddressText | None = None
    mac: Annotated[str, Field(max_length=32)] | None = None
    ports: tuple[PortIn, ...] = Field((), max_length=MAX_PORTS)
    # A factory: a default object would be copied deeply for each of thousands.
    labels: Labels = Field(default_factory=dict)
    gateway_priority: int = Field(
        0,
        ge=-GATEWAY_PRIORITY,
        le=GATEWAY_PRIORITY,
        description="Of a workload's networks the one with the highest is its way out.",
    )
    reuse: bool = Field(False, description="Take `address` and `address6` even while they cool down.")

    def request(self, derived_id: str | None = None) -> EndpointRequest:
        return EndpointRequest(
            self.host,
            self.name,
            self.id or derived_id,
            self.hostname,
            self.aliases,
            self.address,
            self.address6,
            self.mac,
            tuple([port.request() for port in self.ports]) if self.ports else (),
            self.labels,
            self.gateway_priority,
            self.reuse,
        )


class EndpointPatchIn(Body):
    """A JSON merge patch: what is left out stays, null is the default again."""

    name: Name | None = None
    hostname: Annotated[str, Field(max_length=63)] | None = None
    aliases: tuple[Name, ...] | None = Field(None, max_length=MAX_ALIASES, description="All that it is to have.")
    labels: dict[LabelKey, LabelValue | None] | None = Field(None, description="A label that is null goes.")
    gateway_priority: int | None = Field(
        None,
        ge=-GATEWAY_PRIORITY,
        le=GATEWAY_PRIORITY,
        description="Stored; a workload that runs gets it when it is attached again.",
    )
    ports: tuple[PortIn, ...] | None = Field(
        None,
        max_length=MAX_PORTS,
        description="All that it is to publish. What is there already keeps its host port; what is left out ends.",
    )
    address: AddressText | None = Field(
        None, description="Another one; the former rests. For an endpoint that has no interface yet."
    )
    address6: AddressText | None = Field(None, description="As `address`.")
    reuse: bool = Field(False, description="Take `address` and `address6` even while they cool down.")
    id: str | None = FIXED
    network: str | None = FIXED
    host: str | None = FIXED
    mac: str | None = FIXED
    created_at: str | None = FIXED

    def patch(self) -> EndpointPatch:
        given = {name: getattr(self, name) for name in self.model_fields_set - {"ports", "reuse"}}
        ports = None if "ports" not in self.model_fields_set else tuple(port.request() for port in self.ports or ())
        return EndpointPatch(given, ports, self.reuse)


class EndpointsIn(Body):
    """Many endpoints at once, each answered for itself."""

    items: tuple[EndpointIn, ...] = Field(min_length=1, max_length=MAX_BULK)


def _one_or_many(value: Any) -> str:
    return "many" if isinstance(value, dict) and "items" in value else "one"


OneOrMany = Annotated[
    Annotated[EndpointIn, Tag("one")] | Annotated[EndpointsIn, Tag("many")], Discriminator(_one_or_many)
]


class PoolIn(Body):
    """A block that automatic subnets are cut from, each `prefix_length` long."""

    name: Name
    cidr: CidrText
    prefix_length: int = Field(ge=1, le=126)
    reserved: tuple[CidrText, ...] = Field((), max_length=MAX_RESERVED, description="Parts that are never used.")

    def request(self) -> PoolRequest:
        return PoolRequest(self.name, self.cidr, self.prefix_length, self.reserved)


class ReservationIn(Body):
    """An address that is never handed out. Without one kvnet chooses."""

    name: Name
    address: AddressText | None = None

    def request(self) -> ReservationRequest:
        return ReservationRequest(self.name, self.address)


class ReportedIn(Body):
    kind: str = Field("", max_length=32)
    invariant: str = Field(max_length=8)
    detail: str = Field(max_length=MAX_REPORTED_TEXT)
    keys: tuple[Annotated[str, Field(max_length=MAX_REPORTED_TEXT)], ...] = Field(max_length=64)
    fix: str = Field("", max_length=MAX_REPORTED_TEXT)
    repairable: bool = False


class ReportIn(Body):
    """An answer of the check, as it was given: what is to be repaired, and as of which revision."""

    revision: int = Field(ge=0, le=2**63 - 1)
    findings: tuple[ReportedIn, ...] = Field(max_length=MAX_REPORTED)
    ok: bool = False
    repaired: tuple[ReportedIn, ...] = Field((), max_length=MAX_REPORTED)
    changed: tuple[ReportedIn, ...] = Field((), max_length=MAX_REPORTED)

    def request(self) -> RepairRequest:
        return RepairRequest(
            self.revision,
            tuple(Finding(f.invariant, f.detail, f.keys, f.fix, f.repairable, f.kind) for f in self.findings),
        )


class AcceptIn(Body):
    """What was seen of the store that is to be accepted, from /v1/store-state."""

    cluster: Annotated[str, Field(max_length=64)]
    revision_before: int = Field(0, ge=0, description="`trouble.revision_before`; 0 if there is no trouble.")


RULES = {
    NAME_PATTERN: "not a name: 1 to 63 letters, digits, '.', '_' or '-', first and last a letter or digit",
    ID_PATTERN: "not an id: 1 to 64 letters, digits, '.', '_' or '-', first and last a letter or digit",
    ETAG_PATTERN: 'not an ETag of ours: one as it was given, like "42", or *',
    KEY_PATTERN: "not a key: 1 to 255 visible ASCII characters, such as a UUID",
    NETWORK_ID_PATTERN: "not a network id: 12 lower-case hexadecimal digits",
}


class ConnectivityIn(Body):
    networks: Annotated[list[Name], Field(max_length=MAX_TESTED_NETWORKS)] | None = Field(
        None, description="Names or ids; null tests all."
    )
    hosts: Annotated[list[Name], Field(max_length=MAX_TESTED_HOSTS)] | None = Field(None, description="Null tests all.")
    between: Literal["hosts", "endpoints", "both"] = "both"
    all_endpoints: bool = Field(False, description="Every endpoint with every other, instead of one for each host.")
