"""What ADD answers, in the words of each version of the specification, and what CHECK finds wrong with it.

The answer tells what is there, as it was just read from the kernel, not what was asked for. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from ipaddress import ip_interface, ip_network
from typing import Any

from kvnet.shims.cni import VERSIONS
from worker.kernel.look import SeenInterface
from worker.runtimes.cni.refusals import CniRefused, Number
from worker.runtimes.cni.request import as_spelled

DEFAULTS = {4: "0.0.0.0/0", 6: "::/0"}
SINCE_1_0 = VERSIONS.index("1.0.0")
SINCE_1_1 = VERSIONS.index("1.1.0")
DNS_KEYS = ("nameservers", "domain", "search", "options")
RUNTIME_DNS_KEYS = {"nameservers": "servers", "search": "searches", "options": "options"}


def result_of(
    version: str, netns: str, inner: SeenInterface, outer: SeenInterface | None, dns: Mapping[str, Any]
) -> dict[str, Any]:
    """`outer`: the half on the host; some networks have none. `netns`: as the runtime called it."""
    interfaces = [] if outer is None else [_interface(outer, "", version)]
    interfaces.append(_interface(inner, netns, version))
    gateways: dict[int, str] = {
        ip_network(route.destination).version: route.gateway for route in inner.routes if _is_default(route)
    }
    ips = [_ip(address, gateways, len(interfaces) - 1, version) for address in inner.addresses]
    routes = [_route(route.destination, route.gateway, route.metric, version) for route in inner.routes]
    return {"cniVersion": version, "interfaces": interfaces, "ips": ips, "routes": routes, "dns": dict(dns)}


def chained(previous: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier plugin of the chain made, and what we added. Its servers for names stay where it has any."""
    before = [dict(item) for item in previous.get("interfaces") or ()]
    ips = [{**ip, "interface": ip["interface"] + len(before)} for ip in own["ips"]]
    dns = {**own["dns"], **{key: value for key, value in (previous.get("dns") or {}).items() if value}}
    return {
        **previous,
        "cniVersion": own["cniVersion"],
        "interfaces": [*before, *own["interfaces"]],
        "ips": [*(previous.get("ips") or ()), *ips],
        "routes": [*(previous.get("routes") or ()), *own["routes"]],
        "dns": dns,
    }


def dns_of(config: Mapping[str, Any], runtime: Mapping[str, Any]) -> dict[str, Any]:
    """Who is to be asked for names: what the runtime says, else the list; empty where neither does.

    Raises:
        CniRefused: what would not be of the form that the specification gives a result.
    """
    runtime = as_spelled(runtime, RUNTIME_DNS_KEYS.values())
    _require_dns(config, "dns", DNS_KEYS)
    _require_dns(runtime, "runtimeConfig.dns", tuple(RUNTIME_DNS_KEYS.values()))
    found: dict[str, Any] = {key: config[key] for key in DNS_KEYS if config.get(key)}
    return found | {key: runtime[theirs] for key, theirs in RUNTIME_DNS_KEYS.items() if runtime.get(theirs)}


def with_server(dns: Mapping[str, Any], server: str) -> dict[str, Any]:
    """This host's worker answers for names, if nobody else was said to and it is reached."""
    return {"nameservers": [server], **dns} if server else dict(dns)


