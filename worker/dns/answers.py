"""Turns what a name means into messages, and keeps them: the same question of the same zone is answered from memory.

A kept answer is every byte but the id. What is kept holds as long as none of the zone's networks has changed. Several
holders come in another order each time. Nothing here waits, and no message that comes in can raise anything but
`Malformed`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from kvnet.model import Endpoint
from worker.dns.zone import Found, Zone

TTL_S = 1
LEAST_UDP = 512  # RFC 1035
MOST_UDP = 1232  # fits every link that carries IPv6, so it is never cut into fragments
MOST_TCP = 65_535
MOST_KEPT = 4096  # of one zone
MOST_TURNS = 16  # orders that are kept of one answer
MOST_HOLDERS = 400  # told of in one answer
FOR_GOOD = float("inf")
HEADER = 12
ID = 2
QR, OPCODE_MASK = 0x80, 0x78
RCODE_PLACE, RCODE = 3, 0x0F

Version = Callable[[Endpoint], int]


class Malformed(Exception):
    """Not a question. `answer`: what to say to that; None: nothing at all."""

    def __init__(self, answer: bytes | None) -> None:
        super().__init__("not a question")
        self.answer = answer


@dataclass(slots=True)
class Kept:
    wires: list[bytes]
    turn: int = 0
    until: float = FOR_GOOD


@dataclass(slots=True)
class Answers:
    """The answers of one zone. `version`: the store's revision of an endpoint, which its TXT record tells."""

    zone: Zone
    version: Version
    rng: random.Random
    _kept: dict[bytes, Kept] = field(default_factory=dict)
    _generation: int = -1

    def at_hand(self, data: bytes, now: float, *, over_tcp: bool = False) -> bytes | None:
        """The answer, if the very same question was answered since anything changed."""
        generation = self.zone.generation
        if generation != self._generation:
            self._kept.clear()
            self._generation = generation
            return None
        kept = self._kept.get(_key(data, over_tcp))
        if kept is None or kept.until <= now:
            return None
        wire = kept.wires[kept.turn]
        kept.turn = (kept.turn + 1) % len(kept.wires)
        return data[:ID] + wire

    def prepare(self, data: bytes, question: Question, found: Found, *, over_tcp: bool = False) -> bytes:
        """A new answer, kept for the next who asks."""
        orders = max(1, min(len(found.holders), MOST_TURNS))
        step = max(1, len(found.holders) // orders)
        wires = [_wire(question, self._records(question, found, step * turn), over_tcp)[ID:] for turn in range(orders)]
        first = self.rng.randrange(orders)
        self._keep(_key(data, over_tcp), Kept(wires, (first + 1) % orders))
        return data[:ID] + wires[first]

    def prepare_absent(
        self, data: bytes, question: Question, *, over_tcp: bool = False, until: float = FOR_GOOD
    ) -> bytes:
        """There is no such name; kept likewise, but not longer than that."""
        wire = absent(question)
        self._keep(_key(data, over_tcp), Kept([wire[ID:]], until=until))
        return wire

    def _keep(self, key: bytes, kept: Kept) -> None:
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[key] = kept

    def _records(self, question: Question, found: Found, first: int) -> list[dns.rdata.Rdata]:
        holders = (*found.holders[first:], *found.holders[:first])[:MOST_HOLDERS]
        addresses = [a for holder in holders for a in holder.addresses] if holders else found.addresses
        records: list[dns.rdata.Rdata] = []
        if question.wants(dns.rdatatype.A):
            records += [_record(dns.rdatatype.A, a.packed) for a in addresses if a.version == 4]
        if question.wants(dns.rdatatype.AAAA):
            records += [_record(dns.rdatatype.AAAA, a.packed) for a in addresses if a.version == 6]
        if question.wants(dns.rdatatype.PTR):
            records += [_record(dns.rdatatype.PTR, wire) for domain in found.domains if (wire := _domain(domain))]
        if question.type is dns.rdatatype.TXT:
            records += [_record(dns.rdatatype.TXT, _told_of(e, self.version(e))) for e in holders]
        return records


@dataclass(frozen=True, slots=True)
class Question:
    """One that was understood. `name`: as text, without its last dot."""

    message: dns.message.Message
    name: str
    type: dns.rdatatype.RdataType

    def wants(self, kind: dns.rdatatype.RdataType) -> bool:
        return self.type in (kind, dns.rdatatype.ANY)


def understood(data: bytes) -> Question:
    """
    Raises:
        Malformed: it is none, or none of a kind that anybody here could answer.
    """
    if len(data) < HEADER or data[ID] & QR:
        raise Malformed(None)
    if data[ID] & OPCODE_MASK:
        raise Malformed(refusal(data, dns.rcode.NOTIMP))
    try:
        message = dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, IndexError) as error:
        raise Malformed(refusal(data, dns.rcode.FORMERR)) from error
    if len(message.question) != 1:
        raise Malformed(refusal(data, dns.rcode.FORMERR))
    asked = message.question[0]
    if asked.rdclass != dns.rdataclass.IN:
        raise Malformed(refusal(data, dns.rcode.REFUSED))
    return Question(message, asked.name.to_text(omit_final_dot=True), asked.rdtype)


