"""What a host says of itself is told at its hop, and does not hide where packets are lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from datapath.trace.case import Case, Standing
from datapath.trace.hop import Weight
from datapath.trace.seen import SeenNetwork, SeenRepair, Sight
from datapath.trace.trace import Trace, as_json, trace
from tests.unit.datapath.trace.fakes import case_of, sights
from tests.unit.datapath.trace.test_planted import built


def told(change: dict[str, object], *, wanted: int = 0) -> Trace:
    world, one, other = built("overlay", is_apart=True)
    case = case_of(world, one, other, 4)
    case = replace(case, wanted=dict.fromkeys(case.networks, wanted))
    seen = sights(world, case)
    return trace(case, {**seen, "h1": replace(seen["h1"], **change)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"is_fenced": True}, "host-fenced"),
        ({"mode": "doubt", "doubt": "the store went back in time"}, "in-doubt"),
        ({"networks": (SeenNetwork("000000000001", 3, 3),)}, "behind"),
        ({"networks": ()}, "not-taking-part"),
    ],
)
def test_what_is_wrong_with_a_host_is_the_finding_where_nothing_else_is(change: dict[str, object], code: str) -> None:
    found = told(change, wanted=3 if code != "behind" else 5)

    codes = {(hop.host, difference.code) for hop in found.hops for difference in hop.differences}
    assert ("h1", code) in codes


def test_a_host_that_is_behind_is_told_with_both_revisions() -> None:
    networks = (SeenNetwork("000000000001", 3, 3),)
    found = told({"networks": networks}, wanted=5)

    hops = as_json(found)["hops"]
    assert {"applied": 3, "wanted": 5} in [hop["version"] for hop in hops if hop["host"] == "h1"]
    difference = next(d for hop in found.hops for d in hop.differences if d.code == "behind" and hop.host == "h1")
    assert (difference.wanted, difference.found, difference.weight) == ("5", "3", Weight.NOTE)


def test_a_pause_is_told_and_is_no_fault() -> None:
    found = told({"paused_s": 90.0})

    assert found.finding is None
    assert any("paused for 90 s more" in hop.found for hop in found.hops if hop.kind == "worker")


def test_where_packets_are_lost_comes_before_what_a_host_says_of_itself() -> None:
    world, one, other = built("overlay", is_apart=True)
    case = case_of(world, one, other, 4)
    seen = sights(world, case)
    down = replace(case, standing={**case.standing, "h0": Standing(world.hosts["h0"], is_alive=False)})
    entries = tuple(entry for entry in seen["h0"].entries if not entry.remote)

    found = trace(down, {**seen, "h0": replace(seen["h0"], mode="here", entries=entries)})

    assert found.finding is not None
    assert (found.finding[0].kind, found.finding[1].code) == ("vxlan fdb", "vxlan-fdb-missing")
    assert "start the worker of h0" in found.finding[1].fix


def test_a_repair_is_told_at_the_hop_that_it_is_about_and_nowhere_else() -> None:
    world, one, other = built("overlay", is_apart=True)
    case: Case = case_of(world, one, other, 4)
    seen = sights(world, case)
    text = f"set {other.mac} behind {world.hosts['h1'].underlay} on kvx000000000001"
    repair = SeenRepair(text, "000000000001", 0.3, 4, 600.0)

    found = trace(case, {**seen, "h0": replace(seen["h0"], repairs=(repair,))})

    assert [(hop.host, hop.kind) for hop in found.hops if hop.repairs] == [("h0", "vxlan fdb")]
    assert found.finding is None


def test_nothing_that_was_not_read_goes_unsaid() -> None:
    world, one, other = built("overlay", is_apart=True)
    case = case_of(world, one, other, 4)
    seen = sights(world, case)
    unread = ("rules of iptables: the program iptables-nft-save is missing",)

    answer = as_json(trace(case, {**seen, "h1": replace(seen["h1"], unread=unread)}))

    assert answer["unread"] == [f"h1: {unread[0]}"]


def test_hosts_without_a_record_are_a_fault_of_their_own() -> None:
    world, one, other = built("overlay", is_apart=True)
    case = case_of(world, one, other, 4)
    seen: dict[str, Sight] = sights(world, case)
    gone = {name: record for name, record in case.hosts.items() if name != "h1"}
    case = replace(case, hosts=gone, standing={**case.standing, "h1": Standing(None, is_alive=False)})

    found = trace(case, {"h0": seen["h0"]})

    assert found.finding is not None
    assert found.finding[1].code == "host-unknown"
