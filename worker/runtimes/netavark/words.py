"""What netavark says and hears: its JSON into a network and an attachment of kvnet's, and back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network, summarize_address_range
from typing import Any, cast

from kvnet.errors import Invalid
from kvnet.model import Network
from kvnet.rules import require_name, shown
from kvnet.wire import NetworkBody, PortBody
from worker.requests import AttachRequest
from worker.runtimes.cni.results import DEFAULTS
from worker.runtimes.docker.options import IPAM, network_wishes, pool_wishes
from worker.runtimes.fitting import as_name
from worker.runtimes.repeatable import Attached

RUNTIME = "netavark"
# Options of `podman network create -o` that are not a network's: whose socket, and which network of kvnet's.
OWN_OPTIONS = frozenset({"socket", "network"})


def external_of(given: Mapping[str, Any]) -> str:
    """How netavark calls an attachment."""
    network, options = _object(given, "network"), _object(given, "network_options")
    parts = (_text(network, "id"), _text(given, "container_id"), _text(options, "interface_name"))
    return "/".join(("nv", *parts))


def network_name(network: Mapping[str, Any]) -> str:
    options = network.get("options") or {}
    name = options.get("network") if isinstance(options, dict) else None
    return name if isinstance(name, str) and name else _text(network, "name")


def network_body(given: Mapping[str, Any]) -> NetworkBody:
    """
    Raises:
        Invalid: an option that is not known, a value that cannot be read.
    """
    name = network_name(given)
    require_name(name, "/name")
    options = given.get("options") or {}
    if not isinstance(options, dict) or not all(isinstance(value, str) for value in options.values()):
        raise Invalid("options is not an object of texts")
    words = {word: text for word, text in options.items() if word not in OWN_OPTIONS}
    wishes = network_wishes({word: text for word, text in words.items() if word not in IPAM})
    body: dict[str, Any] = {"name": name, "driver": "overlay", **wishes.fields}
    body |= pool_wishes({word: text for word, text in words.items() if word in IPAM})
    subnets = [_subnet(subnet) for subnet in _list(given, "subnets")]
    body |= {"subnets": subnets} if subnets else {}
    body |= {"options": dict(wishes.options)} if wishes.options else {}
    body |= {"labels": _object(given, "labels")} if given.get("labels") else {}
    body |= {"internal": True} if given.get("internal") else {}
    body["ipv6"] = bool(given.get("ipv6_enabled")) or any(":" in subnet["cidr"] for subnet in subnets)
    return cast(NetworkBody, body)


def created(given: Mapping[str, Any], network: Network) -> dict[str, Any]:
    """Podman's copy: what it may show, and what it checks fixed addresses against. Its own DNS has no part in it."""
    asked = {str(item.get("subnet")): item for item in given.get("subnets") or ()}
    subnets = [
        {**asked.get(str(subnet.cidr), {}), "subnet": str(subnet.cidr)}
        | ({"gateway": str(subnet.gateway)} if subnet.gateway is not None else {})
        for subnet in network.subnets
    ]
    has_ipv6 = any(subnet.cidr.version == 6 for subnet in network.subnets)
    # Podman would choose addresses itself, of this host's view only.
    ipam = {**(given.get("ipam_options") or {}), "driver": "none"}
    facts = {
        "ipam_options": ipam,
        "subnets": subnets,
        "ipv6_enabled": has_ipv6,
        "internal": network.internal,
        "dns_enabled": False,
    }
    return {**given, **facts}


def setup_request(given: Mapping[str, Any], netns: str, external: str, endpoint_id: str) -> AttachRequest:
    options = _object(given, "network_options")
    container = _text(given, "container_id")
    addresses: dict[int, str] = {}
    for text in _list(options, "static_ips"):
        address = _address(text)
        if address.version in addresses:
            raise Invalid("an interface has one address of each family here", fix="give one --ip and one --ip6")
        addresses[address.version] = str(address)
    aliases = _list(options, "aliases")
    if not all(isinstance(alias, str) for alias in aliases):
        raise Invalid("aliases is not a list of names")
    name = str(given.get("container_name") or container[:12])
    return AttachRequest(
        network=network_name(_object(given, "network")),
        netns=netns,
        name=as_name(name),
        address=addresses.get(4, ""),
        address6=addresses.get(6, ""),
        mac=str(options.get("static_mac") or "").lower(),
        aliases=tuple(as_name(alias) for alias in aliases),
        interface=_text(options, "interface_name"),
        labels={"podman.container": container},
        id=endpoint_id,
        ports=ports_of(_list(given, "port_mappings")),
        reuse=bool(addresses),
        runtime=RUNTIME,
        external=external,
    )


