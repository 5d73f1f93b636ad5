"""What is understood of other programs' rules, and what is only said to be possible."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath.rules import iptables, nft
from datapath.rules.nft_text import rule_texts
from datapath.trace.drops import drops
from datapath.trace.seen import Crossing

FRAME = Crossing(
    "there/bridge",
    "bridge",
    "forward",
    "10.1.0.2",
    "10.1.0.3",
    "icmp",
    device_in="kve1",
    device_out="kvx1",
    source_mac="02:00:00:00:00:02",
    destination_mac="02:00:00:00:00:03",
)
PACKET = replace(FRAME, layer="ip", device_in="kvb1", device_out="kvb1")
TUNNEL = Crossing("there/underlay-in", "ip", "input", "192.0.2.1", "192.0.2.2", "udp", 4789, device_in="eth0")
DROP = {"drop": None}


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


def payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def outcome(packet: Crossing, *rules: list[Any], policy: str = "accept", more: list[Any] | None = None) -> str:
    """Of a chain with these rules: dropped, perhaps, or passes."""
    family = "bridge" if packet.layer == "bridge" else "inet"
    place = {"family": family, "table": "t"}
    listing = [{"chain": {**place, "name": "c", "hook": packet.hook, "prio": 0, "policy": policy}}, *(more or [])]
    listing += [{"rule": {**place, "chain": "c", "handle": n, "expr": list(rule)}} for n, rule in enumerate(rules)]
    found = drops(packet, nft.chains_of({"nftables": listing}))
    return "passes" if not found else "dropped" if found[0].is_certain else "perhaps"


BAD = {
    "set": {
        "family": "bridge",
        "table": "t",
        "name": "bad",
        "elem": [{"prefix": {"addr": "10.1.0.0", "len": 24}}, "10.9.9.9"],
    }
}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ([DROP], "dropped"),
        ([{"reject": None}], "dropped"),
        ([{"counter": {"packets": 1}}, {"log": None}, DROP], "dropped"),
        ([match(payload("ip", "daddr"), "10.1.0.3"), DROP], "dropped"),
        ([match(payload("ip", "daddr"), "10.1.0.4"), DROP], "passes"),
        ([match(payload("ip", "daddr"), "10.1.0.4", "!="), DROP], "dropped"),
        ([match(payload("ip", "saddr"), {"prefix": {"addr": "10.1.0.0", "len": 16}}), DROP], "dropped"),
        ([match(payload("ip", "daddr"), {"range": ["10.1.0.1", "10.1.0.9"]}), DROP], "dropped"),
        ([match(payload("ip", "daddr"), {"set": ["10.2.0.1", "10.1.0.3"]}), DROP], "dropped"),
        ([match(payload("ip", "daddr"), "@bad"), DROP], "dropped"),
        ([match(payload("ip6", "daddr"), "fd00::1"), DROP], "passes"),
        ([match(payload("ether", "daddr"), "02:00:00:00:00:03"), DROP], "dropped"),
        ([match(payload("ether", "type"), "arp"), DROP], "passes"),
        ([match(meta("iifname"), "kve*"), DROP], "dropped"),
        ([match(meta("oifname"), "eth0"), DROP], "passes"),
        ([match(meta("l4proto"), {"set": ["icmp", "ipv6-icmp"]}), DROP], "dropped"),
        ([match(payload("udp", "dport"), 53), DROP], "passes"),
        ([match(payload("icmp", "type"), "echo-request"), DROP], "dropped"),
        ([match(payload("icmp", "type"), "echo-reply"), DROP], "passes"),
        ([match(payload("icmpv6", "type"), "echo-request"), DROP], "passes"),
        ([match({"ct": {"key": "state"}}, ["established", "related"], "in"), DROP], "passes"),
        ([match({"&": [meta("mark"), 0x80000]}, 0x80000), DROP], "passes"),
        (
            [match({"concat": [meta("iifname"), meta("oifname")]}, {"set": [{"concat": ["kve1", "kvx1"]}]}), DROP],
            "dropped",
        ),
        ([{"vmap": {"key": meta("iifname"), "data": {"set": [["kve1", DROP]]}}}], "dropped"),
        ([{"vmap": {"key": meta("iifname"), "data": {"set": [["kve2", DROP]]}}}], "passes"),
        ([{"limit": {"rate": 5}}, DROP], "perhaps"),
        ([match(meta("time"), 5), DROP], "perhaps"),
        ([{"xt": {"type": "match", "name": "comment"}}, DROP], "dropped"),
        ([{"xt": {"type": "match", "name": "recent"}}, DROP], "perhaps"),
        ([{"xt": None}, DROP], "perhaps"),
        ([{"something": {"new": 1}}, DROP], "perhaps"),
    ],
)
def test_a_rule_of_nftables_is_understood_or_left_in_doubt(rule: list[Any], expected: str) -> None:
    assert outcome(FRAME, rule, more=[BAD]) == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ([DROP], "dropped"),
        ([match(payload("ether", "type"), "arp"), DROP], "dropped"),
        ([match(meta("protocol"), "ip", "!="), DROP], "dropped"),
        ([match(payload("arp", "operation"), "request"), DROP], "dropped"),
        ([match(payload("arp", "operation"), "reply"), DROP], "passes"),
        ([match(payload("ip", "daddr"), "10.1.0.3"), DROP], "passes"),
        ([match(meta("l4proto"), "icmp"), DROP], "passes"),
        ([match(payload("ether", "daddr"), "02:00:00:00:00:03"), DROP], "passes"),
    ],
)
def test_a_question_for_an_address_is_a_packet_of_its_own(rule: list[Any], expected: str) -> None:
    asked = replace(FRAME, protocol="arp", destination_mac="ff:ff:ff:ff:ff:ff")
    assert outcome(asked, rule) == expected


def test_the_first_verdict_counts_and_a_policy_comes_last() -> None:
    assert outcome(FRAME, [{"accept": None}], [DROP]) == "passes"
    assert outcome(FRAME, policy="drop") == "dropped"
    assert outcome(FRAME, [match(meta("iifname"), "kve1"), {"accept": None}], policy="drop") == "passes"
    assert outcome(FRAME, [{"limit": {"rate": 5}}, {"accept": None}], policy="drop") == "perhaps"


PERHAPS: dict[str, Any] = {"limit": {"rate": 5}}


def test_a_drop_behind_what_may_have_let_the_packet_through_is_not_certain() -> None:
    place = {"family": "bridge", "table": "t"}
    other = [
        {"chain": {**place, "name": "other"}},
        {"rule": {**place, "chain": "other", "handle": 90, "expr": [{"accept": None}]}},
    ]

    assert outcome(FRAME, [PERHAPS, {"accept": None}], [DROP]) == "perhaps"
    assert outcome(FRAME, [PERHAPS, {"return": None}], [DROP]) == "perhaps"
    assert outcome(FRAME, [PERHAPS, {"jump": {"target": "other"}}], [DROP], more=other) == "perhaps"
    assert outcome(FRAME, [PERHAPS, {"goto": {"target": "other"}}], [DROP], more=other) == "perhaps"
    assert outcome(FRAME, [PERHAPS, {"return": None}], [{"accept": None}], policy="drop") == "perhaps"


def test_where_every_way_ends_in_a_drop_it_is_certain() -> None:
    assert outcome(FRAME, [PERHAPS, {"return": None}], [DROP], policy="drop") == "dropped"
    assert outcome(FRAME, [PERHAPS, DROP], [DROP]) == "dropped"


def test_a_chain_that_may_be_jumped_to_is_followed_as_it_would_be() -> None:
    place = {"family": "bridge", "table": "t"}
    rules: list[list[Any]] = [[match(meta("iifname"), "kve1"), {"return": None}], [DROP]]
    other = [{"chain": {**place, "name": "other"}}] + [
        {"rule": {**place, "chain": "other", "handle": 90 + n, "expr": rule}} for n, rule in enumerate(rules)
    ]

    assert outcome(FRAME, [PERHAPS, {"jump": {"target": "other"}}], more=other) == "passes"
    assert outcome(replace(FRAME, device_in="kve2"), [PERHAPS, {"jump": {"target": "other"}}], more=other) == "perhaps"


def test_a_chain_that_is_jumped_to_returns_where_it_was_called() -> None:
    place = {"family": "bridge", "table": "t"}
    other = [
        {"chain": {**place, "name": "other"}},
        {"rule": {**place, "chain": "other", "handle": 90, "expr": [match(meta("iifname"), "kve1"), {"return": None}]}},
        {"rule": {**place, "chain": "other", "handle": 91, "expr": [DROP]}},
    ]

    assert outcome(FRAME, [{"jump": {"target": "other"}}], more=other) == "passes"
    assert outcome(replace(FRAME, device_in="kve2"), [{"jump": {"target": "other"}}], more=other) == "dropped"
    assert outcome(FRAME, [{"jump": {"target": "other"}}], [DROP], more=other) == "dropped"
    assert outcome(FRAME, [{"goto": {"target": "other"}}], [DROP], more=other) == "passes"


def test_a_chain_that_jumps_to_itself_ends() -> None:
    assert outcome(FRAME, [{"jump": {"target": "c"}}]) == "passes"


def test_only_chains_on_the_packets_hook_see_it() -> None:
    assert outcome(replace(TUNNEL, hook="input"), [match(payload("udp", "dport"), 4789), DROP]) == "dropped"
    listing = {"nftables": [{"chain": {"family": "ip6", "table": "t", "name": "c", "hook": "input", "policy": "drop"}}]}
    assert drops(TUNNEL, nft.chains_of(listing)) == []


def test_what_kvnet_admitted_bears_its_mark_for_chains_behind_its_own() -> None:
    place = {"family": "ip", "table": "filter"}
    accept = [match({"&": [meta("mark"), 0x80000]}, 0x80000), {"accept": None}]
    rule = {"rule": {**place, "chain": "FORWARD", "handle": 1, "expr": accept}}

    def of(priority: int) -> list[Any]:
        chain = {**place, "name": "FORWARD", "hook": "forward", "prio": priority, "policy": "drop"}
        return drops(PACKET, nft.chains_of({"nftables": [{"chain": chain}, rule]}), 0x80000)

    assert of(0) == []
    assert of(-150) != []


SAVED = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -s 10.0.0.0/8 -p tcp -m comment --comment "hi there" -m tcp --dport 80 -j DROP
-A FORWARD -j DOCKER-USER
-A FORWARD -m mark --mark 0x80000/0x80000 -m comment --comment kvnet -j ACCEPT
-A DOCKER-USER -m conntrack --ctstate ESTABLISHED -j RETURN
-A DOCKER-USER ! -i kvb+ -j DROP
COMMIT
"""


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (PACKET, []),
        (replace(PACKET, protocol="tcp", port=80), ["FORWARD"]),
        (replace(PACKET, protocol="tcp", port=81), []),
        (replace(PACKET, device_in="eth0"), ["DOCKER-USER"]),
        (replace(PACKET, source="fd00::2", destination="fd00::3"), []),
    ],
)
def test_what_iptables_saves_is_understood(packet: Crossing, expected: list[str]) -> None:
    found = drops(packet, iptables.chains_of(SAVED, "ip", "iptables"), 0x80000)

    assert [drop.chain for drop in found] == expected
    assert all(drop.is_certain for drop in found)


