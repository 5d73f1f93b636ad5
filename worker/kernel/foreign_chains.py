"""What other programs' nftables tables do with forwarded packets, as far as it concerns ours. Reads only.

Every base chain on the forward hook sees a packet, and a drop of any of them is final. Two kinds matter: the FORWARD
chain of iptables-nft, which a rule of ours opens (see `gates`), and chains that end what they do not know (firewalld,
Docker's own nftables), which only their owner can open: those are told, not touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from datapath.objects import Gate
from worker.kernel import messages as m
from worker.kernel.netlink import Message, Netlink, attribute, attribute_list, attributes
from worker.kernel.nftables import (
    BIG32,
    CHAIN_HOOK,
    CHAIN_NAME,
    CHAIN_POLICY,
    CHAIN_TABLE,
    GENERIC,
    GETCHAIN,
    GETRULE,
    NFPROTO,
    RULE_CHAIN,
    RULE_EXPRESSIONS,
    RULE_TABLE,
    SUBSYSTEM,
    NftablesReader,
)
from worker.kernel.rules import MARK, TABLE

# linux/netfilter/nf_tables.h, linux/netfilter.h
HOOK_NUMBER, FORWARD = 1, 2
RULE_USERDATA = 7
EXPRESSION_NAME, EXPRESSION_DATA = 1, 2
IMMEDIATE_DATA, DATA_VERDICT, VERDICT_CODE = 2, 2, 1
NF_DROP, NF_ACCEPT = 0, 1
WITHOUT_MEANING = (b"counter", b"log")
COMMENT = b"kvnet\0"
MARK_VALUE = attribute(1, m.U32.pack(MARK))  # NFTA_DATA_VALUE, as a comparison with the mark has it
OUR_DEVICES = b"\x01\0kv"  # the same of a comparison with the name of a device of ours, or with how they begin
FAMILY_OF = {NFPROTO["ip"]: 4, NFPROTO["ip6"]: 6}
NAME_OF = {number: name for name, number in NFPROTO.items() if name != "bridge"}


class Chain(NamedTuple):
    """A base chain on the forward hook."""

    family: int
    table: str
    name: str
    is_dropping: bool


class Found(NamedTuple):
    gates: Mapping[Gate, bool]
    walls: frozenset[str]


class ForwardChains:
    """Belongs to the kernel thread. Remembers what it found as long as no table of anybody changes."""

    def __init__(self, netlink: Netlink, reader: NftablesReader) -> None:
        self._netlink = netlink
        self._reader = reader
        self._known: tuple[int, Found] | None = None

    def gates(self) -> Mapping[Gate, bool]:
        """FORWARD chains of iptables-nft -> whether our rule is there."""
        return self._found().gates

    def walls(self) -> frozenset[str]:
        """ "family table chain" of chains that end what they do not know, and know nothing of ours."""
        return self._found().walls

    def _found(self) -> Found:
        generation = self._reader.generation()
        if self._known is not None and self._known[0] == generation:
            return self._known[1]
        gates: dict[Gate, bool] = {}
        walls: set[str] = set()
        for chain in self._chains():
            if chain.family in FAMILY_OF and (chain.table, chain.name) == ("filter", "FORWARD"):
                gates[Gate("nft", FAMILY_OF[chain.family])] = any(map(_is_ours, self._rules(chain)))
            elif chain.table != TABLE and self._is_wall(chain):
                walls.add(f"{NAME_OF[chain.family]} {chain.table} {chain.name}")
        found = Found(gates, frozenset(walls))
        if self._reader.generation() == generation:
            self._known = generation, found
        return found

    def _chains(self) -> Iterator[Chain]:
        for body in self._netlink.dump(Message(SUBSYSTEM | GETCHAIN, 0, GENERIC.pack(0, 0, 0))):
            family = body[0]
            fields = attributes(body, GENERIC.size)
            hook = attributes(fields.get(CHAIN_HOOK, b""), 0).get(HOOK_NUMBER)
            if family in NAME_OF and hook is not None and BIG32.unpack(hook)[0] == FORWARD:
                is_dropping = BIG32.unpack(fields.get(CHAIN_POLICY, BIG32.pack(NF_ACCEPT)))[0] == NF_DROP
                yield Chain(family, _text(fields[CHAIN_TABLE]), _text(fields[CHAIN_NAME]), is_dropping)

    def _rules(self, chain: Chain, *, whole_table: bool = False) -> list[dict[int, bytes]]:
        filters = attribute(RULE_TABLE, chain.table.encode() + b"\0")
        if not whole_table:
            filters += attribute(RULE_CHAIN, chain.name.encode() + b"\0")
        request = Message(SUBSYSTEM | GETRULE, 0, GENERIC.pack(chain.family, 0, 0) + filters)
        return [attributes(body, GENERIC.size) for body in self._netlink.dump(request)]

    def _is_wall(self, chain: Chain) -> bool:
        if not chain.is_dropping:
            rules = self._rules(chain)
            if not rules or not _ends_everything(rules[-1]):
                return False
        everything = (rule.get(RULE_EXPRESSIONS, b"") for rule in self._rules(chain, whole_table=True))
        return not any(OUR_DEVICES in expressions or MARK_VALUE in expressions for expressions in everything)


def _expressions(rule: Mapping[int, bytes]) -> list[tuple[bytes, bytes]]:
    """(name, data) of what a rule asks and does, in order."""
    found = []
    for _, expression in attribute_list(rule.get(RULE_EXPRESSIONS, b""), 0):
        fields = attributes(expression, 0)
        name = fields.get(EXPRESSION_NAME, b"").rstrip(b"\0")
        if name not in WITHOUT_MEANING:
            found.append((name, fields.get(EXPRESSION_DATA, b"")))
    return found


def _is_ours(rule: Mapping[int, bytes]) -> bool:
    """Accepts our mark and bears our comment, whichever way this version of iptables spells the two."""
    expressions = _expressions(rule)
    if not expressions or _verdict(expressions[-1]) != NF_ACCEPT:
        return False
    asked = b"".join(data for _, data in expressions[:-1])
    has_comment = COMMENT in asked or COMMENT in rule.get(RULE_USERDATA, b"")
    return has_comment and m.U32.pack(MARK) in asked


def _ends_everything(rule: Mapping[int, bytes]) -> bool:
    expressions = _expressions(rule)
    return len(expressions) == 1 and (expressions[0][0] == b"reject" or _verdict(expressions[0]) == NF_DROP)


def _verdict(expression: tuple[bytes, bytes]) -> int | None:
    name, data = expression
    if name != b"immediate":
        return None
    verdict = attributes(attributes(data, 0).get(IMMEDIATE_DATA, b""), 0).get(DATA_VERDICT, b"")
    code = attributes(verdict, 0).get(VERDICT_CODE)
    return None if code is None else int(BIG32.unpack(code)[0])


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")
