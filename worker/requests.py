"""What comes over the worker's socket, checked before anything is done: one dataclass per operation.

Every text is judged by the rules of the model, so that nothing here can be read as syntax by a path, a shell or a
rule later on. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any, cast

from kvnet.errors import Invalid
from kvnet.rules import GATEWAY_PRIORITY, IDENTIFIER, MAX_ALIASES, MAX_PORTS, require_labels, require_mac, require_name
from kvnet.wire import EndpointBody, PortBody
from worker.runtimes.netns import require_interface_name

MAX_PATH = 4096
MAX_WAIT_S = 60.0
PORT_FIELDS: Mapping[str, type] = {
    "port": int,
    "port_end": int,
    "protocol": str,
    "host_port": int,
    "host_port_end": int,
    "host_address": str,
}
EXAMPLES = {IPv4Address: "10.1.0.7", IPv6Address: "fd00::7"}


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """Empty means not given.

    `runtime` and `external`: who attaches, and how that one calls it (`worker.attachments.Record`); never from outside.
    `reuse`: the address may be one that an endpoint has just given back. `kept`: sockets of the runtime that asks, by
    number; a host port that one of them keeps for this workload is free for it.
    """

    network: str
    netns: str
    name: str
    hostname: str = ""
    address: str = ""
    address6: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
    interface: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    id: str = ""
    wait: float = 0.0
    ports: tuple[PortBody, ...] = ()
    gateway_priority: int = 0
    reuse: bool = False
    runtime: str = "netns"
    external: str = ""
    kept: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        require_name(self.network, "/network")
        require_name(self.name, "/name")
        if not self.netns or len(self.netns) > MAX_PATH or not self.netns.isprintable():
            raise Invalid.field("/netns", "the namespace is missing or unreadable", "a name or a path of a namespace")
        if "/" in self.netns and not self.netns.startswith("/"):
            raise Invalid.field("/netns", f"{self.netns[:80]!r} is a relative path", "an absolute path, or a name")
        if self.hostname:
            require_name(self.hostname, "/hostname")
        if len(self.aliases) > MAX_ALIASES:
            raise Invalid.field("/aliases", f"{len(self.aliases)} aliases; at most {MAX_ALIASES}")
        for alias in self.aliases:
            require_name(alias, "/aliases")
        _require_address(self.address, IPv4Address, "/address")
        _require_address(self.address6, IPv6Address, "/address6")
        if self.mac:
            require_mac(self.mac)
        if self.interface:
            require_interface_name(self.interface)
        require_labels(self.labels, "/labels")
        if self.id and not IDENTIFIER.match(self.id):
            raise Invalid.field("/id", "not an id", "letters, digits, '.', '_', '-'; at most 64")
        if not 0 <= self.wait <= MAX_WAIT_S:
            raise Invalid.field("/wait", f"{self.wait} s", f"0 to {MAX_WAIT_S:g} seconds")
        if len(self.ports) > MAX_PORTS:
            raise Invalid.field("/ports", f"{len(self.ports)} ports; at most {MAX_PORTS}")
        if abs(self.gateway_priority) > GATEWAY_PRIORITY:
            fix = f"-{GATEWAY_PRIORITY} to {GATEWAY_PRIORITY}"
            raise Invalid.field("/gateway_priority", f"{self.gateway_priority} is out of range", fix)

    @property
    def chooses_ports(self) -> bool:
        """Every host port was asked for by number, so another one would not do."""
        return all("host_port" in port and ("host_port_end" not in port or "port_end" in port) for port in self.ports)

    def body(self, endpoint_id: str, host: str) -> EndpointBody:
        body: EndpointBody = {"id": endpoint_id, "host": host, "name": self.name}
        if self.hostname:
            body["hostname"] = self.hostname
        if self.address:
            body["address"] = self.address
        if self.address6:
            body["address6"] = self.address6
        if self.mac:
            body["mac"] = self.mac
        if self.aliases:
            body["aliases"] = list(self.aliases)
        if self.labels:
            body["labels"] = dict(self.labels)
        if self.ports:
            body["ports"] = list(self.ports)
        if self.gateway_priority:
            body["gateway_priority"] = self.gateway_priority
        if self.reuse:
            body["reuse"] = True
        return body


ATTACH_FIELDS = tuple(name for name in AttachRequest.__slots__ if name not in ("runtime", "external", "kept"))


@dataclass(frozen=True, slots=True)
class DetachRequest:
    """Whatever fits all that is given. A network alone says too little to take something away by."""

    id: str = ""
    name: str = ""
    netns: str = ""
    network: str = ""

    def __post_init__(self) -> None:
        if not (self.id or self.name or self.netns):
            raise Invalid("what is to be detached?", fix="give the id, the name or the namespace")


def parse_attach(message: Mapping[str, Any]) -> AttachRequest:
    plain = _known(message, ATTACH_FIELDS)
    for name in ("network", "netns", "name"):
        if name not in plain:
            raise Invalid.field(f"/{name}", f"{name} is missing", "network, netns and name are needed")
    aliases, labels, wait = plain.pop("aliases", []), plain.pop("labels", {}), plain.pop("wait", 0.0)
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise Invalid.field("/aliases", "not a list of names")
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise Invalid.field("/labels", "not an object of texts")
    if isinstance(wait, bool) or not isinstance(wait, (int, float)):
        raise Invalid.field("/wait", "not a number of seconds")
    ports, priority = _ports(plain.pop("ports", [])), plain.pop("gateway_priority", 0)
    reuse = plain.pop("reuse", False)
    if not isinstance(reuse, bool):
        raise Invalid.field("/reuse", "not true or false")
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise Invalid.field("/gateway_priority", "not a whole number")
    return AttachRequest(
        **cast("dict[str, Any]", _texts(plain)),
        aliases=tuple(aliases),
        labels=labels,
        wait=float(wait),
        ports=ports,
        gateway_priority=priority,
        reuse=reuse,
    )


def parse_detach(message: Mapping[str, Any]) -> DetachRequest:
    return DetachRequest(**_texts(_known(message, DetachRequest.__slots__)))


def _known(message: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    for name in message:
        if name != "op" and name not in names:
            raise Invalid.field(f"/{name[:64]}", "unknown field", f"known are: {', '.join(names)}")
    return {name: value for name, value in message.items() if name != "op" and value is not None}


def _ports(given: object) -> tuple[PortBody, ...]:
    """Only what they consist of is judged here; the controller knows which of them make sense."""
    if not isinstance(given, list):
        raise Invalid.field("/ports", "not a list of ports", 'like [{"port": 80, "host_port": 8080}]')
    for number, port in enumerate(given):
        if not isinstance(port, dict):
            raise Invalid.field(f"/ports/{number}", "not an object", '{"port": 80, "host_port": 8080}')
        for name, value in port.items():
            kind = PORT_FIELDS.get(name)
            if kind is None:
                raise Invalid.field(f"/ports/{number}/{name[:64]}", "unknown", f"known are: {', '.join(PORT_FIELDS)}")
            if isinstance(value, bool) or not isinstance(value, kind):
                raise Invalid.field(f"/ports/{number}/{name}", "not a number" if kind is int else "not a text")
        if "port" not in port:
            raise Invalid.field(f"/ports/{number}/port", "port is missing", "the workload's own port")
    return tuple(cast("list[PortBody]", given))


def _texts(plain: Mapping[str, Any]) -> dict[str, str]:
    for name, value in plain.items():
        if not isinstance(value, str):
            raise Invalid.field(f"/{name}", "not a text")
    return dict(plain)


def _require_address(text: str, kind: type[IPv4Address] | type[IPv6Address], pointer: str) -> None:
    if not text:
        return
    try:
        kind(text)
    except ValueError as error:
        family = "IPv4" if kind is IPv4Address else "IPv6"
        raise Invalid.field(pointer, f"{text[:80]!r} is not an {family} address", f"like {EXAMPLES[kind]}") from error
