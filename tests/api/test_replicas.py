"""Several controllers on one store: each tells what it wrote, the others follow, and nothing is given out twice."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network

import pytest

from tests.api.under_test import Api, eventually, running, until

pytestmark = pytest.mark.anyio


async def follows(api: Api, path: str, status: int = 200) -> None:
    async def does() -> bool:
        return (await api.get(path)).status_code == status

    await eventually(does)


async def test_what_one_replica_wrote_the_other_tells_soon(shared_store: str) -> None:
    async with running(shared_store) as one, running(shared_store) as two:
        network = await one.network()
        assert (await one.get(f"/v1/networks/{network['id']}")).status_code == 200
        await follows(two, f"/v1/networks/{network['id']}")
        endpoint = await two.endpoint(network["id"])
        path = f"/v1/networks/{network['id']}/endpoints/{endpoint['id']}"
        await follows(one, path)
        assert (await one.delete(path)).status_code == 204
        assert (await one.get(path)).status_code == 404
        await follows(two, path, 404)


async def test_events_of_one_replica_are_told_by_the_other(shared_store: str) -> None:
    async with running(shared_store) as one, running(shared_store) as two, two.events() as events:
        await until(events, lambda e: e.type == "bookmark")
        network = await one.network()
        told = await until(events, lambda e: e.type == "change" and e.data["kind"] == "network.created")
        assert told[-1].data["network"] == network["id"]


async def test_racing_replicas_never_overlap_and_never_give_an_address_twice(shared_store: str) -> None:
    async with running(shared_store) as one, running(shared_store) as two:
        made = await asyncio.gather(*((one, two)[i % 2].post("/v1/networks", {"name": f"n{i}"}) for i in range(24)))
        assert {answer.status_code for answer in made} == {201}
        blocks = [ip_network(subnet["cidr"]) for answer in made for subnet in answer.json()["subnets"]]
        for i, block in enumerate(blocks):
            assert not any(block.overlaps(other) for other in blocks[:i] if other.version == block.version)
        network = made[0].json()["id"]
        await follows(one, f"/v1/networks/{network}")
        await follows(two, f"/v1/networks/{network}")
        ends = await asyncio.gather(*((one, two)[i % 2].endpoint(network, name=f"e{i}") for i in range(60)))
        for family in ("address", "address6"):
            assert len({end[family] for end in ends}) == 60
        assert (await one.get("/v1/ipam/check")).json()["ok"]


async def test_a_creation_that_is_repeated_at_a_replica_that_lags_says_that_it_was_there(shared_store: str) -> None:
    async with running(shared_store) as one, running(shared_store) as two:
        body = {"name": "n", "id": "0123456789ab"}
        made = [(await replica.post("/v1/networks", body)).status_code for replica in (one, two)]
        for i in range(10):
            path, wanted = "/v1/networks/n/endpoints", {"host": "h1", "name": f"e{i}", "id": f"e{i}"}
            made += [(await replica.post(path, wanted)).status_code for replica in (one, two)]
            many = {"items": [{**wanted, "id": f"m{i}", "name": f"m{i}"}]}
            made += [(await replica.post(path, many)).json()["items"][0]["status"] for replica in (one, two)]
    assert made == [201, 200] * 21


async def test_of_two_replicas_asked_for_one_name_only_one_makes_it(shared_store: str) -> None:
    async with running(shared_store) as one, running(shared_store) as two:
        made = await asyncio.gather(one.post("/v1/networks", {"name": "n"}), two.post("/v1/networks", {"name": "n"}))

        assert sorted(answer.status_code for answer in made) == [201, 409]
