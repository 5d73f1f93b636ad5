"""What counts mean: where they fall to nothing is where the fault is."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.connectivity import links, paths
from controller.connectivity.choice import Pair
from controller.connectivity.links import Crossing
from controller.connectivity.told import Asked, Place, Refused, Sent, Watched
from datapath.names import veth_name
from kvnet.model import Driver, Endpoint, Network, Subnet

NETWORK = Network(
    "00000000000a", "n1", Driver.OVERLAY, (Subnet(IPv4Network("10.1.0.0/24"), IPv4Address("10.1.0.1")),), 0.0, vni=1
)
A = Endpoint("a", NETWORK.id, "h1", "web", (IPv4Address("10.1.0.2"),), "02:00:00:00:00:0a", 0.0)
B = Endpoint("b", NETWORK.id, "h2", "db", (IPv4Address("10.1.0.3"),), "02:00:00:00:00:0b", 0.0)


def crossing(**changes: Any) -> Crossing:
    """From h1 (0) to h2 (1): all 20 through, 1500 bytes whole."""
    counts = {"left": 20, "arrived": 20, "through": 20, "whole": 3} | {
        name: changes.pop(name) for name in list(changes) if name in ("left", "arrived", "through", "whole")
    }
    there = Watched(arrived={0: counts["arrived"]}, through={0: counts["through"]}, sizes={(0, 1500): counts["whole"]})
    made = Crossing(
        "h1",
        "h2",
        0,
        1,
        Sent(20, {1500: 3}, {}, 5, [0.2, 0.3]),
        Watched(left={1: counts["left"]}),
        there,
        True,
        1500,
    )
    return replace(made, **changes)


ROUTER = Refused("192.0.2.2", "192.0.2.254", 1400, False)
CLOSED = Refused("192.0.2.2", "192.0.2.2", 0, True)
MISSED = Watched(arrived={0: 19}, through={0: 19}, sizes={(0, 1500): 3}, missed=7)


@pytest.mark.parametrize(
    ("made", "status", "code", "words"),
    [
        (crossing(), "ok", "reached", ""),
        (crossing(sent=Sent(20, {}, {}, 5, [])), "ok", "no-echo", "does not answer ping"),
        (crossing(has_tunnel=False, through=0), "ok", "arrives", "no overlay network yet"),
        (crossing(sent=Sent(0, {}, {"EPERM": "no"})), "blocked", "refused-by-sender", "h1's own"),
        (crossing(sent=Sent(0, {}, {"ENETUNREACH": "no route"})), "blocked", "no-route", "no route"),
        (crossing(left=0, arrived=0, through=0), "blocked", "dropped-by-sender", "leave by none of its links"),
        (crossing(arrived=0, through=0), "blocked", "filtered-on-the-way", "something between them"),
        (
            crossing(arrived=0, through=0, sent=Sent(20, {}, {}, 5, [])),
            "blocked",
            "nothing-arrives",
            "neither UDP port 4789 nor",
        ),
        (
            crossing(arrived=0, through=0, left=0, sent=Sent(20, {}, {}, 5, [], "192.0.2.2")),
            "blocked",
            "next-hop-silent",
            "does not answer for its address",
        ),
        (crossing(through=0), "blocked", "dropped-by-receiver", "does not come out of its tunnel"),
        (crossing(through=0, refusals=(CLOSED,)), "blocked", "dropped-by-receiver", "port unreachable"),
        (crossing(whole=0), "mtu", "mtu-too-small", "nobody on the way says so"),
        (crossing(whole=0, passes=1412), "mtu", "mtu-too-small", "1412 bytes do"),
        (crossing(whole=0, refusals=(ROUTER,)), "mtu", "mtu-too-small", "192.0.2.254 on the way says that 1400"),
        (
            crossing(whole=0, sent=Sent(20, {}, {"EMSGSIZE": "too long"}, 5, [0.1])),
            "mtu",
            "mtu-too-small",
            "own link does not take more",
        ),
        (crossing(through=18), "loss", "packets-lost", "2 of 20 packets (10%)"),
        (crossing(seen_there=MISSED), "loss", "packets-lost", "could not count 7 packets"),
    ],
)
def test_between_hosts(made: Crossing, status: str, code: str, words: str) -> None:
    verdict = links.judge(made)

    assert (verdict.status, verdict.code) == (status, code)
    assert words in verdict.detail
    assert verdict.is_ok == (status == "ok")
    assert verdict.is_ok or verdict.fix, "whoever is told what is wrong is told what to do"


def test_the_answer_about_two_hosts_has_the_numbers_that_the_verdict_rests_on() -> None:
    made = crossing(whole=0, passes=1412, refusals=(ROUTER,))

    told = made.as_json(links.judge(made))

    assert told["mtu"] == {"needed": 1500, "passes": 1412, "told_by": "192.0.2.254"}
    assert told["tunnel"] == {"sent": 20, "left": 20, "arrived": 20, "through": 20}
    assert told["rtt_ms"] == {"min": 0.2, "avg": 0.25, "max": 0.3}


def at(endpoint: Endpoint, *, out: bool, reply: bool = False, full: bool = False) -> Place:
    return Place(veth_name(endpoint.id), out, reply, full)


TUNNEL_OUT, TUNNEL_IN = Place("kvx1", True, False, False), Place("kvx1", False, False, False)
LEFT, DELIVERED = at(A, out=False), at(B, out=True)
ANSWERED, RETURNED = at(B, out=False, reply=True), at(A, out=True, reply=True)
SILENT = Asked(3, (), 2, 0, 1450, False)


@pytest.mark.parametrize(
    ("asked", "near", "far", "status", "code", "words"),
    [
        (Asked(3, (0.1, 0.1, 0.1), 2, 2, 1450), (), (), "ok", "reached", ""),
        (Asked(3, (0.1,), 2, 2, 1450), (), (), "loss", "packets-lost", "2 of 3"),
        (Asked(3, (0.1,) * 3, 2, 0, 1450), (), (), "mtu", "mtu-too-small", "do not arrive at h2"),
        (
            Asked(3, (0.1,) * 3, 2, 0, 1450),
            (),
            (at(B, out=False, reply=True, full=True), at(B, out=True, full=True)),
            "mtu",
            "mtu-too-small",
            "do not arrive at h2",
        ),
        (Asked(3, (0.1,) * 3, 0, 0, 1450, error="EMSGSIZE"), (), (), "mtu", "mtu-too-small", "smaller MTU"),
        (replace(SILENT, neighbour=True), (), (), "ok", "answers-neighbours", "answers ARP and not ping"),
        (SILENT, (LEFT, TUNNEL_OUT, RETURNED), (), "ok", "answer-dropped-inside", "its own firewall"),
        (SILENT, (LEFT, TUNNEL_OUT), (TUNNEL_IN, DELIVERED), "no-answer", "endpoint-silent", "neither ping nor ARP"),
        (replace(SILENT, neighbour=None), (LEFT,), (DELIVERED,), "ok", "delivered", "does not answer ping"),
        (SILENT, (LEFT,), (DELIVERED, ANSWERED), "blocked", "answer-lost", "on h2, coming in by"),
        (SILENT, (LEFT, TUNNEL_OUT), (TUNNEL_IN,), "blocked", "lost", "on h2, coming in by kvx1"),
        (SILENT, (LEFT, TUNNEL_OUT), (), "blocked", "lost", "on h1, leaving by kvx1"),
        (SILENT, (LEFT,), (), "blocked", "lost", "on h1, coming in by kve"),
        (SILENT, (), (), "blocked", "never-left", "no packet to db leaves web's interface"),
        (Asked(error="ENETUNREACH", detail="no route"), (), (), "blocked", "no-route-inside", "no route"),
        (Asked(error="EPERM", detail="no"), (), (), "no-answer", "refused-inside", "lets no ping out"),
        (Asked(error="NOT-HERE", detail="it is gone"), (), (), "no-answer", "not-attached", "it is gone"),
    ],
)
def test_between_endpoints(
    asked: Asked, near: tuple[Place, ...], far: tuple[Place, ...], status: str, code: str, words: str
) -> None:
    path = paths.Path(
        5, Pair(NETWORK, A, B, 4), asked, Watched(pairs={5: frozenset(near)}), Watched(pairs={5: frozenset(far)})
    )
    if len(far) == 2 and asked.full_sent and asked.rtt_ms:
        words = "lost on the way back to h1"

    verdict = paths.judge(path)

    assert (verdict.status, verdict.code) == (status, code)
    assert words in verdict.detail
    assert verdict.is_ok or verdict.fix
    assert path.as_json(verdict)["from"] == {"id": "a", "name": "web", "host": "h1", "address": "10.1.0.2"}


numbers = st.integers(0, 20)


@given(numbers, numbers, numbers, numbers, st.booleans())
def test_whatever_is_counted_there_is_a_verdict_that_is_good_only_if_everything_arrived(
    left: int, arrived: int, through: int, whole: int, has_tunnel: bool
) -> None:
    verdict = links.judge(crossing(left=left, arrived=arrived, through=through, whole=whole, has_tunnel=has_tunnel))

    assert verdict.is_ok == (arrived > 0 and whole > 0 and (through if has_tunnel else arrived) >= 20)


def test_what_a_worker_of_another_version_leaves_out_counts_as_nothing() -> None:
    assert Watched.read({}) == Watched()
    assert Asked.read({}) == Asked()
    sent = Sent()
    sent.add({})
    assert sent == Sent()
