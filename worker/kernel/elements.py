"""What each of our nftables sets and maps holds for a `Firewall`, and how nft spells it.

Pure. Contents are compared as plain data and only what differs is spelled: of ten thousand published ports one more
costs one line. Nothing that comes from outside is ever put into the text but device names, addresses, MACs and
numbers, each in its own spelling.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

from datapath.objects import Firewall, Ip, Mac, Publication

Place = tuple[str, str]  # (family, set or map)
Block = tuple[Ip, int]
Contents = Mapping[Place, frozenset[Any]]

DEVICE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}\Z")
IPV4, IPV6 = 4, 16
CHUNK = 500  # elements a line, so that no line becomes unwieldy
LARGEST_PORT, LARGEST_PROTOCOL = 0xFFFF, 0xFF


class Kind(NamedTuple):
    """How an element is added, and how it is named where it goes: of a map, by its key alone."""

    spelled: Callable[[Any], str]
    named: Callable[[Any], str]


def contents(firewall: Firewall) -> Contents:
    """What every set and map holds, as data.

    `loops` and `same` say of each bridge that it leads to itself, `same` only where its workloads may talk.
    """
    loops = frozenset((bridge, bridge) for bridge in firewall.bridges)
    sparse = firewall.within, firewall.blocks
    return {
        ("inet", "bridges"): firewall.bridges,
        ("inet", "internal"): firewall.internal,
        ("inet", "loops"): loops,
        ("inet", "same"): frozenset(pair for pair in loops if pair[0] not in firewall.isolated),
        ("inet", "pairs"): firewall.pairs,
        ("inet", "within4"): frozenset(item for item in sparse[0] if len(item[1][0]) == IPV4),
        ("inet", "within6"): frozenset(item for item in sparse[0] if len(item[1][0]) == IPV6),
        ("inet", "blocks4"): _of_length(sparse[1], IPV4),
        ("inet", "blocks6"): _of_length(sparse[1], IPV6),
        ("inet", "same4"): _of_length(sparse[1], IPV4),
        ("inet", "same6"): _of_length(sparse[1], IPV6),
        ("inet", "subnets4"): firewall.subnets4,
        ("inet", "subnets6"): firewall.subnets6,
        ("inet", "dns"): firewall.dns,
        ("inet", "dockers"): firewall.dockers,
        **_published(firewall.publications),
        ("bridge", "dns"): firewall.dns,
        ("bridge", "vxlans"): firewall.vxlans,
        ("bridge", "apart"): firewall.apart,
        ("bridge", "gateway_macs"): firewall.gateway_macs,
    }


def elements(firewall: Firewall) -> Mapping[Place, frozenset[str]]:
    """What every set and map holds, in nft's spelling."""
    return {place: frozenset(map(KINDS[place].spelled, items)) for place, items in contents(firewall).items()}


def difference(wanted: Firewall, actual: Firewall) -> str:
    """From one content to another. Removals first: intervals must not overlap on the way, nor keys be there twice."""
    shared = wanted.publications & actual.publications  # by far the most numerous
    new, old = (contents(replace(it, publications=it.publications - shared)) for it in (wanted, actual))
    removals = (lines("delete", place, old[place] - new[place]) for place in KINDS)
    additions = (lines("add", place, new[place] - old[place]) for place in KINDS)
    return "".join(removals) + "".join(additions)


def everything(firewall: Firewall) -> str:
    """All of it, into empty sets."""
    held = contents(firewall)
    return "".join(lines("add", place, held[place]) for place in KINDS)


def lines(verb: str, place: Place, items: Collection[Any]) -> str:
    if not items:
        return ""
    family, name = place
    kind = KINDS[place]
    ordered = sorted(map(kind.spelled if verb == "add" else kind.named, items))
    chunks = (ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK))
    return "".join(f"{verb} element {family} kvnet {name} {{ {', '.join(chunk)} }}\n" for chunk in chunks)


def _of_length(blocks: Iterable[Block], length: int) -> frozenset[Block]:
    return frozenset(block for block in blocks if len(block[0]) == length)


def _published(publications: Iterable[Publication]) -> dict[Place, frozenset[Publication]]:
    held: dict[tuple[bool, int], set[Publication]] = {}
    for publication in publications:
        held.setdefault((bool(publication.address), len(publication.to)), set()).add(publication)
    return {
        ("inet", "at4"): frozenset(held.get((True, IPV4), ())),
        ("inet", "any4"): frozenset(held.get((False, IPV4), ())),
        ("inet", "at6"): frozenset(held.get((True, IPV6), ())),
        ("inet", "any6"): frozenset(held.get((False, IPV6), ())),
    }


def _device(name: str) -> str:
    """Nothing that could end the quotes, and no wildcard, may reach nft's parser."""
    if not DEVICE.match(name):
        raise ValueError(f"{name!r} cannot be the name of a device in the rules")
    return f'"{name}"'


def _pair(devices: tuple[str, str]) -> str:
    return f"{_device(devices[0])} . {_device(devices[1])}"


def _block(block: Block) -> str:
    return str(ip_network(block))


def _address(address: Ip) -> str:
    return str(ip_address(address))


def _within(item: tuple[str, Block]) -> str:
    return f"{_device(item[0])} . {_block(item[1])}"


def _square(block: Block) -> str:
    return f"{_block(block)} . {_block(block)}"


def _mac(mac: Mac) -> str:
    return mac.hex(":")


def _port(publication: Publication) -> str:
    """Its key in a map."""
    protocol, address, port, to, to_port = publication
    if not (0 < port <= LARGEST_PORT and 0 < to_port <= LARGEST_PORT and 0 <= protocol <= LARGEST_PROTOCOL):
        raise ValueError(f"{publication} is no publication")
    if address and len(address) != len(to):
        raise ValueError(f"{publication} leads from one family of addresses to the other")
    return f"{ip_address(address)} . {protocol} . {port}" if address else f"{protocol} . {port}"


def _publication(publication: Publication) -> str:
    return f"{_port(publication)} : {ip_address(publication.to)} . {publication.to_port}"


def _same(spelled: Callable[[Any], str]) -> Kind:
    return Kind(spelled, spelled)


KINDS: Mapping[Place, Kind] = {
    ("inet", "bridges"): _same(_device),
    ("inet", "internal"): _same(_device),
    ("inet", "loops"): _same(_pair),
    ("inet", "same"): _same(_pair),
    ("inet", "pairs"): _same(_pair),
    ("inet", "within4"): _same(_within),
    ("inet", "within6"): _same(_within),
    ("inet", "blocks4"): _same(_block),
    ("inet", "blocks6"): _same(_block),
    ("inet", "same4"): _same(_square),
    ("inet", "same6"): _same(_square),
    ("inet", "subnets4"): _same(_block),
    ("inet", "subnets6"): _same(_block),
    ("inet", "dns"): _same(_address),
    ("inet", "dockers"): _same(_device),
    ("inet", "at4"): Kind(_publication, _port),
    ("inet", "any4"): Kind(_publication, _port),
    ("inet", "at6"): Kind(_publication, _port),
    ("inet", "any6"): Kind(_publication, _port),
    ("bridge", "dns"): _same(_address),
    ("bridge", "vxlans"): _same(_device),
    ("bridge", "apart"): _same(_device),
    ("bridge", "gateway_macs"): _same(_mac),
}
