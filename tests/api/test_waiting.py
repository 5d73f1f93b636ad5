"""`?wait=`: every change is answered when the living hosts have it, and says whom it did not wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backends.open import open_store
from backends.store import Delete, Put, Store
from controller.api.answers import ConvergenceOut, EndpointOut, HostOut, NetworkOut, WaitedOut
from kvnet import codec, keys
from kvnet.model import Alive, NetworkObserved, Observed
from tests.api.under_test import DEADLINE_S, Api, eventually, problem_of, running

pytestmark = pytest.mark.anyio

MERGE = {"Content-Type": "application/merge-patch+json"}


class Workers:
    """Hosts that are alive, and report what a test has them report."""

    def __init__(self, api: Api, store: Store) -> None:
        self.api, self.store = api, store

    async def live(self, *hosts: str) -> None:
        await self.store.commit([], [Put(keys.alive(h), codec.encode(Alive(h, "i1", 0.0))) for h in hosts])

        async def all_live() -> bool:
            found = (await self.api.get("/v1/hosts?alive=true")).json()["items"]
            return set(hosts) <= {host["name"] for host in found}

        await eventually(all_live)

    async def die(self, host: str) -> None:
        await self.store.commit([], [Delete(keys.alive(host))])

    async def apply(self, host: str, **networks: int) -> None:
        told = {id_.removeprefix("n"): NetworkObserved(version, unattached=()) for id_, version in networks.items()}
        await self.store.commit([], [Put(keys.observed(host), codec.encode(Observed(host, 1.0, told)))])

    async def apply_all(self, *hosts: str, network: str) -> None:
        """Whatever there is now."""
        for host in hosts:
            version = (await self.api.get(f"/v1/networks/{network}/convergence")).json()["version"]
            await self.apply(host, **{f"n{network}": version})


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async with running("memory://") as api, await open_store(api.url) as store:
        workers = Workers(api, store)
        await workers.live("h1", "h2")
        yield workers


async def answered(task: asyncio.Task[Any]) -> Any:
    async with asyncio.timeout(DEADLINE_S):
        return await task


async def patched(api: Api, path: str, body: dict[str, Any]) -> Any:
    return await api.http.patch(path, json=body, headers=MERGE)


async def test_a_changed_network_is_waited_for_on_every_living_host(workers: Workers) -> None:
    api = workers.api
    net = (await api.network())["id"]
    for host in ("h1", "h2"):
        await api.endpoint(net, host=host)
    waiting = asyncio.create_task(patched(api, f"/v1/networks/{net}?wait=converged", {"labels": {"a": "1"}}))

    async def is_changed() -> bool:
        return bool((await api.get(f"/v1/networks/{net}")).json()["labels"])

    await eventually(is_changed)
    await workers.apply_all("h1", network=net)

    async def h2_is_left() -> bool:
        return bool((await api.get(f"/v1/networks/{net}")).json()["applied"]["waiting_for"] == ["h2"])

    await eventually(h2_is_left)
    assert not waiting.done()
    await workers.apply_all("h2", network=net)
    answer = await answered(waiting)

    assert answer.status_code == 200
    assert NetworkOut.model_validate(answer.json()).applied.model_dump() == {
        "converged": True,
        "waiting_for": [],
        "away": [],
    }


async def test_who_is_down_is_named_and_not_waited_for(workers: Workers) -> None:
    api = workers.api
    net = (await api.network())["id"]
    made = await api.endpoint(net, host="h1")
    await workers.die("h1")

    async def is_down() -> bool:
        return not (await api.get("/v1/hosts/h1")).json()["alive"]

    await eventually(is_down)
    changed = await patched(api, f"/v1/networks/{net}/endpoints/{made['id']}?wait=30", {"labels": {"a": "1"}})
    deleted = await api.delete(f"/v1/networks/{net}/endpoints/{made['id']}?wait=30")

    assert EndpointOut.model_validate(changed.json()).applied.away == ["h1"]
    assert deleted.status_code == 204 or WaitedOut.model_validate(deleted.json()).applied.converged


async def test_what_is_deleted_is_waited_for_until_no_living_host_has_it(workers: Workers) -> None:
    api = workers.api
    net = (await api.network())["id"]
    made = await api.endpoint(net, host="h1")
    await workers.apply("h1", **{f"n{net}": made["version"]})
    late = await api.delete(f"/v1/networks/{net}/endpoints/{made['id']}?wait=0.05")
    waiting = asyncio.create_task(api.delete(f"/v1/networks/{net}?wait=converged"))

    async def is_gone() -> bool:
        return (await api.get(f"/v1/networks/{net}")).status_code == 404

    await eventually(is_gone)
    assert not waiting.done()
    await workers.apply("h1")
    answer = await answered(waiting)

    assert late.status_code == 200
    assert late.json() == {"applied": {"converged": False, "waiting_for": ["h1"], "away": []}}
    assert answer.status_code == 200
    assert answer.json() == {"applied": {"converged": True, "waiting_for": [], "away": []}}


async def test_peers_are_waited_for_on_the_hosts_of_both(workers: Workers) -> None:
    api = workers.api
    one, other = (await api.network())["id"], (await api.network())["id"]
    await api.endpoint(one, host="h1")
    await api.endpoint(other, host="h2")

    made = await api.post(f"/v1/networks/{one}/peers/{other}?wait=0.05")
    await workers.apply_all("h1", network=one)
    apart = asyncio.create_task(api.delete(f"/v1/networks/{one}/peers/{other}?wait=converged"))

    async def is_apart() -> bool:
        return not (await api.get(f"/v1/networks/{one}")).json()["peers"]

    await eventually(is_apart)
    await workers.apply_all("h1", network=one)
    await workers.apply_all("h2", network=other)
    answer = await answered(apart)

    assert (made.status_code, made.json()["applied"]["waiting_for"]) == (201, ["h1", "h2"])
    assert (answer.status_code, answer.json()["applied"]["converged"]) == (200, True)


async def test_without_wait_a_deletion_has_no_body_and_nothing_waits(workers: Workers) -> None:
    api = workers.api
    net = (await api.network())["id"]
    made = await api.endpoint(net, host="h1")

    assert (await api.delete(f"/v1/networks/{net}/endpoints/{made['id']}")).status_code == 204
    assert (await api.post("/v1/networks/prune?wait=0.05")).json()["applied"] == {
        "converged": True,
        "waiting_for": [],
        "away": [],
    }


@pytest.mark.parametrize("wait", ["-1", "31", "forever", "nan", "inf", ""])
async def test_a_wait_that_is_none_is_refused_and_changes_nothing(workers: Workers, wait: str) -> None:
    net = (await workers.api.network())["id"]
    refused = problem_of(await workers.api.delete(f"/v1/networks/{net}?wait={wait}"), 422, "invalid")

    assert {error["pointer"] for error in refused["errors"]} == {"/query/wait"}
    assert (await workers.api.get(f"/v1/networks/{net}")).status_code == 200


async def test_convergence_tells_of_each_host_what_it_has_and_waits_until_all_have(workers: Workers) -> None:
    api = workers.api
    net = (await api.network())["id"]
    await api.endpoint(net, host="h0")
    made = await api.endpoint(net, host="h1")
    before = ConvergenceOut.model_validate((await api.get(f"/v1/networks/{net}/convergence")).json())
    waiting = asyncio.create_task(api.get(f"/v1/networks/{net}/convergence?wait=converged"))
    await workers.apply("h1", **{f"n{net}": made["version"]})
    after = ConvergenceOut.model_validate((await answered(waiting)).json())

    assert (before.version, before.converged) == (made["version"], False)
    assert [(h.host, h.alive, h.applied) for h in before.hosts] == [("h0", False, 0), ("h1", True, 0)]
    assert before.hosts[1].lag_revisions == made["version"]
    assert 0.0 <= (before.hosts[1].lag_seconds or 0.0) < DEADLINE_S
    assert after.converged
    assert (after.hosts[1].lag_revisions, after.hosts[1].lag_seconds) == (0, 0.0)
    problem_of(await api.get("/v1/networks/no-such/convergence?wait=1"), 404, "not-found")


async def test_a_network_that_goes_while_its_convergence_is_waited_for_is_not_found(workers: Workers) -> None:
    api = workers.api
    net = (await api.network())["id"]
    made = await api.endpoint(net, host="h1")
    waiting = asyncio.create_task(api.get(f"/v1/networks/{net}/convergence?wait=converged"))
    await asyncio.wait((waiting,), timeout=0.05)
    await api.delete(f"/v1/networks/{net}/endpoints/{made['id']}")
    await api.delete(f"/v1/networks/{net}")
    await workers.apply("h1")

    assert (await answered(waiting)).status_code in (200, 404)


async def test_a_network_an_endpoint_and_a_host_have_the_same_words_for_how_they_are(workers: Workers) -> None:
    api = workers.api
    net = (await api.network())["id"]
    made = await api.endpoint(net, host="h1")
    await workers.apply("h1", **{f"n{net}": made["version"]})

    async def is_ready() -> bool:
        found = (await api.get(f"/v1/networks/{net}/endpoints/{made['id']}")).json()
        EndpointOut.model_validate(found)
        return [c["status"] for c in found["status"]["conditions"]] == ["true", "true"]

    await eventually(is_ready)
    NetworkOut.model_validate((await api.get(f"/v1/networks/{net}")).json())
    HostOut.model_validate((await api.get("/v1/hosts/h1")).json())
