"""Proof of life, and the fence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from backends.store import Check, Delete, Revision, Unavailable, Write
from kvnet import codec, keys
from kvnet.errors import HostFenced
from kvnet.model import Alive, Host, Inventory, Observed
from tests.unit.worker.kit import MortalStore, Running, World, until, veth
from tests.unit.worker.life import NET
from worker.source import Mode

pytestmark = pytest.mark.anyio
C1 = "/run/netns/c1"


def alive(world: World) -> Alive:
    return codec.decode(Alive, world.state.entries[keys.alive("h1")].value)


async def test_a_worker_tells_what_peers_and_controller_need(world: World) -> None:
    h1 = await world.start()
    assert codec.decode(Host, world.state.entries[keys.host("h1")].value).underlay == h1.host.address
    assert codec.decode(Inventory, world.state.entries[keys.inventory("h1")].value).boot_id == "boot-1"
    assert alive(world).host == "h1"


async def test_nothing_is_written_again_while_nothing_changes(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    await asyncio.sleep(5)
    h1.store.commits.clear()
    await asyncio.sleep(3600)
    assert h1.store.commits == []
    assert alive(world)


async def test_a_changed_mtu_is_told(world: World) -> None:
    h1 = await world.start()
    h1.host.mtu = 9000
    await until(lambda: codec.decode(Host, world.state.entries[keys.host("h1")].value).mtu == 9000)


async def test_a_host_record_that_somebody_removed_is_written_again(world: World) -> None:
    await world.start()
    await world.client().commit([], [Delete(keys.host("h1")), Delete(keys.alive("h1"))])
    await until(lambda: keys.host("h1") in world.state.entries and keys.alive("h1") in world.state.entries)


async def test_a_lost_session_fences_the_host_until_it_has_seen_the_current_state(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1", id="e1")
    before = h1.host.state()
    world.state.end_session(h1.worker.lifeline.session_id)
    world.outages.store = True
    await until(lambda: not h1.worker.lifeline.is_open)
    with pytest.raises(HostFenced):
        await h1.attach("c1", name="another")
    assert h1.host.state() == before, "the data plane stays as it is"
    world.outages.store = False
    await until(lambda: h1.worker.lifeline.is_open)
    await h1.attach("c1", name="another")


async def test_a_host_that_cannot_reach_the_store_fences_itself_by_its_own_clock(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)

    async def unreachable(session_id: str, ttl_s: float) -> None:
        raise Unavailable("the store is away")

    monkeypatch.setattr(h1.store.inner, "_refresh", unreachable)
    world.outages.store = True
    await asyncio.sleep(world.timing.ttl_s + 1)
    with pytest.raises(HostFenced):
        await h1.attach("c1")


async def test_a_restart_within_the_ttl_takes_the_session_over(world: World) -> None:
    first = await world.start()
    session, incarnation = first.worker.lifeline.session_id, alive(world).incarnation
    await world.crash()
    second = await world.start()
    assert second.worker.lifeline.session_id == session
    assert alive(world).incarnation == second.worker.lifeline._incarnation
    assert incarnation


async def test_a_restart_whose_first_words_are_lost_still_takes_the_session_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice in a row, the worker being killed in between: what is in the store is still the first one's."""
    await world.start()
    await world.crash()
    commit, is_away = MortalStore.commit, True

    async def flaky(self: MortalStore, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        if is_away and any(write.key == keys.alive("h1") for write in writes):
            raise Unavailable("the store is away")
        return await commit(self, checks, writes)

    monkeypatch.setattr(MortalStore, "commit", flaky)
    for _ in range(2):
        still_away = await world.start(ready=False)
        await until(lambda worker=still_away: worker.worker.lifeline.problem is not None)
        await asyncio.sleep(30)
        assert not still_away.worker.lifeline.is_disputed, "nobody else has this host's name"
        await world.crash()
    third = await world.start(ready=False)
    is_away = False
    await third.until_ready()
    assert alive(world).incarnation == third.worker.lifeline._incarnation


async def test_a_run_that_could_not_write_down_who_it_was_bars_its_successor_for_one_ttl_only(world: World) -> None:
    """Its successor takes over the session on disk, which is the one that keeps the name taken: it lets go of it."""
    await world.start()
    await world.crash()
    second = await world.start(ready=False)
    second.state.is_full = True
    await until(lambda: second.worker.lifeline.is_open)
    await world.crash()
    third = await world.start(ready=False)
    await asyncio.sleep(world.timing.ttl_s * 2)
    assert third.worker.lifeline.is_open
    assert alive(world).incarnation == third.worker.lifeline._incarnation


async def test_a_second_worker_of_the_same_name_does_not_push_the_first_one_out(world: World) -> None:
    first = await world.start("h1")
    del world.running["h1"]
    keep = world.directory
    world.directory = keep / "elsewhere"
    second = await world.start("h1", ready=False)
    await asyncio.sleep(60)
    assert not second.worker.lifeline.is_open
    assert {c["code"] for c in (await second.status())["conditions"]} == {"host-name-taken"}
    assert first.worker.lifeline.is_open
    second.host.add_namespace(C1)
    with pytest.raises(HostFenced):
        await second.attach("c1")
    world.running["first"] = first


async def reports(world: World, worker: Running) -> list[Observed]:
    return [commit for commit in worker.store.commits if keys.observed("h1") in commit]  # type: ignore[misc]


async def test_a_report_comes_at_once_after_a_quiet_spell_then_once_a_second(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1", id="e1")
    await asyncio.sleep(10)
    h1.store.commits.clear()
    await world.register("h2")
    await world.create_endpoint("p0", "h2")
    await asyncio.sleep(0.1)
    assert len(await reports(world, h1)) == 1
    for number in range(1, 41):
        await world.create_endpoint(f"p{number}", "h2")
        await asyncio.sleep(0.1)
    await asyncio.sleep(2)
    assert 4 <= len(await reports(world, h1)) <= 7
    observed = codec.decode(Observed, world.state.entries[keys.observed("h1")].value)
    assert observed.networks[NET].version == world.state.entries[keys.endpoint(NET, "e-p40")].version


async def test_the_reported_version_covers_the_endpoint(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    answer = await h1.attach("c1", id="e1")

    def is_reported() -> bool:
        entry = world.state.entries.get(keys.observed("h1"))
        networks = codec.decode(Observed, entry.value).networks if entry else {}
        return NET in networks and networks[NET].version >= answer["endpoint"]["version"]

    await until(is_reported, seconds=1.5)
    assert veth("e1") in h1.host.tables.links


async def test_a_second_worker_of_the_same_name_builds_nothing_not_even_after_an_outage(world: World) -> None:
    """The networks are in step before the session is: until the name is known to be ours they are another's."""
    first = await world.start("h1")
    first.host.add_namespace(C1)
    await first.attach("c1", id="e1")
    del world.running["h1"], world.hosts["h1"]  # the other one runs on another machine
    world.directory = world.directory / "elsewhere"

    second = await world.start("h1", ready=False)
    await until(lambda: second.worker.lifeline.is_disputed, seconds=60)
    world.outages.store = True
    await asyncio.sleep(5)
    world.outages.store = False
    await asyncio.sleep(0.1)

    assert second.worker.lifeline.is_disputed
    assert not second.host.tables.links
    assert second.worker.source.mode() is not Mode.LIVE
    world.running["first"] = first
