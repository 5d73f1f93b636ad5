"""What a host may write through the gateway: its own keys, with values that are about itself.

A host is believed about itself and about nothing else: whatever it writes must be readable, must name it, and must not
stand where another's traffic is sent to. Pure; what has to be compared with others' records is given back, or comes in.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TypeVar

from backends.store import Check, Delete, Present, Put, Write
from controller.security.hosts import FIX, refused
from kvnet import codec, keys
from kvnet.errors import Forbidden, KvnetError
from kvnet.model import Alive, Host, HostState, Inventory, Observed
from kvnet.questions import Answer
from kvnet.rules import IDENTIFIER, NETWORK_ID, UNUSABLE, shown

MAX_RECORD_BYTES = 4096  # of hosts/ and alive/: every worker has all of the former in memory
MAX_ABILITIES = 16
MAX_WORD = 64
MAX_TEXT = 256

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Written:
    """Of a commit what more has to be looked up for: the host's record, its report, the session it names."""

    record: Host | None = None
    observed: Observed | None = None
    session: str | None = None


def written_of(host: str, checks: Sequence[Check], writes: Sequence[Write]) -> Written:
    """
    Raises:
        Forbidden: a key that is not its own, also among the checks, for whether they hold says what is there; or a
            value that does not fit.
    """
    for check in checks:
        if not _may_check(host, check.key):
            raise refused(host, "check", check.key)
    asked = {check.key for check in checks if isinstance(check, Present)}
    written = Written()
    for write in writes:
        if isinstance(write, Delete):
            if write.key != keys.reclaim(host):
                raise refused(host, "delete", write.key)
        else:
            written = _with(written, host, write, asked)
    return written


def _may_check(host: str, key: str) -> bool:
    own = (keys.host(host), keys.inventory(host), keys.alive(host), keys.observed(host), keys.reclaim(host))
    start = keys.questions_to(host)
    return key in own or (key.startswith(start) and bool(IDENTIFIER.match(key.removeprefix(start))))


def _with(written: Written, host: str, put: Put, asked: Collection[str]) -> Written:
    key, value = put.key, put.value
    if (put.session is not None) != (key == keys.alive(host)):
        raise Forbidden(f"{shown(key)}: of a host's keys alive/ is under its session, and no other is", fix=FIX)
    if key == keys.host(host):
        return replace(written, record=_record(host, value))
    if key == keys.alive(host):
        _require_alive(host, value)
        return replace(written, session=put.session)
    if key == keys.inventory(host):
        _require_inventory(host, value)
        return written
    if key == keys.observed(host):
        return replace(written, observed=_report(host, value))
    if key.startswith(keys.ANSWERS):
        _require_answer(host, key.removeprefix(keys.ANSWERS), value, asked)
        return written
    raise refused(host, "write", key)


def _record(host: str, value: bytes) -> Host:
    record = _decoded(Host, value, host, MAX_RECORD_BYTES)
    if record.name != host:
        raise _not_about(host, record.name)
    if record.state is not HostState.ACTIVE:
        raise Forbidden(f"host {host} may not mark itself as {record.state.value}", fix="'kvnet host rm' does that")
    if len(record.abilities) > MAX_ABILITIES or not all(_is_word(one) for one in record.abilities):
        raise Forbidden(f"the abilities of host {host} are at most {MAX_ABILITIES} words of {MAX_WORD} letters")
    return record


def _require_alive(host: str, value: bytes) -> None:
    alive = _decoded(Alive, value, host, MAX_RECORD_BYTES)
    if alive.host != host:
        raise _not_about(host, alive.host)
    if not _is_word(alive.incarnation):
        raise Forbidden(f"the incarnation of host {host} is one word of at most {MAX_WORD} letters")


def _require_inventory(host: str, value: bytes) -> None:
    inventory = _decoded(Inventory, value, host)
    if inventory.host != host:
        raise _not_about(host, inventory.host)
    texts = [inventory.kernel, inventory.version, inventory.boot_id, *(used.source for used in inventory.used)]
    if not all(len(text) <= MAX_TEXT and text.isprintable() for text in texts):
        raise Forbidden(f"the inventory of host {host} has a text that is no text of at most {MAX_TEXT} letters")


def _report(host: str, value: bytes) -> Observed:
    observed = _decoded(Observed, value, host)
    if observed.host != host:
        raise _not_about(host, observed.host)
    for network, seen in observed.networks.items():
        if not NETWORK_ID.match(network):
            raise Forbidden(f"the report of host {host} names {shown(network)}, which is not a network's id")
        if seen.version < 0 or not all(_is_word(one.code) for one in seen.conditions):
            raise Forbidden(f"the report of host {host} on network {network} is none")
    return observed


def _require_answer(host: str, question: str, value: bytes, asked: Collection[str]) -> None:
    """The commit itself checks that this host was asked: only controllers write questions."""
    if not IDENTIFIER.match(question) or keys.question(host, question) not in asked:
        raise Forbidden(f"host {host} may answer only what it is asked, and while it is asked", fix=FIX)
    answer = _decoded(Answer, value, host)
    if answer.id != question or answer.host != host:
        raise Forbidden(f"the answer to question {question} is not one of host {host}", fix=FIX)


def _decoded(cls: type[T], value: bytes, host: str, most: int | None = None) -> T:
    """
    Raises:
        Forbidden: what nobody could read, or everybody would have to keep.
    """
    if most is not None and len(value) > most:
        raise Forbidden(f"the {cls.__name__} of host {host} has {len(value)} bytes; at most {most}")
    try:
        return codec.decode(cls, value)
    except KvnetError as error:
        raise Forbidden(f"what host {host} would write is no {cls.__name__}: {error.detail}") from error


def require_place(record: Host, before: Host | None, holder: str, claimed: str) -> None:
    """That the underlay address can be the host's own: whoever sends to the host's endpoints sends there.

    One that stays as it was is not judged again. `holder`: another host that has the address; `claimed`: what else it
    is, a workload's or a gateway's; "" for neither.

    Raises:
        Forbidden
    """
    address, segment = record.underlay, record.segment
    if getattr(address, "scope_id", None):
        raise Forbidden(f"the underlay address {address} is good on one link only", fix="give one without a zone")
    single = ip_network(address)
    for special, what in UNUSABLE[address.version]:
        if single.overlaps(special):
            raise Forbidden(f"the underlay address {address} is {what} ({special})", fix="give a unicast address")
    if segment is not None and not (segment.version == address.version and address in segment and segment.prefixlen):
        raise Forbidden(f"the segment {segment} of host {record.name} is not one that {address} is in")
    if before is not None and before.underlay == address:
        return
    if holder:
        fix = f"give this host another --underlay, or remove host {holder} if it is gone"
        raise Forbidden(f"{address} is the underlay address of host {holder}", fix=fix)
    if claimed:
        raise Forbidden(f"{address} is {claimed}, so it cannot be a host's underlay", fix="give another one")


def _not_about(host: str, other: str) -> Forbidden:
    return Forbidden(f"host {host} may not write about {shown(other)}", fix=FIX)


def _is_word(text: str) -> bool:
    return 0 < len(text) <= MAX_WORD and text.isprintable() and " " not in text