def test_without_our_rule_the_policy_of_forward_drops() -> None:
    without = "".join(line + "\n" for line in SAVED.splitlines() if "kvnet" not in line)

    (found,) = drops(PACKET, iptables.chains_of(without, "ip", "iptables-legacy"), 0x80000)

    assert (found.table, found.chain, found.rule) == ("filter (iptables-legacy)", "FORWARD", "policy drop")


def test_a_match_of_an_extension_that_is_not_known_leaves_its_rule_in_doubt() -> None:
    text = SAVED.replace("-A FORWARD -j DOCKER-USER", "-A FORWARD -m recent --name x --rcheck -j DROP")

    (found,) = drops(PACKET, iptables.chains_of(text, "ip", "iptables"), 0x80000)

    assert not found.is_certain
    assert "recent" in found.rule


def test_rules_are_told_as_their_owner_spells_them() -> None:
    rule = "ip daddr 10.1.0.3 counter packets 3 bytes 9 drop # handle 8"
    listing = f"table inet t {{\n\tchain c {{ # handle 1\n\t\t{rule}\n\t}}\n}}"

    assert rule_texts(listing) == {("c", 8): "ip daddr 10.1.0.3 counter drop"}


KEYS = [
    "match",
    "left",
    "right",
    "op",
    "meta",
    "key",
    "payload",
    "protocol",
    "field",
    "set",
    "prefix",
    "addr",
    "len",
    "vmap",
]
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(plain, max_size=4))
def test_no_rule_however_strange_breaks_it(expressions: list[Any]) -> None:
    json.dumps(expressions)

    assert outcome(FRAME, [*expressions, DROP]) in ("dropped", "perhaps", "passes")


def test_chains_that_call_chains_many_times_each_are_not_followed_for_ever() -> None:
    place = {"family": "inet", "table": "t"}
    listing: list[dict[str, Any]] = [{"chain": {**place, "name": "c0", "hook": "forward", "prio": 0, "policy": "drop"}}]
    listing += [{"chain": {**place, "name": f"c{n}"}} for n in range(1, 14)]
    for n in range(13):
        jump = {"jump": {"target": f"c{n + 1}"}}
        listing += [{"rule": {**place, "chain": f"c{n}", "handle": 10 * n + k, "expr": [jump]}} for k in range(10)]

    found = drops(PACKET, nft.chains_of({"nftables": listing}))

    assert [(drop.rule, drop.is_certain) for drop in found] == [("it has more rules than are looked at", False)]