def absent(question: Question) -> bytes:
    """Without a word on how long that holds, so that no one who asked keeps it: the next moment it may be there."""
    return _plain(question, dns.rcode.NXDOMAIN, is_ours=True)


def failed(question: Question) -> bytes:
    return _plain(question, dns.rcode.SERVFAIL)


def refused(question: Question) -> bytes:
    return _plain(question, dns.rcode.REFUSED)


def refusal(data: bytes, rcode: dns.rcode.Rcode) -> bytes:
    """Of something that was not understood: its header sent back, without anything after it."""
    return data[:ID] + bytes((QR | data[ID] & (OPCODE_MASK | 1), 0x80 | rcode)) + bytes(HEADER - 4)


def about_domain(domain: str, number: int) -> bytes:
    """The question whether there is such a domain."""
    query = dns.message.make_query(dns.name.from_text(domain), dns.rdatatype.SOA, id=number)
    return query.to_wire()


def is_there(answer: bytes) -> bool:
    return answer[RCODE_PLACE] & RCODE != dns.rcode.NXDOMAIN


def is_helpless(answer: bytes) -> bool:
    return answer[RCODE_PLACE] & RCODE not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)


def _key(data: bytes, over_tcp: bool) -> bytes:
    return b"\1" + data[ID:] if over_tcp else data[ID:]


def _plain(question: Question, rcode: dns.rcode.Rcode, *, is_ours: bool = False) -> bytes:
    response = _response(question)
    response.set_rcode(rcode)
    if is_ours:
        response.flags |= dns.flags.AA
    return response.to_wire()


def _response(question: Question) -> dns.message.Message:
    return dns.message.make_response(question.message, recursion_available=True, our_payload=MOST_UDP)


def _wire(question: Question, records: Sequence[dns.rdata.Rdata], over_tcp: bool) -> bytes:
    response = _response(question)
    response.flags |= dns.flags.AA
    name = question.message.question[0].name
    for kind in dict.fromkeys(record.rdtype for record in records):
        response.answer.append(dns.rrset.from_rdata_list(name, TTL_S, [r for r in records if r.rdtype is kind]))
    most = MOST_TCP if over_tcp else _most(question.message)
    # The order is the caller's; by itself the library shuffles.
    return response.to_wire(max_size=most, prefer_truncation=True, want_shuffle=False)


def _most(message: dns.message.Message) -> int:
    return max(LEAST_UDP, min(message.payload, MOST_UDP)) if message.edns >= 0 else LEAST_UDP


def _record(kind: dns.rdatatype.RdataType, wire: bytes) -> dns.rdata.Rdata:
    return dns.rdata.from_wire(dns.rdataclass.IN, kind, wire, 0, len(wire))


def _told_of(endpoint: Endpoint, version: int) -> bytes:
    """In one string: of several, some clients show the first only."""
    text = f"id={endpoint.id} host={endpoint.host} version={version}".encode()
    return bytes((len(text),)) + text


def _domain(text: str) -> bytes:
    """b"" where a name is none for others: two dots in a row."""
    try:
        return dns.name.from_text(text).to_wire() or b""
    except dns.exception.DNSException:
        return b""
