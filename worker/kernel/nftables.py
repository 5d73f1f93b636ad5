"""Reads our nftables tables from the kernel, without a process: 0.3 ms instead of 15.

The rules are fixed, so they are not understood but fingerprinted: chains, rules and sets as the kernel encodes them.
The elements of sets and maps are decoded. Never writes: that is `nft`'s, which knows how to compile rules.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from datapath.objects import Firewall, Ip, Publication
from worker.kernel.elements import Block, Place
from worker.kernel.netlink import (
    TYPE_MASK,
    Message,
    Netlink,
    attribute,
    attribute_list,
    attributes,
)
from worker.kernel.rules import FAMILIES, RULES_DIGEST, SEAL, TABLE

# linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
SUBSYSTEM = 10 << 8
GETTABLE, GETCHAIN, GETRULE, GETSET, GETSETELEM, NEWGEN, GETGEN = 1, 4, 7, 10, 13, 15, 16
NEWCHAINS, NEWRULES = (3, 5), (6, 8)  # made and deleted
DELCHAIN = 5
NFPROTO = {"inet": 1, "ip": 2, "bridge": 7, "ip6": 10}
TABLE_NAME, TABLE_FLAGS = 1, 2
CHAIN_TABLE, CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE = 1, 3, 4, 5, 7
RULE_TABLE, RULE_CHAIN, RULE_EXPRESSIONS = 1, 2, 4
SET_TABLE, SET_NAME, SET_FLAGS, SET_KEY_TYPE, SET_KEY_LENGTH, SET_DATA_TYPE, SET_DATA_LENGTH = 1, 2, 3, 4, 5, 6, 7
LIST_TABLE, LIST_SET, LIST_ELEMENTS = 1, 2, 3
ELEMENT_KEY, ELEMENT_DATA, ELEMENT_FLAGS, ELEMENT_KEY_END, DATA_VALUE = 1, 2, 3, 10, 1
GENERATION_ID = 1
INTERVAL_END = 1
GENERIC = Struct(">BBH")  # nfgenmsg: family, version, resource id
BIG32 = Struct(">I")
FINGERPRINT_DIGITS = 32
DEVICE_BYTES = 16  # IFNAMSIZ, also in a key
SET_FIELDS = (SET_NAME, SET_FLAGS, SET_KEY_TYPE, SET_KEY_LENGTH, SET_DATA_TYPE, SET_DATA_LENGTH)


class Tables(NamedTuple):
    """What was found. `firewall` is None where the elements contradict each other; `seals` are the marks in there."""

    fingerprint: str
    seals: frozenset[str]
    firewall: Firewall | None


class NftablesReader:
    """Belongs to the kernel thread."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink

    def generation(self) -> int:
        """Changes with every change of any table, by anybody. The same number = nothing changed."""
        body = self._netlink.get(Message(SUBSYSTEM | GETGEN, 0, GENERIC.pack(0, 0, 0)))
        if body is None:
            raise OSError(errno.EIO, "nftables does not tell its generation")
        number: int = BIG32.unpack(attributes(body, GENERIC.size)[GENERATION_ID])[0]
        return number

    def read(self) -> Tables | None:
        """None where one of the tables is missing."""
        try:
            seals, fingerprint = self._structure()
            return Tables(fingerprint, frozenset(seals), self._firewall())
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise

    def _structure(self) -> tuple[list[str], str]:
        digest = hashlib.sha256(RULES_DIGEST)
        seals: list[str] = []
        for family in FAMILIES:
            table = attributes(self._get(family), GENERIC.size)
            digest.update(family.encode() + table.get(TABLE_FLAGS, b""))
            for part in sorted(self._chains(family, seals)) + sorted(self._sets(family)):
                digest.update(part)
            for part in self._rules(family):
                digest.update(part)
        return seals, digest.hexdigest()[:FINGERPRINT_DIGITS]

    def _chains(self, family: str, seals: list[str]) -> Iterator[bytes]:
        for fields in self._dump(family, GETCHAIN, attribute(CHAIN_TABLE, _name(TABLE))):
            if fields.get(CHAIN_TABLE) != _name(TABLE):
                continue  # the kernel lists the chains of all tables
            name = fields[CHAIN_NAME].rstrip(b"\0").decode("utf-8", "replace")
            if name.startswith(SEAL):
                seals.append(name.removeprefix(SEAL))
            else:
                yield _joined(fields, (CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE))

    def _rules(self, family: str) -> Iterator[bytes]:
        for fields in self._dump(family, GETRULE, attribute(RULE_TABLE, _name(TABLE))):
            if fields.get(RULE_TABLE) == _name(TABLE):
                yield _joined(fields, (RULE_CHAIN, RULE_EXPRESSIONS))

    def _sets(self, family: str) -> Iterator[bytes]:
        for fields in self._dump(family, GETSET, attribute(SET_TABLE, _name(TABLE))):
            if fields.get(SET_TABLE) == _name(TABLE):
                yield _joined(fields, SET_FIELDS)

    def _firewall(self) -> Firewall | None:
        bridges = frozenset(map(_device, self._keys("inet", "bridges")))
        try:
            same, loops = self._pairs("same"), self._pairs("loops")
            firewall = Firewall(
                bridges=bridges,
                internal=frozenset(map(_device, self._keys("inet", "internal"))),
                isolated=frozenset(bridge for bridge in bridges if (bridge, bridge) not in same),
                pairs=self._pairs("pairs"),
                within=self._within("within4", 4) | self._within("within6", 16),
                blocks=self._blocks("blocks4", 4) | self._blocks("blocks6", 16),
                subnets4=self._blocks("subnets4", 4),
                subnets6=self._blocks("subnets6", 16),
                publications=frozenset(self._publications()),
                vxlans=frozenset(map(_device, self._keys("bridge", "vxlans"))),
                apart=frozenset(map(_device, self._keys("bridge", "apart"))),
                gateway_macs=frozenset(key[:6] for key in self._keys("bridge", "gateway_macs")),
                dns=frozenset(key[:4] for key in self._keys("inet", "dns")),
                dockers=frozenset(map(_device, self._keys("inet", "dockers"))),
            )
            squares = self._squares("same4", 4) | self._squares("same6", 16)
            is_told_alike = firewall.dns == {key[:4] for key in self._keys("bridge", "dns")}
        except ValueError:
            return None
        is_sound = loops == {(bridge, bridge) for bridge in bridges} and same <= loops and squares == firewall.blocks
        return firewall if is_sound and is_told_alike else None

    def _keys(self, family: str, name: str) -> list[bytes]:
        return [_value(fields[ELEMENT_KEY]) for fields in self._elements((family, name))]

    def _pairs(self, name: str) -> frozenset[tuple[str, str]]:
        keys = self._keys("inet", name)
        return frozenset((_device(key[:DEVICE_BYTES]), _device(key[DEVICE_BYTES:])) for key in keys)

    def _blocks(self, name: str, length: int) -> frozenset[Block]:
        """Raises: ValueError where an interval is not a block."""
        edges: list[tuple[int, bool]] = []
        for fields in self._elements(("inet", name)):
            is_end = bool(BIG32.unpack(fields.get(ELEMENT_FLAGS, bytes(4)))[0] & INTERVAL_END)
            edges.append((int.from_bytes(_value(fields[ELEMENT_KEY])[:length], "big"), is_end))
            if ELEMENT_KEY_END in fields:
                edges.append((int.from_bytes(_value(fields[ELEMENT_KEY_END])[:length], "big") + 1, True))
        return frozenset(blocks_between(edges, length))

    def _within(self, name: str, length: int) -> frozenset[tuple[str, Block]]:
        """Raises: ValueError as above, and where the devices are a range."""
        found: set[tuple[str, Block]] = set()
        for first, last in self._ranges(name):
            if first[:DEVICE_BYTES] != last[:DEVICE_BYTES]:
                raise ValueError("a range of devices")
            block = block_between(first[DEVICE_BYTES:], last[DEVICE_BYTES:], length)
            found.add((_device(first[:DEVICE_BYTES]), block))
        return frozenset(found)

    def _squares(self, name: str, length: int) -> frozenset[Block]:
        """Raises: ValueError as above, and where the two sides differ."""
        found: set[Block] = set()
        for first, last in self._ranges(name):
            block = block_between(first[:length], last[:length], length)
            if block != block_between(first[length:], last[length:], length):
                raise ValueError("two different blocks")
            found.add(block)
        return frozenset(found)

    def _ranges(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """The first and the last key of each element of a set of concatenated intervals."""
        for fields in self._elements(("inet", name)):
            key = fields[ELEMENT_KEY]
            yield _value(key), _value(fields.get(ELEMENT_KEY_END, key))

    def _publications(self) -> Iterator[Publication]:
        for name, has_address, length in (("at4", 1, 4), ("at6", 1, 16), ("any4", 0, 4), ("any6", 0, 16)):
            at = length if has_address else 0
            layout = Struct(f">{at}sB3xH2x")
            target = Struct(f">{length}sH2x")
            for key, data in self._mapped(name, layout.size, target.size):
                address, protocol, port = layout.unpack(key)
                to, to_port = target.unpack(data)
                yield Publication(protocol, address, port, to, to_port)

    def _mapped(self, name: str, key_size: int, data_size: int) -> Iterator[tuple[bytes, bytes]]:
        """Keys and data of a map, cut at the places where the kernel puts them: of these there may be many."""
        head = Struct(f"=HHHH{key_size}sHHHH{data_size}s")
        shape = key_size + 8, ELEMENT_KEY, key_size + 4, DATA_VALUE, data_size + 8, ELEMENT_DATA, data_size + 4
        for element in self._raw_elements(("inet", name)):
            if len(element) >= head.size:
                a, b, c, d, key, e, f, g, h, data = head.unpack_from(element)
                if (a, b & TYPE_MASK, c, d, e, f & TYPE_MASK, g) == shape and h == DATA_VALUE:
                    yield key, data
                    continue
            fields = attributes(element, 0)
            yield _value(fields[ELEMENT_KEY])[:key_size], _value(fields[ELEMENT_DATA])[:data_size]

    def _elements(self, place: Place) -> Iterator[dict[int, bytes]]:
        for element in self._raw_elements(place):
            yield attributes(element, 0)

    def _raw_elements(self, place: Place) -> Iterator[bytes]:
        family, name = place
        body = attribute(LIST_TABLE, _name(TABLE)) + attribute(LIST_SET, _name(name))
        for fields in self._dump(family, GETSETELEM, body):
            for _, element in attribute_list(fields.get(LIST_ELEMENTS, b""), 0):
                yield element

    def _get(self, family: str) -> bytes:
        body = GENERIC.pack(NFPROTO[family], 0, 0) + attribute(TABLE_NAME, _name(TABLE))
        found = self._netlink.get(Message(SUBSYSTEM | GETTABLE, 0, body))
        if found is None:
            raise OSError(errno.ENOENT, f"there is no table {family} {TABLE}")
        return found

    def _dump(self, family: str, kind: int, filters: bytes) -> Iterator[dict[int, bytes]]:
        body = GENERIC.pack(NFPROTO[family], 0, 0) + filters
        for answer in self._netlink.dump(Message(SUBSYSTEM | kind, 0, body)):
            yield attributes(answer, GENERIC.size)


def block_between(first: bytes, last: bytes, length: int) -> Block:
    """The block from its first to its last address. Raises: ValueError where that is none."""
    start, end = int.from_bytes(first[:length], "big"), int.from_bytes(last[:length], "big")
    return first[:length], _prefix_length(start, end + 1 - start, length)


def blocks_between(edges: Sequence[tuple[int, bool]], length: int) -> Iterator[tuple[Ip, int]]:
    """The blocks that a set of (address, is it the end of one) spells. Neighbouring blocks share an edge's address.

    Raises:
        ValueError: an interval is not a block, or has no start.
    """
    start: int | None = None
    last = 1 << 8 * length
    for place, is_end in [*sorted(edges, key=lambda edge: (edge[0], not edge[1])), (last, True)]:
        if not is_end:
            if start is not None:
                raise ValueError("two intervals overlap")
            start = place
        elif start is not None:
            yield start.to_bytes(length, "big"), _prefix_length(start, place - start, length)
            start = None


def _prefix_length(start: int, size: int, length: int) -> int:
    if size <= 0 or size & (size - 1) or start % size:
        raise ValueError("an interval is not a block")
    return 8 * length - (size.bit_length() - 1)


def _value(field: bytes) -> bytes:
    return attributes(field, 0)[DATA_VALUE]


def _name(text: str) -> bytes:
    return text.encode() + b"\0"


def _device(key: bytes) -> str:
    return key.rstrip(b"\0").decode("utf-8", "replace")


def _joined(fields: dict[int, bytes], kinds: Sequence[int]) -> bytes:
    """The fields, each with its type and length, so that no two different contents look alike."""
    return b"".join(attribute(kind, fields[kind]) for kind in kinds if kind in fields)