def ports_of(given: list[Any]) -> tuple[PortBody, ...]:
    """Ranges are one to one, and a mapping may name several protocols."""
    ports: list[PortBody] = []
    for item in given:
        try:
            first, host, count = int(item["container_port"]), int(item["host_port"]), int(item.get("range") or 1)
            protocols = str(item.get("protocol") or "tcp").split(",")
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise Invalid("a port mapping cannot be read", fix="container_port, host_port, range, protocol") from error
        for protocol in protocols:
            port: PortBody = {"port": first, "host_port": host, "protocol": protocol.strip().lower()}
            if count > 1:
                port |= {"port_end": first + count - 1, "host_port_end": host + count - 1}
            if item.get("host_ip"):
                port["host_address"] = str(item["host_ip"])
            ports.append(port)
    return tuple(ports)


def status_block(made: Attached, dns: str) -> dict[str, Any]:
    gateways = {ip_network(r.destination).version: r.gateway for r in made.inner.routes if _is_default(r.destination)}
    subnets = []
    for address in made.inner.addresses:
        gateway = gateways.get(ip_interface(address).version)
        subnets.append({"ipnet": address} | ({"gateway": gateway} if gateway else {}))
    return {
        "dns_search_domains": [],
        "dns_server_ips": [dns] if dns else [],
        "interfaces": {made.inner.name: {"mac_address": made.inner.mac, "subnets": subnets}},
    }


def _is_default(destination: str) -> bool:
    return destination in DEFAULTS.values()


def _subnet(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict) or not isinstance(given.get("subnet"), str):
        raise Invalid("a subnet is not an object with 'subnet'")
    try:
        cidr = ip_network(given["subnet"])
    except ValueError as error:
        raise Invalid(f"{shown(given['subnet'])} is not a subnet", fix="like 10.1.0.0/24") from error
    plain: dict[str, Any] = {"cidr": str(cidr)}
    if given.get("gateway"):
        plain["gateway"] = str(_address(given["gateway"]))
    lease = given.get("lease_range")
    if lease and not isinstance(lease, dict):
        raise Invalid("lease_range is not an object")
    return plain | ({"range": str(_range(lease, cidr))} if lease else {})


def _range(lease: Any, cidr: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """Podman makes first and last address of a block; the network's own first and last may be left out of it."""
    first, last = _address(lease.get("start_ip") or cidr[0]), _address(lease.get("end_ip") or cidr[-1])
    if first not in cidr or last not in cidr:
        raise Invalid(f"{first} to {last} is not inside {cidr}", fix="give --ip-range inside the subnet")
    before = first - 1 if first > cidr[0] else first
    behind = last + 1 if last < cidr[-1] else last
    for low, high in ((first, last), (before, last), (before, behind), (first, behind)):
        blocks = list(summarize_address_range(low, high)) if low <= high else []
        if len(blocks) == 1:
            return cast("IPv4Network | IPv6Network", blocks[0])
    raise Invalid(f"{first} to {last} is not one block", fix="give --ip-range as a CIDR")


def _address(given: Any) -> Any:
    try:
        return ip_address(given)
    except ValueError as error:
        raise Invalid(f"{shown(str(given))} is not an address") from error


def _object(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = given.get(key)
    if not isinstance(found, dict):
        raise Invalid(f"{key} is missing, or not an object")
    return found


def _list(given: Mapping[str, Any], key: str) -> list[Any]:
    found = given.get(key)
    if found is not None and not isinstance(found, list):
        raise Invalid(f"{key} is not a list")
    return found or []


def _text(given: Mapping[str, Any], key: str) -> str:
    found = given.get(key)
    if not isinstance(found, str) or not found:
        raise Invalid(f"{key} is missing, or not a text")
    return found
