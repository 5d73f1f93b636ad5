"""Ownership: what certainly has one owner is never given to another, nor is a subnet that overlaps it."""

from __future__ import annotations

import random
from ipaddress import ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.torture.findings import Findings
from tests.torture.intervals import Ownership

thoroughly = settings(max_examples=150, deadline=None)


def line(time: int, kind: str, f: str, op: int, owner: str, *things: str) -> dict[str, Any]:
    return {"time": time, "type": kind, "f": f, "op": op, "owner": owner, "value": list(things)}


def rules(*lines: dict[str, Any]) -> set[str]:
    findings = Findings()
    Ownership().follow(lines, findings)
    return set(findings.rules)


def correct(rng: random.Random, things: int = 3, turns: int = 60) -> list[dict[str, Any]]:
    """Each thing goes from owner to owner, the answers come late, some never."""
    lines, time = [], 0
    owners: dict[str, str] = {}
    for op in range(turns):
        time += 10
        thing = f"address n/10.0.0.{rng.randrange(things)}"
        owner = owners.pop(thing, None)
        if owner is None:
            owners[thing] = f"e{op}"
            if rng.random() < 0.9:
                lines.append(line(time + rng.randrange(9), "ok", "acquire", op, f"e{op}", thing))
        else:
            lines.append(line(time - rng.randrange(1), "invoke", "release", op, owner, thing))
            if rng.random() < 0.9:
                lines.append(line(time + rng.randrange(200), "ok", "release", op, owner, thing))
    return lines


@given(st.builds(random.Random, st.integers(0, 1 << 32)))
@thoroughly
def test_things_that_go_from_owner_to_owner_are_fine(rng: random.Random) -> None:
    assert rules(*correct(rng)) == set()


@given(st.builds(random.Random, st.integers(0, 1 << 32)))
@thoroughly
def test_a_second_owner_while_the_first_certainly_has_it_is_found(rng: random.Random) -> None:
    lines = correct(rng)
    first = next(one for one in lines if one["f"] == "acquire")
    lines.append(line(first["time"] + 1, "ok", "acquire", 10_000, "thief", *first["value"]))

    assert "double-owner" in rules(*lines)


def test_the_same_owner_told_twice_is_one_owner() -> None:
    assert rules(line(1, "ok", "acquire", 1, "a", "name x"), line(2, "ok", "acquire", 2, "a", "name x")) == set()


def test_whoever_asked_for_a_release_owns_nothing_for_certain() -> None:
    lines = [line(1, "ok", "acquire", 1, "a", "name x"), line(2, "invoke", "release", 2, "a", "name x")]

    assert rules(*lines, line(3, "ok", "acquire", 3, "b", "name x")) == set()


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(20, 28)), min_size=2, max_size=8))
@thoroughly
def test_subnets_with_two_owners_are_found_exactly_when_they_overlap(blocks: list[tuple[int, int]]) -> None:
    cidrs = [ip_network((0x0A000000 + (number << 8 >> (32 - n) << (32 - n)), n)) for number, n in blocks]
    overlap = any(a.overlaps(b) for i, a in enumerate(cidrs) for b in cidrs[:i])

    found = rules(*(line(i, "ok", "acquire", i, f"n{i}", f"subnet {cidr}") for i, cidr in enumerate(cidrs)))

    assert found == ({"double-owner"} if overlap else set())


def test_a_subnet_that_was_let_go_is_free_again_and_so_are_its_parts() -> None:
    lines = [
        line(1, "ok", "acquire", 1, "a", "subnet 10.0.0.0/24"),
        line(2, "invoke", "release", 2, "a", "subnet 10.0.0.0/24"),
        line(3, "ok", "acquire", 3, "b", "subnet 10.0.0.0/25"),
        line(4, "ok", "acquire", 4, "c", "subnet 10.0.0.128/25"),
    ]

    assert rules(*lines) == set()


def test_what_is_owned_in_the_end_must_be_there_and_what_was_released_must_be_gone() -> None:
    owned = line(1, "ok", "acquire", 1, "a", "name x")
    quiet = {"time": 5, "type": "ok", "f": "held", "op": 9, "value": {"name y": "b"}, "gone": {"name y": "b"}}

    assert rules(owned, quiet) == {"lost-ownership", "not-released"}
