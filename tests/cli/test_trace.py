"""`kvnet trace` and `kvnet host pause`: what is shown, what is refused, and how they end."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cli.trace import lines
from tests.cli.world import World


def hop(number: int, kind: str, verdict: str, **more: Any) -> dict[str, Any]:
    known = {"host": "h1", "direction": "there", "name": f"{kind} {number}", "desired": "there", "found": "there"}
    base = {"number": number, "kind": kind, "verdict": verdict, "differences": [], "repairs": [], "version": None}
    return {**base, **known, **more}


def found(*hops: dict[str, Any], finding: dict[str, Any] | None = None) -> dict[str, Any]:
    end = {"network": "app", "name": "web", "address": "10.1.0.2", "host": "h1"}
    return {
        "from": end,
        "to": {**end, "name": "db", "host": "h2"},
        "family": 4,
        "protocol": "tcp",
        "port": 80,
        "hops": list(hops),
        "finding": finding,
        "unread": [],
        "whole": finding is None,
    }


DIFFERENCE = {
    "code": "wrong-vni",
    "what": "VNI",
    "desired": "7",
    "found": "9",
    "reason": "they differ",
    "fix": "put it right",
    "breaks": True,
}


def test_a_whole_way_is_told_in_one_line_for_each_hop() -> None:
    page = list(lines(found(hop(1, "port", "ok"), hop(2, "bridge", "ok", direction="back"))))

    assert page[0] == "app/web (10.1.0.2 on h1) -> app/db (10.1.0.2 on h2), IPv4, tcp to port 80"
    assert sum("  ok " in line for line in page) == 2
    assert "    and back:" in page
    assert page[-1] == "The way is whole: 2 hops are as they should be."


def test_a_finding_says_what_should_be_what_is_why_and_what_to_do() -> None:
    differing = hop(2, "vxlan", "differs", differences=[DIFFERENCE], version={"applied": 5, "wanted": 7})
    page = "\n".join(lines(found(hop(1, "port", "ok"), differing, finding={**DIFFERENCE, "hop": 2, "host": "h1"})))

    for wanted in ("DIFFERS", "VNI should be: 7; is: 9", "Hop 2 on h1", "(wrong-vni)", "revision 5 of 7"):
        assert wanted in page
    assert "why:        they differ" in page
    assert "what to do: put it right" in page


def test_what_nobody_looked_at_is_told_with_what_should_be_there() -> None:
    page = "\n".join(lines(found(hop(1, "vxlan", "unknown", found=None, desired="VNI 7"))))

    assert "should be: VNI 7" in page
    assert "Not looked at: hop 1." in page


def test_repairs_are_told_with_how_often() -> None:
    repair = {"text": "set this", "seconds_ago": 0.31, "times": 4, "within_seconds": 600}
    page = "\n".join(lines(found(hop(1, "vxlan fdb", "ok", repairs=[repair]))))

    assert "repaired 0.3 s ago: set this, 4 times in 10 min" in page


def test_what_comes_from_hosts_cannot_control_the_terminal() -> None:
    page = "\n".join(lines(found(hop(1, "other firewalls", "ok", found="rule \x1b[2J\x07"))))

    assert "\x1b" not in page
    assert "\x07" not in page


def test_a_trace_over_hosts_that_do_not_answer_ends_with_1_and_tells_what_should_be(world: World) -> None:
    name = world.network("--no-ipv6")
    world.endpoint(name, "c1", "h1")
    world.endpoint(name, "c2", "h2")

    began = time.monotonic()
    outcome = world.run("trace", f"{name}/c1", f"{name}/c2", "-o", "json")

    assert outcome.code == 1
    assert outcome.data["whole"] is False
    assert outcome.data["finding"]["code"] in ("worker-silent", "worker-dead")
    assert all(one["desired"] for one in outcome.data["hops"])
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("trace", "a/b", "a/c", "--tcp", "80", "--udp", "53"), "--tcp and --udp at once"),
        (("trace", "a/b", "a/c", "-4", "-6"), "-4 and -6 at once"),
        (("trace", "nowhere/c1", "nowhere/c2"), "there is no network"),
        (("host", "pause", "h1", "--for", "2d"), "1s to 24h"),
        (("host", "pause", "nowhere"), "there is no host"),
        (("host", "resume", "nowhere"), "there is no host"),
    ],
)
def test_what_cannot_be_is_refused(world: World, arguments: tuple[str, ...], told: str) -> None:
    outcome = world.run(*arguments)

    assert outcome.code not in (0, 1)
    assert told in outcome.err


def test_a_host_that_the_way_does_not_lead_over_is_not_looked_at(world: World) -> None:
    name = world.network("--no-ipv6")
    world.endpoint(name, "c1", "h1")
    world.endpoint(name, "c2", "h2")

    outcome = world.run("trace", f"{name}/c1", f"{name}/c2", "--here", "h9")

    assert outcome.code not in (0, 1)
    assert "its hosts are h1, h2" in outcome.err
