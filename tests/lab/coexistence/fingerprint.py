"""All of a namespace's network that is not ours, as comparable text: links, addresses, routes, rules, settings, tables.

Counters and clocks are left out, and the connections that are tracked: those change by themselves.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from datapath.objects import PROTOCOL
from lab import namespaces
from tests.lab.coexistence.programs import run
from worker.kernel import dump
from worker.kernel import messages as m
from worker.kernel.firewall import find_nft
from worker.kernel.netlink import Message, Netlink, attributes

RTM_GETRULE = 34
SETTINGS = Path("/proc/sys/net")
CHANGING = ("nf_conntrack_count", "stat_refresh", "/flush")
LINK_FIELDS = (m.IFLA_ADDRESS, m.IFLA_IFNAME, m.IFLA_MTU, m.IFLA_LINK, m.IFLA_MASTER, m.IFLA_IFALIAS, m.IFLA_GROUP)
ROUTE_CACHE = 12  # RTA_CACHEINFO: clocks
ADDRESS_CACHE = 6  # IFA_CACHEINFO
IP_FAMILIES = (m.AF_INET, m.AF_INET6)


def fingerprint(netns: Path) -> dict[str, object]:
    found = namespaces.call(netns, _kernels)
    found["settings"] = namespaces.call(netns, lambda: dict(_settings()))
    tables = run(netns, find_nft(), "list", "tables").splitlines()
    for table in tables:
        family, name = table.split()[1:]
        if name != "kvnet":
            found[table] = run(netns, find_nft(), "--stateless", "list", "table", family, name)
    return found


def _kernels() -> dict[str, object]:
    rtnetlink = Netlink()
    links = [(dump.device(body), body) for body in rtnetlink.dump(m.dump_links())]
    ours = {device.index for device, _ in links if device.is_ours}
    found: dict[str, object] = {
        "links": sorted(
            (device.index, m.LINK.unpack_from(body)[3], [device.fields.get(kind) for kind in LINK_FIELDS])
            for device, body in links
            if device.index not in ours
        ),
        "addresses": sorted(
            _without(body, m.ADDRESS.size, ADDRESS_CACHE)
            for body in rtnetlink.dump(m.dump_addresses())
            if m.ADDRESS.unpack_from(body)[4] not in ours
        ),
        "routes": sorted(_without(body, m.ROUTE.size, ROUTE_CACHE) for body in _routes(rtnetlink, ours)),
        "rules": sorted(
            body
            for family in IP_FAMILIES
            for body in rtnetlink.dump(Message(RTM_GETRULE, 0, bytes([family]) + bytes(11)))
        ),
    }
    rtnetlink.close()
    return found


def _routes(rtnetlink: Netlink, ours: set[int]) -> Iterator[bytes]:
    for body in rtnetlink.dump(m.dump_routes()):
        way = attributes(body, m.ROUTE.size).get(m.RTA_OIF, bytes(4))
        if m.ROUTE.unpack_from(body)[5] != PROTOCOL and m.U32.unpack(way)[0] not in ours:
            yield body


def _without(body: bytes, head: int, kind: int) -> bytes:
    fields = attributes(body, head)
    return body[:head] + repr(sorted((k, v) for k, v in fields.items() if k != kind)).encode()


def _settings() -> Iterator[tuple[str, str]]:
    """Of everything but our devices."""
    for folder, _, names in os.walk(SETTINGS):
        if any(part.startswith("kv") for part in Path(folder).parts):
            continue
        for name in names:
            path = f"{folder}/{name}"
            if any(word in path for word in CHANGING):
                continue
            try:
                with open(path, "rb") as file:
                    yield path, file.read(65536).decode("utf-8", "replace")
            except OSError:  # write-only ones, and those that this namespace may not see
                continue
