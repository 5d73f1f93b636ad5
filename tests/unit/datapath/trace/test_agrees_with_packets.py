"""A trace against packets that are followed through fake kernels: what it finds and what becomes of them must agree."""

from __future__ import annotations

from itertools import permutations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from datapath.fabric import Path
from datapath.trace.hop import Weight
from datapath.trace.trace import Trace
from kvnet.model import Endpoint
from tests.unit.datapath.clusters import World, worlds
from tests.unit.datapath.damage import ALL, inflict
from tests.unit.datapath.oracle import is_at
from tests.unit.datapath.trace.fakes import path_of, traced

thorough = settings(deadline=None, max_examples=60)


def arrives(world: World, one: Endpoint, other: Endpoint, family: int) -> bool:
    """There and back."""
    ways = [(one, other), (other, one)]
    return all(_arrives(world, source, target, family) for source, target in ways)


def _arrives(world: World, source: Endpoint, target: Endpoint, family: int) -> bool:
    address = next(address for address in target.addresses if address.version == family)
    found = world.fabric.reaches(source.host, path_of(source), address.packed)
    return isinstance(found, Path) and is_at(found, target)


OF_LARGE_PACKETS = ("underlay-mtu", "wrong-mtu", "uplink-mtu")  # the fakes have packets of one size


def losing(found: Trace) -> list[str]:
    differences = [(hop, d) for hop in found.hops for d in hop.differences if d.weight is not Weight.NOTE]
    return [f"{hop.host} {hop.kind} {d.code}" for hop, d in differences if d.code not in OF_LARGE_PACKETS]


@st.composite
def pairs(draw: st.DrawFn, *, arriving: bool = False) -> tuple[World, Endpoint, Endpoint, int]:
    """Two endpoints and a family that both have; `arriving`: between which packets pass."""
    world = draw(worlds(min_endpoints=2))
    world.settle()
    attached = [e for e in world.attached() if world.attachments[e.host][e.id].netns]
    found = [
        (one, other, family)
        for one, other in permutations(attached, 2)
        for family in sorted({a.version for a in one.addresses} & {a.version for a in other.addresses})
    ]
    if arriving:
        found = [(one, other, family) for one, other, family in found if arrives(world, one, other, family)]
    assume(found)
    return world, *draw(st.sampled_from(found))


@thorough
@given(pairs())
def test_where_packets_arrive_nothing_that_loses_them_is_found_and_where_they_do_not_something_is(
    pair: tuple[World, Endpoint, Endpoint, int],
) -> None:
    world, one, other, family = pair

    found = traced(world, one, other, family)

    if arrives(world, one, other, family):
        assert not losing(found), losing(found)
    else:
        assert found.finding is not None


@thorough
@given(pairs(arriving=True), st.data())
def test_whatever_damage_loses_packets_is_found(
    pair: tuple[World, Endpoint, Endpoint, int], data: st.DataObject
) -> None:
    world, one, other, family = pair
    kernel = world.kernels[data.draw(st.sampled_from(sorted({one.host, other.host})))]
    inflict(kernel, [(data.draw(st.sampled_from(ALL)), data.draw(st.integers(0, 10_000)))])

    found = traced(world, one, other, family)
    assert arrives(world, one, other, family) or found.finding is not None