def previous_result(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """
    Raises:
        CniRefused: it is there, and is not a result.
    """
    previous = config.get("prevResult")
    if previous is None:
        return None
    lists = ("interfaces", "ips", "routes")
    if not isinstance(previous, dict) or not all(_is_list_of_objects(previous.get(name)) for name in lists):
        raise CniRefused(Number.BAD_CONFIGURATION, "prevResult is not a result of this version")
    if not isinstance(previous.get("dns") or {}, dict):
        raise CniRefused(Number.BAD_CONFIGURATION, "prevResult.dns is not an object")
    return previous


def differences(
    previous: Mapping[str, Any], interface: str, mac: str, addresses: Collection[str], seen: SeenInterface
) -> list[str]:
    """What the result tells of our interface and is not so. `addresses` are the endpoint's.

    A later plugin may have changed what is not ours: only our addresses, and routes through gateways that the result
    gives for them, are looked for.
    """
    found: list[str] = []
    index = _index_of(previous, interface)
    if index is None:
        return [f"prevResult does not have {interface}"]
    if not seen.is_up:
        found.append(f"{interface} is down")
    wanted_mac = previous["interfaces"][index].get("mac") or mac
    if seen.mac != str(wanted_mac).lower():
        found.append(f"{interface} has the MAC address {seen.mac}, not {wanted_mac}")
    ours = [ip for ip in previous.get("ips") or () if _bare(ip.get("address")) in addresses]
    told = {_bare(ip.get("address")) for ip in ours}
    found += [f"prevResult does not have the address {address}" for address in sorted(set(addresses) - told)]
    there = {str(ip_interface(text)) for text in seen.addresses}
    found += [f"{interface} has lost {ip['address']}" for ip in ours if str(ip_interface(ip["address"])) not in there]
    gateways = {ip["gateway"] for ip in ours if ip.get("gateway")}
    routes = {(route.destination, route.gateway) for route in seen.routes}
    for route in previous.get("routes") or ():
        if route.get("gw") in gateways and (route.get("dst"), route["gw"]) not in routes:
            found.append(f"the route to {route.get('dst')} via {route['gw']} is gone")
    return found


def _interface(seen: SeenInterface, sandbox: str, version: str) -> dict[str, Any]:
    plain: dict[str, Any] = {"name": seen.name, "mac": seen.mac}
    if VERSIONS.index(version) >= SINCE_1_1:
        plain["mtu"] = seen.mtu
    return plain | ({"sandbox": sandbox} if sandbox else {})


def _ip(address: str, gateways: Mapping[int, str], index: int, version: str) -> dict[str, Any]:
    family = ip_interface(address).version
    plain: dict[str, Any] = {"version": str(family)} if VERSIONS.index(version) < SINCE_1_0 else {}
    plain |= {"address": address, "interface": index}
    return plain | ({"gateway": gateways[family]} if gateways.get(family) else {})


def _route(destination: str, gateway: str, metric: int, version: str) -> dict[str, Any]:
    plain: dict[str, Any] = {"dst": destination} | ({"gw": gateway} if gateway else {})
    if metric and VERSIONS.index(version) >= SINCE_1_1:
        plain["priority"] = metric
    return plain


def _is_default(route: Any) -> bool:
    return route.destination in DEFAULTS.values()


def _index_of(previous: Mapping[str, Any], interface: str) -> int | None:
    """In the container: a half on the host may have any name."""
    interfaces: Sequence[Mapping[str, Any]] = previous.get("interfaces") or ()
    found = (n for n, item in enumerate(interfaces) if item.get("name") == interface and item.get("sandbox"))
    return next(found, None)


def _bare(address: object) -> str:
    try:
        return str(ip_interface(str(address)).ip)
    except ValueError:
        return ""


def _require_dns(given: Mapping[str, Any], where: str, known: Sequence[str]) -> None:
    for key, value in given.items():
        if key not in known:
            raise CniRefused(Number.UNSUPPORTED_FIELD, f"{where}.{key[:64]}", fix=f"known are {', '.join(known)}")
        is_fit = isinstance(value, str) if key == "domain" else _is_list_of_texts(value)
        if value is not None and not is_fit:
            kind = "a text" if key == "domain" else "a list of texts"
            raise CniRefused(Number.BAD_CONFIGURATION, f"{where}.{key} is not {kind}")


def _is_list_of_texts(given: object) -> bool:
    return isinstance(given, list) and all(isinstance(item, str) for item in given)


def _is_list_of_objects(given: object) -> bool:
    return given is None or (isinstance(given, list) and all(isinstance(item, dict) for item in given))
