"""A tap counts its own test's packets once, by where they are, and is bounded."""

from __future__ import annotations

from worker.probing.frames import Kind, Mark
from worker.probing.sight import Seen
from worker.probing.tally import MAX_SEQUENCE, Tally

SESSION = b"s" * 8
IN, OUT = 0, 4


def tally() -> Tally:
    return Tally(SESSION, own=1, hosts=3, pairs=2)


def mark(kind: Kind, source: int = 0, size: int = 0, sequence: int = 0, pair: int = 1) -> Mark:
    return Mark(SESSION, kind, source, size, sequence, pair)


def test_a_packet_that_two_devices_see_counts_once() -> None:
    counted = tally()
    for device in ("eth0", "bond0"):
        counted.add(Seen(mark(Kind.TUNNEL), is_outer=True), device, IN)
    counted.add(Seen(mark(Kind.TUNNEL)), "kvx000000000001", IN)

    assert counted.as_json()["tunnels"] == [{"from": 0, "arrived": 1, "through": 1}]


def test_what_comes_out_of_somebody_elses_tunnel_does_not_count() -> None:
    counted = tally()
    counted.add(Seen(mark(Kind.TUNNEL)), "vxlan7", IN)

    assert counted.as_json()["tunnels"] == []


def test_own_packets_are_counted_as_they_leave_and_others_as_they_come() -> None:
    counted = tally()
    counted.add(Seen(mark(Kind.TUNNEL, source=1, pair=2), is_outer=True), "eth0", OUT)
    counted.add(Seen(mark(Kind.TUNNEL, source=0, pair=1), is_outer=True), "eth0", OUT)
    counted.add(Seen(mark(Kind.SIZED, size=1500), is_outer=True), "eth0", IN)
    counted.add(Seen(mark(Kind.SIZED, size=1500, sequence=1), is_outer=True), "eth0", IN)

    told = counted.as_json()
    assert told["left"] == [{"to": 2, "count": 1}]
    assert told["sizes"] == [{"from": 0, "size": 1500, "arrived": 2}]
    assert told["tunnels"] == []


def test_what_is_of_another_test_or_beyond_this_one_is_not_counted() -> None:
    counted = tally()
    for seen in (
        Seen(Mark(b"x" * 8, Kind.TUNNEL, 0, pair=1), is_outer=True),
        Seen(mark(Kind.TUNNEL, source=3), is_outer=True),
        Seen(mark(Kind.TUNNEL, sequence=MAX_SEQUENCE), is_outer=True),
        Seen(mark(Kind.TUNNEL, pair=3), is_outer=True),
        Seen(mark(Kind.ECHO, pair=2)),
    ):
        counted.add(seen, "eth0", IN)

    assert not any(counted.as_json().values())


def test_an_echo_is_told_by_where_it_was_seen() -> None:
    counted = tally()
    for sequence in range(3):
        counted.add(Seen(mark(Kind.ECHO, sequence=sequence, pair=0)), "kve1", OUT)
    counted.add(Seen(mark(Kind.ECHO, pair=0), is_reply=True), "kve1", IN)

    assert counted.as_json()["pairs"] == [
        {
            "pair": 0,
            "places": [
                {"device": "kve1", "direction": "out", "reply": False, "full": False, "count": 3},
                {"device": "kve1", "direction": "in", "reply": True, "full": False, "count": 1},
            ],
        }
    ]
