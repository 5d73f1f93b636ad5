"""What a host is asked about a pair of endpoints, and what it answers: plain data that crosses the store as JSON.

Everything is text and numbers as people read them, because it is told as well as compared. A host answers only what
was asked, and what it could not read is named in `unread`, never left out silently. Decides nothing.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from ipaddress import ip_address
from typing import Any, TypeVar

from kvnet import codec
from kvnet.errors import Invalid

T = TypeVar("T")
STATES = frozenset({"ok", "not-attached", "waiting", "gone", "another", "no-interface", "unreadable"})


@dataclass(frozen=True, slots=True)
class Way:
    """ "How would you send there?" `source`: with this address of the host's own, if it is given."""

    to: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A packet at one hook of a firewall: other programs' rules are asked what they make of it.

    `layer`: "ip", "bridge" or "netdev". `device_in`, `device_out`: "" where there is none; "@ADDRESS" stands for the
    device that has that address (in), or that leads there (out). `given`: only if this setting is 1.
    `state`: of the tracked connection. `inside`: the endpoint in whose namespace it is; "" for the host's.
    """

    name: str
    layer: str
    hook: str
    source: str
    destination: str
    protocol: str
    port: int = 0
    device_in: str = ""
    device_out: str = ""
    source_mac: str = ""
    destination_mac: str = ""
    mark: int = 0
    state: str = "new"
    given: str = ""
    inside: str = ""


@dataclass(frozen=True, slots=True)
class Inner:
    """A workload's interface that is to be looked at from inside. `near`: neighbours that matter there.

    `listens`: "tcp/80": whether anybody does, is asked, too.
    """

    endpoint: str
    network: str
    mac: str
    ways: tuple[Way, ...] = ()
    near: tuple[str, ...] = ()
    listens: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """All that one host is asked. `devices`: links of the host's. `ends`: the pair's own addresses.

    About these two our tables are asked, too.
    """

    networks: tuple[str, ...] = ()
    inner: tuple[Inner, ...] = ()
    devices: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    ways: tuple[Way, ...] = ()
    settings: tuple[str, ...] = ()
    crossings: tuple[Crossing, ...] = ()


@dataclass(frozen=True, slots=True)
class SeenLink:
    """`works`: it has a carrier. `master`, `parent`: by name ("#7" where the name is not known here).

    `is_ours`: it bears kvnet's marks, where it has a name of kvnet's.
    """

    name: str
    kind: str
    up: bool
    works: bool
    mtu: int
    mac: str
    master: str = ""
    parent: str = ""
    vni: int = 0
    local: str = ""
    port: int = 0
    learning: bool = False
    suppress: bool = False
    isolated: bool = False
    hairpin: bool = False
    is_ours: bool = True


@dataclass(frozen=True, slots=True)
class SeenEntry:
    """Where a MAC is: behind a port of a bridge (`remote` ""), or behind another host's tunnel.

    `is_local`: the bridge takes what is for it to be the host's own.
    """

    device: str
    mac: str
    remote: str = ""
    is_static: bool = True
    is_local: bool = False


@dataclass(frozen=True, slots=True)
class SeenNeighbour:
    """`state`: permanent, reachable, stale, delay, probe, incomplete, failed or noarp."""

    device: str
    address: str
    mac: str
    state: str


@dataclass(frozen=True, slots=True)
class SeenWay:
    """`kind`: unicast, local, blackhole, unreachable, prohibit, ..., or none (the kernel knows no way).

    `forgotten_s`: in how long, where the MTU is not a setting but was learned from a packet that was too large.
    """

    to: str
    kind: str
    device: str = ""
    gateway: str = ""
    source: str = ""
    mtu: int = 0
    asked_from: str = ""
    forgotten_s: float = 0.0

    def __post_init__(self) -> None:
        """Raises: ValueError."""
        ip_address(self.to)


@dataclass(frozen=True, slots=True)
class SeenAddress:
    device: str
    address: str
    prefix_length: int

    def __post_init__(self) -> None:
        """Raises: ValueError."""
        ip_address(self.address)


@dataclass(frozen=True, slots=True)
class SeenDrop:
    """What another program's rule does to a packet. `is_certain`: all that it asks was understood."""

    crossing: str
    family: str
    table: str
    chain: str
    rule: str
    is_certain: bool = True


