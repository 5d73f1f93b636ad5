"""Two spellings of one rule are one rule: nftables and iptables never contradict each other about a packet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath.rules import iptables, nft
from datapath.rules.nft_text import devices
from datapath.rules.ruleset import Chain, Packet
from datapath.rules.walk import drops, first

HOOK, CHAIN = "forward", "FORWARD"
ADDRESSES = ("10.1.0.2", "10.1.0.3", "10.2.0.2", "192.0.2.7")
BLOCKS = ("10.1.0.0/24", "10.0.0.0/8", "10.1.0.2/32", "192.0.2.0/29")
DEVICES = ("kvb1", "kvb2", "eth0")
PORTS = (53, 80, 4789)
MARK = 0x80000
PLACE = {"family": "ip", "table": "filter"}
Meets = Callable[[Packet], bool | None]


@dataclass(frozen=True)
class Asked:
    """One thing that a rule asks for, in both spellings, and what it means."""

    nft: tuple[dict[str, Any], ...]
    iptables: str
    meets: Meets


def match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


def payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def negated(meets: Meets, *, is_not: bool) -> Meets:
    return lambda packet: meets(packet) is not is_not


@st.composite
def addresses(draw: st.DrawFn) -> Asked:
    option, field, name = draw(st.sampled_from([("-s", "saddr", "source"), ("-d", "daddr", "destination")]))
    block, is_not = draw(st.sampled_from(BLOCKS)), draw(st.booleans())
    address, _, length = block.partition("/")
    right = address if length == "32" else {"prefix": {"addr": address, "len": int(length)}}
    return Asked(
        (match(payload("ip", field), right, "!=" if is_not else "=="),),
        f"{'! ' if is_not else ''}{option} {block}",
        negated(lambda p: ip_address(getattr(p, name)) in ip_network(block), is_not=is_not),
    )


@st.composite
def interfaces(draw: st.DrawFn) -> Asked:
    option, key, name = draw(st.sampled_from([("-i", "iifname", "device_in"), ("-o", "oifname", "device_out")]))
    device, is_not = draw(st.sampled_from([*DEVICES, "kvb*"])), draw(st.booleans())
    is_start, stem = device.endswith("*"), device.rstrip("*")
    return Asked(
        (match(meta(key), device, "!=" if is_not else "=="),),
        f"{'! ' if is_not else ''}{option} {device.replace('*', '+')}",
        negated(
            lambda p: getattr(p, name).startswith(stem) if is_start else getattr(p, name) == stem,
            is_not=is_not,
        ),
    )


@st.composite
def ports(draw: st.DrawFn) -> Asked:
    protocol, low, high = draw(st.sampled_from(["tcp", "udp"])), *sorted(draw(st.tuples(*[st.sampled_from(PORTS)] * 2)))
    left, words = payload(protocol, "dport"), f"-p {protocol} -m {protocol} --dport {low}:{high}"
    return Asked(
        (match(left, {"range": [low, high]}),), words, lambda p: p.protocol == protocol and low <= p.port <= high
    )


@st.composite
def several_ports(draw: st.DrawFn) -> Asked:
    some = draw(st.lists(st.sampled_from(PORTS), min_size=1, max_size=3, unique=True))
    words = f"-p udp -m multiport --dports {','.join(map(str, some))}"
    right: Any = {"set": some}
    return Asked((match(payload("udp", "dport"), right),), words, lambda p: p.protocol == "udp" and p.port in some)


@st.composite
def protocols(draw: st.DrawFn) -> Asked:
    name, is_not = draw(st.sampled_from(["tcp", "udp", "icmp"])), draw(st.booleans())
    spelled = match(meta("l4proto"), name, "!=" if is_not else "==")
    return Asked((spelled,), f"{'! ' if is_not else ''}-p {name}", negated(lambda p: p.protocol == name, is_not=is_not))


@st.composite
def states(draw: st.DrawFn) -> Asked:
    some = draw(st.lists(st.sampled_from(["new", "established", "invalid"]), min_size=1, max_size=2, unique=True))
    words = f"-m conntrack --ctstate {','.join(some).upper()}"
    return Asked((match({"ct": {"key": "state"}}, some, "in"),), words, lambda p: p.state in some)


@st.composite
def echoes(draw: st.DrawFn) -> Asked:
    name, number, state = draw(st.sampled_from([("echo-request", 8, "new"), ("echo-reply", 0, "established")]))
    words = f"-p icmp -m icmp --icmp-type {number}"
    return Asked((match(payload("icmp", "type"), name),), words, lambda p: p.protocol == "icmp" and p.state == state)


MARKED = Asked(
    (match({"&": [meta("mark"), MARK]}, MARK),),
    f"-m mark --mark {MARK:#x}/{MARK:#x}",
    lambda p: bool(p.mark & MARK),
)
NOBODY_KNOWS = Asked(({"limit": {"rate": 5}},), "-m limit --limit 5/sec", lambda p: None)
asked = st.one_of(
    addresses(),
    interfaces(),
    ports(),
    several_ports(),
    protocols(),
    states(),
    echoes(),
    st.just(MARKED),
    st.just(NOBODY_KNOWS),
)
VERDICTS = {"DROP": "drop", "ACCEPT": "accept", "RETURN": "return", "REJECT": "reject"}


@dataclass(frozen=True)
class Line:
    asked: tuple[Asked, ...]
    target: str


lines = st.builds(Line, st.lists(asked, max_size=2).map(tuple), st.sampled_from([*VERDICTS, "other"]))
in_other = st.builds(Line, st.lists(asked, max_size=2).map(tuple), st.sampled_from(list(VERDICTS)))
packets = st.builds(
    Packet,
    st.just(4),
    st.sampled_from(["tcp", "udp", "icmp"]),
    st.sampled_from(ADDRESSES),
    st.sampled_from(ADDRESSES),
    st.sampled_from(PORTS),
    st.sampled_from(DEVICES),
    st.sampled_from(DEVICES),
    mark=st.sampled_from([0, MARK]),
    state=st.sampled_from(["new", "established"]),
)
policies = st.sampled_from(["accept", "drop"])


def as_nft(rules: Mapping[str, list[Line]], policy: str) -> list[Chain]:
    listing: list[dict[str, Any]] = [
        {"chain": {**PLACE, "name": CHAIN, "type": "filter", "hook": HOOK, "prio": 0, "policy": policy}},
        {"chain": {**PLACE, "name": "other"}},
    ]
    for chain, some in rules.items():
        for line in some:
            end = {"jump": {"target": "other"}} if line.target == "other" else {VERDICTS[line.target]: None}
            expressions = [*(spelled for one in line.asked for spelled in one.nft), {"counter": {"packets": 1}}, end]
            listing.append({"rule": {**PLACE, "chain": chain, "handle": 1, "expr": expressions}})
    return nft.chains_of({"nftables": listing})


def as_iptables(rules: Mapping[str, list[Line]], policy: str) -> list[Chain]:
    text = f"*filter\n:{CHAIN} {policy.upper()} [0:0]\n:other - [0:0]\n"
    for chain, some in rules.items():
        for line in some:
            text += f"-A {chain} {' '.join(one.iptables for one in line.asked)} -j {line.target}\n"
    return iptables.chains_of(f"{text}COMMIT\n", "ip", "iptables")


def fate(packet: Packet, chains: list[Chain]) -> str:
    drop = first(drops(packet, "ip", HOOK, chains))
    return "passes" if drop is None else "dropped" if drop.is_certain else "perhaps"


def real(packet: Packet, rules: Mapping[str, list[Line]], policy: str, *, unknown: bool) -> str:
    """What the kernel does, if all that nobody knows is met, or nothing of it."""

    def through(chain: str) -> str:
        for line in rules[chain]:
            met = [unknown if (is_met := one.meets(packet)) is None else is_met for one in line.asked]
            if not all(met):
                continue
            if line.target == "RETURN":
                return ""
            end = through("other") if line.target == "other" else line.target
            if end:
                return end
        return ""

    end = through(CHAIN) or policy.upper()
    return "passes" if end == "ACCEPT" else "dropped"


@given(packets, st.lists(lines, max_size=4), st.lists(in_other, max_size=3), policies)
def test_both_spellings_of_a_rule_set_have_one_verdict(
    packet: Packet, some: list[Line], other: list[Line], policy: str
) -> None:
    rules = {CHAIN: some, "other": other}

    assert fate(packet, as_nft(rules, policy)) == fate(packet, as_iptables(rules, policy))


@given(packets, st.lists(lines, max_size=4), st.lists(in_other, max_size=3), policies)
def test_what_is_certain_is_what_the_kernel_does_whatever_is_behind_the_unknown(
    packet: Packet, some: list[Line], other: list[Line], policy: str
) -> None:
    rules = {CHAIN: some, "other": other}

    told = fate(packet, as_nft(rules, policy))

    does = {real(packet, rules, policy, unknown=unknown) for unknown in (True, False)}
    assert told == "perhaps" or does == {told}
    if all(NOBODY_KNOWS not in line.asked for line in (*some, *other)):
        assert told != "perhaps"


PACKET = Packet(4, "udp", "10.1.0.2", "10.1.0.3", 4789, "eth0")


def of(*expressions: dict[str, Any], hook: str = HOOK, **more: Any) -> list[Chain]:
    place = {"family": "inet", "table": "t", "chain": "c"}
    chain = {"chain": {"family": "inet", "table": "t", "name": "c", "hook": hook, "prio": 0, **more}}
    return nft.chains_of({"nftables": [chain, {"rule": {**place, "handle": 1, "expr": list(expressions)}}]})


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (match(payload("th", "dport"), 4789, "<"), "passes"),
        (match(payload("udp", "dport"), 4789, "<="), "dropped"),
        (match(payload("udp", "dport"), 53, ">"), "dropped"),
        (match(payload("ip", "saddr"), "@gone"), "perhaps"),
        (match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"), "perhaps"),
        ({"quota": {"val": 25, "val_unit": "mbytes", "inv": True}}, "perhaps"),
        ({"ct count": {"val": 10, "inv": True}}, "perhaps"),
        ({"set": {"op": "update", "elem": meta("mark"), "set": "@m", "stmt": [{"limit": {"rate": 1}}]}}, "perhaps"),
        (match(payload("icmp", "type"), "echo-request"), "passes"),
        (match(payload("udp", "sport"), 1024, ">="), "perhaps"),
    ],
)
def test_what_a_rule_asks_is_understood_or_left_in_doubt(condition: dict[str, Any], expected: str) -> None:
    assert fate(PACKET, of(condition, {"drop": None})) == expected


@pytest.mark.parametrize("statement", [{"queue": {"num": 0}}, {"xt": {"type": "target", "name": "TARPIT"}}])
def test_a_drop_behind_a_rule_that_may_take_the_packet_is_not_certain(statement: dict[str, Any]) -> None:
    assert fate(PACKET, of(statement, policy="drop")) == "perhaps"


def test_a_verdict_map_by_what_is_not_known_may_do_all_that_is_in_it() -> None:
    key = {"fib": {"result": "type", "flags": ["daddr"]}}

    assert fate(PACKET, of({"vmap": {"key": key, "data": {"set": [["local", {"drop": None}]]}}})) == "perhaps"
    unknown = {"vmap": {"key": key, "data": {"set": [["local", {"accept": None}]]}}}
    assert fate(PACKET, of(unknown, policy="drop")) == "perhaps"


def test_chains_of_address_translation_see_first_packets_only() -> None:
    chains = of({"drop": None}, type="nat")

    assert fate(PACKET, chains) == "dropped"
    assert fate(replace(PACKET, state="established"), chains) == "passes"


def test_chains_on_a_device_see_what_comes_by_it() -> None:
    def dropped(chains: list[Chain]) -> bool:
        return bool(drops(PACKET, "netdev", "ingress", chains))

    assert dropped(of({"drop": None}, hook="ingress", dev="eth0"))
    assert not dropped(of({"drop": None}, hook="ingress", dev=["eth1", "eth2"]))
    listing = 'table inet t {\n\tchain c {\n\t\ttype filter hook ingress devices = { "eth1" } priority 0; }\n}'
    assert devices(listing, "c") == ("eth1",)


def test_what_a_comment_says_is_no_rule() -> None:
    text = '*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m comment --comment "-j ACCEPT" -j DROP\nCOMMIT\n'

    assert fate(PACKET, iptables.chains_of(text, "ip", "iptables")) == "dropped"


def test_a_set_of_very_many_counts_as_many_rules() -> None:
    block = match(payload("ip", "saddr"), {"set": [f"10.9.{n // 250}.{n % 250}" for n in range(5000)]})
    place = {"family": "inet", "table": "t", "chain": "c", "handle": 1}
    rule = {"rule": {**place, "expr": [block, {"drop": None}]}}
    chain = {"chain": {"family": "inet", "table": "t", "name": "c", "hook": HOOK, "prio": 0}}
    (read,) = nft.chains_of({"nftables": [chain, rule]})

    (drop,) = drops(PACKET, "ip", HOOK, [replace(read, rules=[*read.rules] * 1100)])

    assert not drop.is_certain
    assert "more rules" in drop.rule
