"""A worker's log names the requests whose changes it brought into the kernel."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.store import Change, Delete, Entry, Put
from datapath.objects import DeleteLink
from kvnet import codec, keys
from kvnet.errors import NotFound
from kvnet.model import Network
from kvnet.request import asked_by
from tests.unit.worker.fake_controller import overlay
from tests.unit.worker.kit import Running, World, until
from tests.unit.worker.life import NET
from worker.provenance import MOST, Origins

C1 = "/run/netns/c1"


def told(running: Running, event: str) -> list[str]:
    return [line for line in running.log.getvalue().splitlines() if line.split(" ")[2] == event]


def ids_in(lines: list[str]) -> list[str]:
    found = (re.search(r"request_ids=(\S+)", line) for line in lines)
    return [one for match in found if match for one in match[1].split(",")]


@pytest.mark.anyio
async def test_one_request_is_named_by_every_host_that_applied_its_change(world: World) -> None:
    h1, h2 = await world.start("h1"), await world.start("h2")
    for running in (h1, h2):
        running.host.add_namespace(C1)
        await running.attach("c1", name=f"c-{running.host.name}")

    with asked_by("made-by-me"):
        await world.create_endpoint("third", "h1")
    await until(lambda: all("made-by-me" in ids_in(told(one, "applied")) for one in (h1, h2)))

    line = next(line for line in told(h2, "applied") if "made-by-me" in line)
    assert f"network=my-net network_id={NET} revision=" in line
    assert re.search(r" operations=[1-9]\d* duration_ms=", line), line


@pytest.mark.anyio
async def test_an_attach_is_one_request_from_the_caller_to_the_kernel(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    with asked_by("the-attach"):
        await h1.attach("c1")

    assert ids_in(told(h1, "applied")) == ["the-attach"]
    assert [line for line in told(h1, "attached") if "request_id=the-attach" in line]


@pytest.mark.anyio
async def test_an_attach_that_is_refused_is_told_with_its_request_and_the_reason(world: World) -> None:
    h1 = await world.start()
    with asked_by("the-attach"), pytest.raises(NotFound):
        await h1.attach("c1")  # there is no such namespace

    [line] = told(h1, "attach-failed")
    assert "request_id=the-attach" in line
    assert "network=my-net name=c1 code=namespace-not-found" in line


@pytest.mark.anyio
async def test_a_restart_tells_nothing_of_what_the_kernel_has_already(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    with asked_by("before"):
        await h1.attach("c1")
    await world.stop()

    h1 = await world.start()
    await until(lambda: h1.worker.reconciler.is_up_to(NET, 1))

    assert not told(h1, "applied")


@pytest.mark.anyio
async def test_a_change_without_an_operation_is_told_as_applied(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1")
    network = overlay()
    labelled = Network(
        network.id, network.name, network.driver, network.subnets, 1.0, vni=network.vni, labels={"a": "b"}
    )
    put = Put(keys.network(NET), codec.stamped(codec.encode(labelled), "the-label"))
    await world.client().commit([], [put])
    await until(lambda: "the-label" in ids_in(told(h1, "applied")))

    assert "operations=0" in next(line for line in told(h1, "applied") if "the-label" in line)


@pytest.mark.anyio
async def test_what_somebody_undid_is_told_as_repaired_and_names_no_request(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    with asked_by("the-attach"):
        await h1.attach("c1")
    await until(lambda: h1.worker.reconciler.statistics.passes > 1)
    bridge = next(link for name, link in h1.host.tables.links.items() if name.startswith("kvx"))

    await h1.host.apply([DeleteLink(bridge)])
    await until(lambda: bool(told(h1, "repaired")))

    assert "request_ids" not in told(h1, "repaired")[0]
    assert "network=my-net" in told(h1, "repaired")[0]


@pytest.mark.anyio
async def test_a_removal_names_what_went_and_who_removed_it(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1", id="e1")
    with asked_by("the-detach"):
        await h1.detach(id="e1")
    await until(lambda: any("removed=e1" in line for line in told(h1, "applied")))

    assert ids_in([line for line in told(h1, "applied") if "removed=e1" in line]) == ["the-detach"]


@pytest.mark.anyio
async def test_a_removal_that_the_controller_hears_of_after_the_host_is_asked_for_again(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1", id="e1")
    h1.controller.slow_to_know = 2

    with asked_by("the-detach"):
        await h1.detach(id="e1")
    await until(lambda: any("removed=e1" in line for line in told(h1, "applied")))

    assert ids_in([line for line in told(h1, "applied") if "removed=e1" in line]) == ["the-detach"]


@pytest.mark.anyio
async def test_a_removal_is_told_also_when_nobody_can_say_whose_it_was(world: World) -> None:
    h1 = await world.start()
    h1.host.add_namespace(C1)
    await h1.attach("c1", id="e1")
    world.outages.controller = True
    await world.client().commit([], [Delete(keys.endpoint(NET, "e1")), Delete(keys.local("h1", "e1"))])
    await until(lambda: any("removed=e1" in line for line in told(h1, "applied")))


@given(st.integers(0, 300), st.randoms(use_true_random=False))
def test_what_waits_is_bounded_and_given_out_once(number: int, rng: random.Random) -> None:
    origins, marks, seen = Origins(), [], 0
    for i in range(number):
        data = codec.stamped(b'{"v":1,"id":"x"}', f"r{i}")
        origins.note([Change(f"endpoints/n/e{i}", Entry(f"endpoints/n/e{i}", data, i + 1))], i + 1)
        if rng.random() < 0.05:
            marks.append(origins.mark)
            brought = origins.take(origins.mark)
            assert len(brought.stamps) <= MOST
            seen += len(brought.stamps) + brought.more
    last = origins.take(origins.mark)
    assert seen + len(last.stamps) + last.more == number
    assert origins.take(origins.mark).stamps == ()


@pytest.mark.anyio
async def test_what_a_look_finds_still_to_be_built_is_no_repair(world: World) -> None:
    """A runtime's interface comes in steps, and each is found by a look at the kernel."""
    h1 = await world.start()
    h1.host.add_namespace(C1)
    record = await h1.workloads.claim("my-net", {"name": "d1"}, runtime="docker")
    await h1.workloads.hand_over(record.endpoint, C1)
    h1.host.move(next(iter(h1.host.waiting())), C1, "eth0")
    await h1.workloads.settle(record.endpoint)
    await until(lambda: h1.worker.reconciler.statistics.passes > 3)

    assert not told(h1, "repaired")


def test_a_request_of_many_changes_is_named_by_every_pass_that_brought_some() -> None:
    origins = Origins()

    def tell(number: int, request_id: str) -> None:
        data = codec.stamped(b'{"v":1,"id":"x"}', request_id)
        origins.note([Change(f"endpoints/n/e{number}", Entry(f"endpoints/n/e{number}", data, number))], number)

    tell(1, "many")
    planned = origins.mark
    tell(2, "many")
    tell(3, "other")

    assert origins.take(planned).request_ids == ["many"]
    assert origins.take(origins.mark).request_ids == ["many", "other"]
    assert origins.take(origins.mark).request_ids == []