@dataclass(frozen=True, slots=True)
class SeenInside:
    """`state`: ok, not-attached, waiting (for its runtime to move it), gone (its namespace), another (one is under that
    path), no-interface, unreadable.

    `links`: its interface first, and every other one there; one of its MAC is it under another name.
    """

    endpoint: str
    state: str
    netns: str = ""
    interface: str = ""
    detail: str = ""
    links: tuple[SeenLink, ...] = ()
    addresses: tuple[SeenAddress, ...] = ()
    ways: tuple[SeenWay, ...] = ()
    neighbours: tuple[SeenNeighbour, ...] = ()
    order: int = 0
    is_handed_over: bool = False
    routes: tuple[str, ...] = ()
    is_listening: bool | None = None

    def __post_init__(self) -> None:
        """Raises: ValueError."""
        if self.state not in STATES or (self.state == "ok" and not self.links):
            raise ValueError(f"a workload is not {self.state[:40]!r} with {len(self.links)} links")


@dataclass(frozen=True, slots=True)
class SeenNetwork:
    """How far a host is with a network, by its own word."""

    id: str
    applied: int
    wanted: int
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SeenRepair:
    """Something that the worker put right lately: `times` within `within_s`, the last time `seconds_ago`."""

    text: str
    network: str
    seconds_ago: float
    times: int
    within_s: float


@dataclass(frozen=True, slots=True)
class Sight:
    """One host's answer. `mode`: the worker's ("live" where all is well); "here": it was looked at without one.

    `rules`: elements of our tables, as "set: element"; None where the tables are missing or not as kvnet makes them.
    """

    host: str
    mode: str = "live"
    is_fenced: bool = False
    doubt: str = ""
    paused_s: float = 0.0
    dns: str = ""
    networks: tuple[SeenNetwork, ...] = ()
    insides: tuple[SeenInside, ...] = ()
    links: tuple[SeenLink, ...] = ()
    addresses: tuple[SeenAddress, ...] = ()
    entries: tuple[SeenEntry, ...] = ()
    neighbours: tuple[SeenNeighbour, ...] = ()
    ways: tuple[SeenWay, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[str, ...] | None = None
    drops: tuple[SeenDrop, ...] = ()
    repairs: tuple[SeenRepair, ...] = ()
    unread: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises: ValueError."""
        if self.dns:
            ip_address(self.dns)

    def link(self, name: str) -> SeenLink | None:
        return next((link for link in self.links if link.name == name), None)

    def inside(self, endpoint: str) -> SeenInside | None:
        return next((inside for inside in self.insides if inside.endpoint == endpoint), None)


def to_plain(value: Question | Sight) -> dict[str, Any]:
    return codec.to_json(value)


def from_plain(cls: type[T], plain: object, where: str = "") -> T:
    """What `to_plain` made, of whatever came over the wire.

    Raises:
        Invalid: it is not that.
    """
    return typing.cast(T, _object(cls, plain, where))


def _object(cls: type[Any], plain: object, where: str) -> Any:
    if not isinstance(plain, dict):
        raise Invalid.field(where or "/", f"not an object, as a {cls.__name__} is")
    hints = typing.get_type_hints(cls)
    known = {f.name: plain[f.name] for f in fields(cls) if f.name in plain}
    try:
        return cls(**{name: _value(hints[name], value, f"{where}/{name}") for name, value in known.items()})
    except TypeError as error:  # something without a default is missing
        raise Invalid.field(where or "/", f"not a whole {cls.__name__}: {error}") from error
    except ValueError as error:
        raise Invalid.field(where or "/", f"not a {cls.__name__}: {error}") from error


def _value(hint: Any, value: object, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _value(arguments[0], value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_value(arguments[0], item, f"{where}/{i}") for i, item in enumerate(value))
    if origin is not None and origin is not tuple and isinstance(value, dict):
        return {str(key): _value(arguments[1], item, f"{where}/{key}") for key, item in value.items()}
    if is_dataclass(hint):
        return _object(typing.cast(type[Any], hint), value, where)
    is_number = hint in (int, float) and isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and (hint is float or isinstance(value, int)):
        return hint(value)
    if origin is None and isinstance(hint, type) and isinstance(value, hint):
        return value
    raise Invalid.field(where, f"a {type(value).__name__} is not what belongs here")
