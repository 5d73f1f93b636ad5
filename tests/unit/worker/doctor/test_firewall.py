"""Rules of others are walked with the packets that kvnet needs: what drops them is named, what is not known is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath.rules import iptables, nft
from datapath.rules.ruleset import Chain, Packet
from datapath.rules.walk import drops, first
from tests.unit.worker.doctor.healthy import HEALTHY, found
from worker.doctor.facts import FirewallFacts
from worker.doctor.report import Check, Status

UDP = {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 4789}}
ESTABLISHED = {
    "match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]},
}


def rules(
    *lines: list[dict[str, Any]],
    hook: str = "input",
    policy: str = "accept",
    table: str = "site",
    layer: str = "inet",
) -> dict[str, Any]:
    family = {"family": layer, "table": table}
    return {
        "nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": layer, "name": table}},
            {"chain": {**family, "name": "c", "type": "filter", "hook": hook, "prio": 0, "policy": policy}},
            *({"rule": {**family, "chain": "c", "expr": line}} for line in lines),
        ]
    }


def judged(ruleset: dict[str, Any], **saved: str) -> dict[str, Check]:
    """`saved`: what iptables-save says, by program."""
    chains = chains_of(ruleset, **saved)
    facts = FirewallFacts(chains, underlay_device="eth0", has_networks=True, has_worker=True)
    return found(replace(HEALTHY, firewall=facts))


def chains_of(ruleset: dict[str, Any], **saved: str) -> list[Chain]:
    chains = nft.chains_of(ruleset)
    for name, text in saved.items():
        family = "ip6" if name.startswith("ip6") else "ip"
        chains += iptables.chains_of(f"*filter\n{text}COMMIT\n", family, name.replace("_", "-"))
    return chains


def meta(key: str, value: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"meta": {"key": key}}, "right": value}}


def source(block: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": block}}


NEIGHBOURHOOD = {"prefix": {"addr": "192.0.2.0", "len": 24}}
PASSING: list[dict[str, Any]] = [
    rules(),
    rules([UDP, {"accept": None}], policy="drop"),
    rules([ESTABLISHED, {"accept": None}], [UDP, {"counter": {}}, {"accept": None}], [{"reject": None}]),
    rules([source(NEIGHBOURHOOD), {"accept": None}], policy="drop"),
    rules([meta("iifname", "eth*"), {"accept": None}], policy="drop"),
    rules([meta("iifname", "eth1"), {"drop": None}]),
    rules([meta("l4proto", "tcp"), {"drop": None}]),
    rules([meta("l4proto", {"set": ["tcp", "icmp"]}), {"drop": None}]),
    rules([source("198.51.100.1"), {"drop": None}]),
    rules([source(NEIGHBOURHOOD, "!="), {"drop": None}]),
    rules([{"drop": None}], hook="forward", table="kvnet"),
]
DROPPING: list[tuple[dict[str, Any], str]] = [
    (rules([UDP, {"drop": None}]), "inet site c: udp dport 4789 drop"),
    (rules(policy="drop"), "inet site c: policy drop"),
    (rules([ESTABLISHED, {"accept": None}], [{"reject": {"type": "icmpx"}}]), "inet site c: reject"),
    (rules([meta("iifname", "lo"), {"accept": None}], policy="drop"), "policy drop"),
    (rules([source(NEIGHBOURHOOD), UDP, {"drop": None}]), "192.0.2.0/24 udp dport 4789 drop"),
    (rules([UDP, {"drop": None}], hook="prerouting"), "udp dport 4789 drop"),
]


@pytest.mark.parametrize("ruleset", PASSING)
def test_rules_that_let_tunnels_in_are_no_finding(ruleset: dict[str, Any]) -> None:
    assert judged(ruleset)["firewall.tunnels_in"].status is Status.OK


@pytest.mark.parametrize(("ruleset", "words"), DROPPING)
def test_the_rule_that_drops_tunnels_is_named_with_the_command_that_lets_them_in(
    ruleset: dict[str, Any], words: str
) -> None:
    check = judged(ruleset)["firewall.tunnels_in"]

    assert check.status is Status.FAIL
    assert words in check.found
    assert check.fix == "nft insert rule inet site c udp dport 4789 accept"


def test_what_a_rule_asks_that_is_not_understood_makes_a_warning_and_no_verdict() -> None:
    check = judged(rules([{"limit": {"rate": 5}}, UDP, {"drop": None}]))["firewall.tunnels_in"]
    assert check.status is Status.WARN
    assert "perhaps dropped by inet site c" in check.found
    assert "kvnet connectivity test" in check.fix

    check = judged(rules([{"xt": {"type": "match", "name": "set"}}, {"accept": None}], policy="drop"))
    assert check["firewall.tunnels_in"].status is Status.WARN


def test_chains_that_are_jumped_to_are_walked_and_sets_are_looked_into() -> None:
    ruleset = rules([meta("iifname", "@ports"), {"jump": {"target": "zone"}}])
    family = {"family": "inet", "table": "site"}
    ruleset["nftables"] += [
        {"set": {**family, "name": "ports", "type": "ifname", "elem": ["eth0"]}},
        {"chain": {**family, "name": "zone"}},
        {"rule": {**family, "chain": "zone", "expr": [meta("l4proto", "udp"), {"drop": None}]}},
    ]

    check = judged(ruleset)["firewall.tunnels_in"]

    assert check.status is Status.FAIL
    assert check.found == "dropped by inet site zone: l4proto udp drop"


def test_a_verdict_map_is_looked_up() -> None:
    ruleset = rules([{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": {"set": [["eth0", {"drop": None}]]}}}])

    assert judged(ruleset)["firewall.tunnels_in"].status is Status.FAIL


def test_firewalld_and_ufw_are_told_in_their_own_words() -> None:
    check = judged(rules([{"reject": None}], table="firewalld"))["firewall.tunnels_in"]
    assert check.fix == "firewall-cmd --permanent --zone=public --add-port=4789/udp; firewall-cmd --reload"

    wall = judged(rules([{"reject": None}], hook="forward", table="firewalld"))["firewall.forward"]
    assert wall.status is Status.FAIL
    assert "--zone=trusted --add-interface=kv+" in wall.fix

    text = ":INPUT DROP [0:0]\n:ufw-before-input - [0:0]\n-A INPUT -j ufw-before-input\n"
    text += "-A ufw-before-input -p udp -j DROP\n"
    check = judged(rules(), iptables=text)["firewall.tunnels_in"]
    assert check.fix == "ufw allow 4789/udp"


def test_what_kvnet_forwards_bears_its_mark_where_others_look() -> None:
    mark = {"match": {"op": "==", "left": {"&": [{"meta": {"key": "mark"}}, 0x80000]}, "right": 0x80000}}
    assert (
        judged(rules([mark, {"accept": None}], hook="forward", policy="drop"))["firewall.forward"].status is Status.OK
    )
    devices = rules([meta("iifname", "kv*"), {"accept": None}], hook="forward", policy="drop")
    assert judged(devices)["firewall.forward"].status is Status.OK

    wall = judged(rules(hook="forward", policy="drop"))["firewall.forward"]
    assert wall.status is Status.FAIL
    assert wall.fix == "nft insert rule inet site c meta mark and 0x80000 == 0x80000 accept"


def test_a_chain_that_drops_frames_inside_networks_is_named_and_listed() -> None:
    found = judged(rules(hook="forward", policy="drop", layer="bridge"))

    assert found["firewall.bridged"].status is Status.FAIL
    assert found["firewall.bridged"].fix == "nft insert rule bridge site c iifname 'kv*' accept"
    assert found["firewall.others"].found == "tables: bridge site"
    opened = rules([meta("iifname", "kv*"), {"accept": None}], hook="forward", policy="drop", layer="bridge")
    assert judged(opened)["firewall.bridged"].status is Status.OK


def test_the_forward_chain_of_iptables_is_the_workers_to_open() -> None:
    closed = ":INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n"
    opened = closed + "-A FORWARD -m mark --mark 0x80000/0x80000 -m comment --comment kvnet -j ACCEPT\n"

    assert judged(rules(), iptables=opened)["firewall.forward"].status is Status.OK
    check = judged(rules(), iptables=closed)["firewall.forward"]
    assert check.status is Status.FAIL
    assert check.fix.startswith("iptables -A FORWARD -m mark --mark 0x80000/0x80000")
    legacy = judged(rules(), ip6tables_legacy=closed)["firewall.forward"]
    assert "ip6tables-legacy -t filter FORWARD: policy drop" in legacy.found

    facts = FirewallFacts(chains_of(rules(), iptables=closed), underlay_device="eth0")
    without = found(replace(HEALTHY, firewall=facts))["firewall.forward"]
    assert without.status is Status.OK
    assert "as soon as a network needs it" in without.found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-A INPUT -p udp -m udp --dport 4789 -j DROP", "dropped"),
        ("-A INPUT -p udp -m multiport --dports 53,4789 -j REJECT --reject-with icmp-port-unreachable", "dropped"),
        ("-A INPUT -p udp -m udp --dport 4000:5000 -j DROP", "dropped"),
        ("-A INPUT -s 192.0.2.0/24 -j DROP", "dropped"),
        ("-A INPUT ! -s 10.0.0.0/8 -j DROP", "dropped"),
        ("-A INPUT ! -i lo -j DROP", "dropped"),
        ("-A INPUT -m conntrack --ctstate INVALID -j DROP", "passes"),
        ("-A INPUT -i eth1 -j DROP", "passes"),
        ("-A INPUT -i eth+ -j DROP", "dropped"),
        ("-A INPUT -p tcp -j DROP", "passes"),
        ("-A INPUT -m set --match-set bad src -j DROP", "perhaps"),
        ("-A INPUT -m comment --comment 'a -j b' -j ACCEPT", "passes"),
    ],
)
def test_rules_of_iptables_are_understood_as_far_as_their_options_are(line: str, expected: str) -> None:
    packet = Packet(4, "udp", "192.0.2.2", "192.0.2.1", 4789, device_in="eth0")

    assert fate(packet, f":INPUT ACCEPT [0:0]\n{line}\n") == expected


def fate(packet: Packet, text: str) -> str:
    drop = first(drops(packet, "ip", "input", chains_of({}, iptables=text)))
    return "passes" if drop is None else "dropped" if drop.is_certain else "perhaps"


def test_chains_that_jump_in_a_circle_end() -> None:
    text = ":INPUT ACCEPT [0:0]\n:a - [0:0]\n:b - [0:0]\n-A INPUT -j a\n-A a -j b\n-A b -j a\n"

    assert fate(Packet(4, "udp"), text) == "passes"


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3), max_leaves=6
    )
)
def test_whatever_stands_on_the_right_of_a_comparison_is_no_reason_to_fail(right: Any) -> None:
    line = [{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": right}}, {"drop": None}]

    assert judged(json.loads(json.dumps(rules(line))))["firewall.tunnels_in"].status in set(Status)
