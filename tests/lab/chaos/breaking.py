"""Ways to break one object of ours on a host, as somebody with `ip`, `bridge`, `nft` or `sysctl` in hand might.

Each breaks the object behind one fact of a sound host in the kernel; what has to come back is what is missing then.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import NetlinkError

from tests.lab.chaos.facts import IN_THE_KERNEL, LINKS, RULES, Eye, Fact, device_of

WRONG_MAC = "02:00:00:be:ef:01"
WRONG_VTEP = "198.18.15.77"
WRONG_MTU = 1290
Breaking = Callable[[Eye, Fact], None]


@dataclass(frozen=True, slots=True)
class Way:
    """`applies`: to which facts. `touches`: what else it may change. `opens`: until it is repaired we have no rules."""

    name: str
    applies: Callable[[Fact], bool]
    act: Breaking
    touches: frozenset[str]
    opens: bool = False


@dataclass(frozen=True, slots=True)
class Damage:
    """`missing`: what has to come back."""

    what: str
    way: Way
    missing: frozenset[Fact]


def break_something(
    eye: Eye, sound: frozenset[Fact], outstanding: frozenset[Fact], rng: random.Random
) -> Damage | None:
    """Break one object on a device that is whole. None if it could not be done: something was in the way.

    Nothing may be missing by now: it may be whole again already.

    In the host's thread.
    """
    way = rng.choice(WAYS)
    spared = {device_of(fact) for fact in outstanding} - {None}
    # The order of a set of tuples differs from run to run; a seed should not.
    targets = sorted(
        (f for f in sound if way.applies(f) and f not in outstanding and device_of(f) not in spared), key=repr
    )
    if not targets:
        return None
    fact = rng.choice(targets)
    try:
        way.act(eye, fact)
    except (NetlinkError, OSError, IndexError):
        return None
    missing = frozenset(f for f in sound if f[0] in way.touches) - eye.look(way.touches) - outstanding
    return Damage(f"{way.name}: {fact}", way, missing)


def _index(eye: Eye, fact: Fact) -> int:
    return int(eye.ip.link_lookup(ifname=fact[1])[0])


def _link(command: str = "set", **options: Any) -> Breaking:
    def act(eye: Eye, fact: Fact) -> None:
        eye.ip.link(command, index=_index(eye, fact), **options)

    return act


def _port(**flags: int) -> Breaking:
    def act(eye: Eye, fact: Fact) -> None:
        eye.ip.brport("set", index=_index(eye, fact), **flags)

    return act


def _flip(flag: str) -> Breaking:
    def act(eye: Eye, fact: Fact) -> None:
        eye.ip.brport("set", index=_index(eye, fact), **{flag.lower(): 1 - (dict(fact[2])[flag] or 0)})

    return act


def _address_gone(eye: Eye, fact: Fact) -> None:
    eye.ip.addr("del", index=_index(eye, fact), address=fact[2], prefixlen=fact[3])


def _route_gone(eye: Eye, fact: Fact) -> None:
    device = {"oif": _index(eye, fact)} if fact[1] else {}
    gateway = {"gateway": fact[4]} if fact[4] else {}
    eye.ip.route("del", dst=f"{fact[2]}/{fact[3]}", **device, **gateway)


def _neighbour_gone(eye: Eye, fact: Fact) -> None:
    eye.ip.neigh("del", ifindex=_index(eye, fact), dst=fact[2])


def _neighbour_wrong(eye: Eye, fact: Fact) -> None:
    eye.ip.neigh("replace", ifindex=_index(eye, fact), dst=fact[2], lladdr=WRONG_MAC, state=0x80)


def _forwarding_gone(eye: Eye, fact: Fact) -> None:
    words = ["bridge", "fdb", "del", fact[2], "dev", fact[1]]
    eye.run(*words, *(["dst", fact[3], "self"] if fact[4] else ["master"]))


def _forwarding_wrong(eye: Eye, fact: Fact) -> None:
    eye.run("bridge", "fdb", "replace", fact[2], "dev", fact[1], "dst", WRONG_VTEP, "self", "static")


def _setting_wrong(eye: Eye, fact: Fact) -> None:
    Path("/proc/sys", fact[1]).write_text("0" if fact[2] != "0" else "1")


def _element_gone(eye: Eye, fact: Fact) -> None:
    eye.nft("delete", "element", fact[1], "kvnet", fact[2], "{", _spelled(json.loads(fact[3])), "}")


def _chain_empty(eye: Eye, fact: Fact) -> None:
    eye.nft("flush", "chain", fact[1], "kvnet", fact[2])


def _table_gone(eye: Eye, fact: Fact) -> None:
    eye.nft("delete", "table", fact[1], "kvnet")


def _ruleset_gone(eye: Eye, fact: Fact) -> None:
    eye.nft("flush", "ruleset")


def _spelled(element: Any) -> str:
    """An element of `nft -j` as `nft` takes it."""
    match element:
        case [key, _]:
            return _spelled(key)
        case {"concat": parts}:
            return " . ".join(_spelled(part) for part in parts)
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
        case {"elem": {"val": value}}:
            return _spelled(value)
        case str() if ":" not in element and "." not in element:
            return f'"{element}"'
        case _:
            return str(element)


def _of(kind: str, *conditions: Callable[[Fact], bool]) -> Callable[[Fact], bool]:
    return lambda fact: fact[0] == kind and all(holds(fact) for holds in conditions)


def _is_named(*prefixes: str) -> Callable[[Fact], bool]:
    return lambda fact: str(fact[1]).startswith(prefixes)


def _has_master(fact: Fact) -> bool:
    return bool(fact[4])


def _is_tunnel_entry(fact: Fact) -> bool:
    return bool(fact[3]) and bool(fact[4])


WAYS: Sequence[Way] = (
    Way("link deleted", _of("link"), _link("del"), IN_THE_KERNEL),
    Way("link down", _of("link"), _link(state="down"), IN_THE_KERNEL),
    Way("MTU changed", _of("link"), _link(mtu=WRONG_MTU), LINKS),
    Way("port taken off its bridge", _of("link", _has_master), _link(master=0), IN_THE_KERNEL),
    Way("MAC of a bridge changed", _of("link", _is_named("kvb")), _link(address=WRONG_MAC), LINKS),
    Way("port isolation flipped", _of("port"), _flip("ISOLATED"), LINKS),
    Way("tunnel learns", _of("port", _is_named("kvx")), _port(learning=1), LINKS),
    Way("suppression off", _of("port", _is_named("kvx")), _port(neigh_suppress=0), LINKS),
    Way("hairpin flipped", _of("port", _is_named("kve")), _flip("MODE"), LINKS),
    Way("address deleted", _of("address"), _address_gone, frozenset({"address"})),
    Way("route deleted", _of("route"), _route_gone, frozenset({"route"})),
    Way("neighbour deleted", _of("neighbour"), _neighbour_gone, frozenset({"neighbour"})),
    Way("neighbour changed", _of("neighbour"), _neighbour_wrong, frozenset({"neighbour"})),
    Way("forwarding deleted", _of("forwarding"), _forwarding_gone, frozenset({"forwarding"})),
    Way("forwarding changed", _of("forwarding", _is_tunnel_entry), _forwarding_wrong, frozenset({"forwarding"})),
    Way("setting changed", _of("setting"), _setting_wrong, IN_THE_KERNEL),
    Way("element deleted", _of("element"), _element_gone, RULES),
    Way("chain emptied", _of("rule"), _chain_empty, RULES, opens=True),
    Way("table deleted", _of("table"), _table_gone, RULES, opens=True),
    Way("ruleset flushed", _of("table"), _ruleset_gone, RULES, opens=True),
)
