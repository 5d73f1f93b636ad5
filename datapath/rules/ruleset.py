"""Firewall rules as data, whoever wrote them: chains of rules, and what a rule asks of a packet.

nftables and both flavours of iptables are read into this, so that one walk judges them all and none can contradict
another. What is not understood is told as that, and never taken for met or not met.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import ip_address


@dataclass(frozen=True, slots=True)
class Packet:
    """What is known of a packet; "" and 0 where that is not known, for a device: where there is none.

    `protocol`: "arp" is the question whose an address is. `state`: of the tracked connection; a first packet of ICMP is
    an echo's request, and others are replies.
    """

    version: int
    protocol: str
    source: str = ""
    destination: str = ""
    port: int = 0
    device_in: str = ""
    device_out: str = ""
    source_mac: str = ""
    destination_mac: str = ""
    mark: int = 0
    state: str = "new"


class Field(Enum):
    VERSION = auto()
    PROTOCOL = auto()
    SOURCE = auto()
    DESTINATION = auto()
    PORT = auto()
    ICMP_TYPE = auto()
    OPERATION = auto()
    DEVICE_IN = auto()
    DEVICE_OUT = auto()
    SOURCE_MAC = auto()
    DESTINATION_MAC = auto()
    PACKET_TYPE = auto()
    MARK = auto()
    STATE = auto()
    STATUS = auto()
    CONNECTION_MARK = auto()


ARP = 0  # in place of a version of IP
ADDRESSES = frozenset({Field.SOURCE, Field.DESTINATION})
DEVICES = frozenset({Field.DEVICE_IN, Field.DEVICE_OUT})
MACS = frozenset({Field.SOURCE_MAC, Field.DESTINATION_MAC})
Values = Mapping[Field, int | str | None]  # None: not known


def values_of(packet: Packet) -> Values:
    """As they are compared: addresses are numbers, protocols have one name each."""
    is_icmp6 = packet.protocol == "icmp" and packet.version == 6
    return {
        Field.VERSION: ARP if packet.protocol == "arp" else packet.version,
        Field.PROTOCOL: "ipv6-icmp" if is_icmp6 else packet.protocol,
        Field.SOURCE: _number(packet.source),
        Field.DESTINATION: _number(packet.destination),
        Field.PORT: packet.port or None,
        Field.ICMP_TYPE: "echo-request" if packet.state == "new" else "echo-reply",
        Field.OPERATION: "request",
        Field.DEVICE_IN: packet.device_in,
        Field.DEVICE_OUT: packet.device_out,
        Field.SOURCE_MAC: packet.source_mac.lower() or None,
        Field.DESTINATION_MAC: packet.destination_mac.lower() or None,
        Field.PACKET_TYPE: "host",
        Field.MARK: packet.mark,
        Field.STATE: packet.state,
        Field.STATUS: "none",
        Field.CONNECTION_MARK: 0,
    }


def _number(address: str) -> int | None:
    try:
        return int(ip_address(address))
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Span:
    """Numbers from `low` to `high`: ports, marks, blocks of addresses."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Name:
    """`is_start`: all that begin so."""

    text: str
    is_start: bool = False


Wanted = Span | Name | None  # None: not understood
Candidate = tuple[Wanted, ...]  # one for each key


@dataclass(frozen=True, slots=True)
class Key:
    field: Field
    mask: int | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """Whether the packet's values are one of the candidates. Without keys: it asks for something not understood."""

    keys: tuple[Key, ...] = ()
    candidates: Sequence[Candidate] = ()
    is_not: bool = False


UNKNOWN = Condition()


class Action(Enum):
    ACCEPT = "accept"
    DROP = "drop"
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"
    NOTHING = "nothing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Step:
    """What a rule does where it applies. `target`: of a jump."""

    action: Action
    target: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A verdict map: what is done depends on the packet's values."""

    keys: tuple[Key, ...]
    pairs: Sequence[tuple[Candidate, Step]]


@dataclass(frozen=True, slots=True)
class Rule:
    """`text`: as its owner would write it. `choice`: of a verdict map, in place of `step`."""

    text: str
    conditions: tuple[Condition, ...]
    step: Step
    choice: Choice | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """`hook`: "" of one that is only jumped to. `devices`: those of a base chain on devices; empty: not known, or all.

    `program`: of the iptables family, which shows and changes it; "" = nft does. `is_nat`: it sees first packets only.
    """

    family: str
    table: str
    name: str
    hook: str = ""
    priority: int = 0
    is_dropping: bool = False
    rules: Sequence[Rule] = ()
    devices: tuple[str, ...] = ()
    program: str = ""
    is_nat: bool = False

    @property
    def home(self) -> tuple[str, str, bool]:
        """Where its jumps lead to."""
        return self.family, self.table, self.is_legacy

    @property
    def is_legacy(self) -> bool:
        """Of iptables-legacy, which knows tables of the same names as nftables has."""
        return self.program.endswith("-legacy")


def holds(condition: Condition, values: Values) -> bool | None:
    """None: nobody knows."""
    if not condition.keys:
        return None
    found = found_by(condition.keys, values)
    result: bool | None = False
    for candidate in condition.candidates:
        matches = is_among(found, candidate)
        if matches:
            result = True
            break
        result = None if matches is None else result
    return result if result is None else result is not condition.is_not


def found_by(keys: Sequence[Key], values: Values) -> list[int | str | None]:
    return [_masked(values[key.field], key.mask) for key in keys]


def _masked(value: int | str | None, mask: int | None) -> int | str | None:
    if mask is None:
        return value
    return value & mask if isinstance(value, int) else None


def is_among(found: Sequence[int | str | None], candidate: Candidate) -> bool | None:
    if len(found) != len(candidate):
        return None
    result: bool | None = True
    for value, wanted in zip(found, candidate, strict=True):
        is_it = _is(value, wanted)
        if is_it is False:
            return False
        result = None if is_it is None else result
    return result


def _is(value: int | str | None, wanted: Wanted) -> bool | None:
    if isinstance(value, int) and isinstance(wanted, Span):
        return wanted.low <= value <= wanted.high
    if isinstance(value, str) and isinstance(wanted, Name):
        return value.startswith(wanted.text) if wanted.is_start else value == wanted.text
    return None
