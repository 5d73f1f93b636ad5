"""What a step of a test may ask for, checked at the edge: whatever is larger than a test may be is refused whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvnet.errors import Invalid
from kvnet.rules import MTU_MAX, VNI_MAX
from worker.probing.frames import SESSION_BYTES

MAX_HOSTS = 256
MAX_PAIRS = 65_536
MAX_PAIRS_AT_ONCE = 256
MAX_SMALL, MAX_SIZES, MAX_REPEAT, MAX_ECHOES = 64, 64, 4, 20
SHORTEST_SIZE = 150  # a mark in a tunnel packet, with room
MAX_NAME = 128
LONGEST_S = 100.0


@dataclass(frozen=True, slots=True)
class Session:
    session: bytes
    hosts: tuple[str, ...]
    pairs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Sending:
    session: bytes
    targets: tuple[Mapping[str, Any], ...]
    pairs: tuple[Mapping[str, Any], ...]


def parse_session(parameters: Mapping[str, Any], *, is_whole: bool = True) -> Session:
    """Raises: Invalid."""
    try:
        session = bytes.fromhex(_text(parameters, "session"))
    except ValueError:
        session = b""
    if len(session) != SESSION_BYTES:
        raise Invalid.field("/session", "not the id of a test", f"{2 * SESSION_BYTES} hexadecimal digits")
    if not is_whole:
        return Session(session, (), 0, 0.0)
    hosts = parameters.get("hosts")
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts) or len(set(hosts)) < len(hosts):
        raise Invalid.field("/hosts", "not a list of hosts")
    if not 0 < len(hosts) <= MAX_HOSTS:
        raise Invalid.field("/hosts", f"{len(hosts)} hosts", f"1 to {MAX_HOSTS}")
    seconds = parameters.get("seconds", 30)
    if not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_S:
        raise Invalid.field("/seconds", "not a time to listen", f"up to {LONGEST_S:.0f}")
    return Session(session, tuple(hosts), _number(parameters, "pairs", 0, MAX_PAIRS), float(seconds))


def sending(parameters: Mapping[str, Any]) -> Sending:
    """Raises: Invalid."""
    session = parse_session(parameters, is_whole=False).session
    targets = tuple(_target(one) for one in _objects(parameters, "targets", MAX_HOSTS))
    pairs = tuple(_pair(one) for one in _objects(parameters, "pairs", MAX_PAIRS_AT_ONCE))
    return Sending(session, targets, pairs)


def _target(one: Mapping[str, Any]) -> Mapping[str, Any]:
    sizes = one.get("sizes", [])
    if not isinstance(sizes, list) or len(sizes) > MAX_SIZES or not all(_is_size(size) for size in sizes):
        raise Invalid.field("/sizes", "not sizes of packets", f"up to {MAX_SIZES}, each {SHORTEST_SIZE} to {MTU_MAX}")
    return {
        "to": _number(one, "to", 0, MAX_HOSTS),
        "vni": None if one.get("vni") is None else _number(one, "vni", 1, VNI_MAX),
        "small": _number(one, "small", 0, MAX_SMALL),
        "sizes": sizes,
        "repeat": _number(one, "repeat", 0, MAX_REPEAT),
        "echoes": _number(one, "echoes", 0, MAX_ECHOES),
    }


def _is_size(size: object) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and SHORTEST_SIZE <= size <= MTU_MAX


def _pair(one: Mapping[str, Any]) -> Mapping[str, Any]:
    family = one.get("family", 4)
    if family not in (4, 6):
        raise Invalid.field("/family", "not a family of addresses", "4 or 6")
    return {
        "pair": _number(one, "pair", 0, MAX_PAIRS),
        "network": _text(one, "network"),
        "from": _text(one, "from"),
        "to": _text(one, "to"),
        "family": family,
    }


def _objects(parameters: Mapping[str, Any], name: str, most: int) -> list[Mapping[str, Any]]:
    found = parameters.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Invalid.field(f"/{name}", f"{name} is not a list of objects")
    if len(found) > most:
        raise Invalid.field(f"/{name}", f"{len(found)} at once", f"at most {most}")
    return found


def _text(parameters: Mapping[str, Any], name: str) -> str:
    found = parameters.get(name)
    if not isinstance(found, str) or not 0 < len(found) <= MAX_NAME:
        raise Invalid.field(f"/{name}", f"{name} is missing or no text")
    return found


def _number(parameters: Mapping[str, Any], name: str, least: int, most: int) -> int:
    found = parameters.get(name, 0)
    if not isinstance(found, int) or isinstance(found, bool) or not least <= found <= most:
        raise Invalid.field(f"/{name}", f"{name} is not a number in its range", f"{least} to {most}")
    return found
