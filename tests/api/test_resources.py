"""Networks, endpoints, pools and reservations over HTTP, from making to removing; and who may overwrite whom."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from backends.open import open_store
from backends.store import Put
from controller.api import answers
from kvnet import codec, keys
from kvnet.model import Alive, NetworkObserved, Observed
from tests.api.under_test import DEADLINE_S, Api, eventually, pointers, problem_of, running

pytestmark = pytest.mark.anyio


async def test_a_network_needs_nothing_but_a_name(api: Api) -> None:
    name = api.fresh()
    answer = await api.post("/v1/networks", {"name": name})

    assert answer.status_code == 201
    network = answers.NetworkOut.model_validate(answer.json())
    assert network.name == name
    assert network.driver == "overlay"
    assert network.ipv6
    assert network.vni is not None
    assert network.used == network.endpoints == 0
    assert answer.headers["location"] == f"/v1/networks/{network.id}"
    assert answer.headers["etag"] == f'"{network.version}"'


async def test_a_network_is_found_by_name_and_by_id_until_it_is_deleted(api: Api) -> None:
    network = await api.network()

    for key in (network["name"], network["id"]):
        assert (await api.get(f"/v1/networks/{key}")).json() == network
    assert (await api.delete(f"/v1/networks/{network['name']}")).status_code == 204
    problem_of(await api.get(f"/v1/networks/{network['id']}"), 404, "not-found")


async def test_explicit_subnets_are_kept_as_given(api: Api) -> None:
    subnet = {
        "cidr": "10.77.0.0/24",
        "gateway": "10.77.0.254",
        "range": "10.77.0.128/25",
        "reserved": {"dns": "10.77.0.2"},
    }
    network = await api.network(subnets=[subnet])

    kept = network["subnets"][0]
    assert {name: kept[name] for name in subnet} == subnet
    await api.delete(f"/v1/networks/{network['id']}")


async def test_an_endpoint_gets_an_address_of_each_family_and_a_mac(api: Api) -> None:
    network = await api.network()
    answer = await api.post(f"/v1/networks/{network['name']}/endpoints", {"host": "h1", "name": "web"})

    assert answer.status_code == 201
    endpoint = answers.EndpointOut.model_validate(answer.json())
    assert endpoint.address is not None
    assert endpoint.address6 is not None
    assert endpoint.addresses == [endpoint.address, endpoint.address6]
    assert endpoint.mac.startswith("02:")
    assert (endpoint.network, endpoint.network_name) == (network["id"], network["name"])
    path = answer.headers["location"]
    assert path == f"/v1/networks/{network['id']}/endpoints/{endpoint.id}"
    assert (await api.get(path)).json() == answer.json()
    assert (await api.get(f"/v1/networks/{network['id']}")).json()["endpoints"] == 1


async def test_a_deleted_endpoint_is_gone_and_its_address_cools_down(api: Api) -> None:
    network = await api.network(subnets=[{"cidr": "10.78.0.0/24"}])
    endpoint = await api.endpoint(network["id"], address="10.78.0.9")
    path = f"/v1/networks/{network['id']}/endpoints/{endpoint['id']}"

    assert (await api.delete(path)).status_code == 204
    problem_of(await api.get(path), 404, "not-found")
    holder = (await api.get("/v1/ipam/addresses/10.78.0.9")).json()["holders"][0]
    assert holder["kind"] == "tombstone"
    await api.delete(f"/v1/networks/{network['id']}")


async def test_a_network_with_endpoints_is_not_deleted_and_the_problem_names_them(api: Api) -> None:
    network = await api.network()
    endpoint = await api.endpoint(network["id"])

    problem = problem_of(await api.delete(f"/v1/networks/{network['id']}"), 409, "network-in-use")
    assert endpoint["name"] in json.dumps(problem)
    assert (await api.get(f"/v1/networks/{network['id']}")).status_code == 200


async def test_a_name_that_stands_for_several_endpoints_is_ambiguous(api: Api) -> None:
    network = await api.network()
    twins = [await api.endpoint(network["id"], name="twin") for _ in range(2)]

    problem = problem_of(await api.get(f"/v1/networks/{network['id']}/endpoints/twin"), 409, "ambiguous-name")
    assert all(twin["id"] in json.dumps(problem) for twin in twins)


async def test_a_list_of_endpoints_is_answered_item_by_item(api: Api) -> None:
    network = await api.network(subnets=[{"cidr": "10.79.0.0/24"}])
    await api.endpoint(network["id"], address="10.79.0.5")
    items = [
        {"host": "h1", "name": "a"},
        {"host": "h1", "name": "b", "address": "10.79.0.5"},
        {"host": "h2", "name": "c"},
    ]
    answer = await api.post(f"/v1/networks/{network['id']}/endpoints", {"items": items})

    assert answer.status_code == 200
    told = answers.BulkOut.model_validate(answer.json()).items
    assert [item.status for item in told] == [201, 409, 201]
    assert told[1].problem is not None
    assert told[1].problem.code == "address-taken"
    assert told[1].problem.instance == answer.headers["x-request-id"]
    assert len((await api.get(f"/v1/networks/{network['id']}/endpoints")).json()["items"]) == 3


async def test_a_list_with_one_unreadable_item_changes_nothing(api: Api) -> None:
    network = await api.network()
    items = [{"host": "h1", "name": "a"}, {"host": "h1", "name": "b c"}]
    problem = problem_of(await api.post(f"/v1/networks/{network['id']}/endpoints", {"items": items}), 422, "invalid")

    assert pointers(problem) == ["/items/1/name"]
    assert (await api.get(f"/v1/networks/{network['id']}/endpoints")).json()["items"] == []


async def test_what_was_just_written_is_read_on_the_replica_that_answered(api: Api) -> None:
    network = await api.network()

    async def write_and_read(name: str) -> None:
        made = await api.endpoint(network["id"], name=name)
        listed = await api.get(f"/v1/networks/{network['id']}/endpoints?name={name}")
        assert [endpoint["id"] for endpoint in listed.json()["items"]] == [made["id"]]

    await asyncio.gather(*(write_and_read(f"e{i}") for i in range(50)))


async def test_an_unchanged_object_is_not_sent_again(api: Api) -> None:
    network = await api.network()
    path = f"/v1/networks/{network['id']}"
    tag = (await api.get(path)).headers["etag"]

    for asked in (tag, f'"1", {tag}', f"W/{tag}"):
        answer = await api.get(path, **{"If-None-Match": asked})
        assert answer.status_code == 304, asked
        assert answer.content == b""
        assert answer.headers["etag"] == tag
    assert (await api.get(path, **{"If-None-Match": '"1"'})).status_code == 200


async def test_a_delete_with_an_old_version_is_refused_and_told_the_current_one(api: Api) -> None:
    network = await api.network()
    endpoint = await api.endpoint(network["id"])
    for path, version in (
        (f"/v1/networks/{network['id']}/endpoints/{endpoint['id']}", endpoint["version"]),
        (f"/v1/networks/{network['id']}", network["version"]),
    ):
        refused = await api.delete(path, **{"If-Match": '"1"'})
        problem = problem_of(refused, 412, "precondition-failed")
        assert problem["version"] == version
        assert refused.headers["etag"] == f'"{version}"'
        assert (await api.delete(path, **{"If-Match": f'"{version}"'})).status_code == 204


async def test_if_match_star_means_whatever_it_is(api: Api) -> None:
    network = await api.network()

    assert (await api.delete(f"/v1/networks/{network['id']}", **{"If-Match": "*"})).status_code == 204


async def test_unused_networks_are_pruned_after_a_dry_run_told_which(api: Api) -> None:
    used, unused = await api.network(), await api.network()
    await api.endpoint(used["id"])

    dry = answers.PruneOut.model_validate((await api.post("/v1/networks/prune?dry_run=true")).json())
    assert unused["id"] in {network.id for network in dry.deleted}
    assert (await api.get(f"/v1/networks/{unused['id']}")).status_code == 200
    wet = answers.PruneOut.model_validate((await api.post("/v1/networks/prune")).json())
    assert unused["id"] in {network.id for network in wet.deleted}
    problem_of(await api.get(f"/v1/networks/{unused['id']}"), 404, "not-found")
    assert (await api.get(f"/v1/networks/{used['id']}")).status_code == 200


async def test_a_pool_is_made_used_refused_and_removed(api: Api) -> None:
    name = api.fresh("pool")
    body = {"name": name, "cidr": "100.100.0.0/22", "prefix_length": 24}
    made = await api.post("/v1/pools", body)

    assert made.status_code == 201
    assert answers.PoolOut.model_validate(made.json()).subnets_total == 4
    network = await api.network(pool=name, ipv6=False)
    assert network["subnets"][0]["cidr"].startswith("100.100.")
    problem_of(await api.delete(f"/v1/pools/{name}"), 409, "pool-in-use")
    await api.delete(f"/v1/networks/{network['id']}")
    assert (await api.delete(f"/v1/pools/{name}")).status_code == 204
    problem_of(await api.get(f"/v1/pools/{name}"), 404, "not-found")


async def test_the_default_pools_are_there(api: Api) -> None:
    pools = {pool["name"]: pool for pool in (await api.get("/v1/pools")).json()["items"]}

    assert pools["default"]["cidr"] == "10.192.0.0/10"
    assert pools["default6"]["cidr"].startswith("fd")


async def test_a_reserved_address_is_never_given_out(api: Api) -> None:
    network = await api.network(subnets=[{"cidr": "10.80.0.0/29"}])
    path = f"/v1/networks/{network['id']}/reservations"
    made = await api.post(path, {"name": "printer", "address": "10.80.0.3"})

    assert made.status_code == 201
    answers.ReservationOut.model_validate(made.json())
    listed = answers.Page[answers.ReservationOut].model_validate((await api.get(path)).json())
    assert [(one.name, one.address) for one in listed.items] == [("printer", "10.80.0.3")]
    given = {(await api.endpoint(network["id"]))["address"] for _ in range(4)}
    assert "10.80.0.3" not in given
    full = await api.post(f"/v1/networks/{network['id']}/endpoints", {"host": "h1", "name": "one-too-many"})
    problem_of(full, 409, "addresses-exhausted")
    assert (await api.delete(f"{path}/printer")).status_code == 204
    problem_of(await api.delete(f"{path}/printer"), 404, "not-found")


async def test_utilisation_and_holders_are_told(api: Api) -> None:
    network = await api.network(subnets=[{"cidr": "10.81.0.0/24"}])
    endpoint = await api.endpoint(network["id"], address="10.81.0.7")

    use = answers.IpamOut.model_validate((await api.get("/v1/ipam")).json())
    assert next(one for one in use.networks if one.id == network["id"]).endpoints == 1
    assert {pool.name for pool in use.pools} >= {"default", "default6"}
    held = answers.AddressOut.model_validate((await api.get("/v1/ipam/addresses/10.81.0.7")).json())
    assert [(one.kind, one.holder) for one in held.holders] == [("endpoint", endpoint["id"])]
    free = answers.AddressOut.model_validate((await api.get("/v1/ipam/addresses/10.81.0.8")).json())
    assert [one.kind for one in free.holders] == ["free"]
    for cidr in ("10.81.0.0/25", "10.81.0.0%2F25"):
        blocks = answers.SubnetLookupOut.model_validate((await api.get(f"/v1/ipam/subnets/{cidr}")).json())
        assert ("network", "10.81.0.0/24") in {(one.kind, one.cidr) for one in blocks.holders}


async def test_a_sound_store_passes_the_check(api: Api) -> None:
    for answer in (await api.get("/v1/ipam/check"), await api.post("/v1/ipam/check?repair=true")):
        report = answers.CheckOut.model_validate(answer.json())
        assert report.ok, report.findings
        assert report.findings == []


async def test_waiting_for_an_endpoint_ends_with_what_is_known(api: Api) -> None:
    network = await api.network()
    answer = await api.post(f"/v1/networks/{network['id']}/endpoints?wait=0.05", {"host": "h1", "name": "e"})

    assert answer.status_code == 201
    assert isinstance(answer.json()["applied"]["converged"], bool)


async def test_a_creation_waits_until_the_living_hosts_have_applied_it() -> None:
    async with running("memory://") as api, await open_store(api.url) as store:
        await store.commit([], [Put(keys.alive("h1"), codec.encode(Alive("h1", "i1", 0.0)))])
        network = (await api.network())["id"]
        path = f"/v1/networks/{network}/endpoints"
        waiting = asyncio.create_task(api.post(f"{path}?wait=30", {"host": "h1", "name": "e", "id": "e1"}))

        async def is_waited_for() -> bool:
            found = (await api.get(f"{path}/e1")).json()
            return found.get("applied") == {"converged": False, "waiting_for": ["h1"], "away": []}

        await eventually(is_waited_for)
        assert not waiting.done()
        version = (await api.get(f"{path}/e1")).json()["version"]
        seen = Observed("h1", 0.0, {network: NetworkObserved(version)})
        await store.commit([], [Put(keys.observed("h1"), codec.encode(seen))])
        async with asyncio.timeout(DEADLINE_S):
            answer = await waiting
    assert answer.status_code == 201
    assert answer.json()["applied"] == {"converged": True, "waiting_for": [], "away": []}


async def test_a_waiting_creation_does_not_hold_the_server_up() -> None:
    async with running("memory://") as api:
        async with await open_store(api.url) as store:
            await store.commit([], [Put(keys.alive("h1"), codec.encode(Alive("h1", "i1", 0.0)))])
        path = f"/v1/networks/{(await api.network())['id']}/endpoints"
        waiting = asyncio.create_task(api.post(f"{path}?wait=30", {"host": "h1", "name": "e", "id": "e1"}))

        async def is_made() -> bool:
            return (await api.get(f"{path}/e1")).status_code == 200

        await eventually(is_made)
        api.stop.set()
        async with asyncio.timeout(1.0):
            answer = await waiting
    assert answer.status_code == 201
    assert answer.json()["applied"]["waiting_for"] == ["h1"]


async def test_hosts_are_listed_and_an_unknown_one_is_not_found(api: Api) -> None:
    answers.Page[answers.HostOut].model_validate((await api.get("/v1/hosts")).json())
    problem_of(await api.get("/v1/hosts/nobody"), 404, "not-found")


async def test_head_answers_as_get_without_a_body(api: Api) -> None:
    network = await api.network()
    for path in (f"/v1/networks/{network['id']}", "/livez", "/v1/events"):
        answer = await api.http.head(path)
        assert answer.status_code == 200, path
        assert answer.content == b""


async def test_who_asked_is_in_the_journal(api: Api) -> None:
    since = (await api.get("/v1/status")).json()["revision"]
    who = {"X-Kvnet-Actor": "alice@example.com", "X-Request-ID": "req-42"}
    made: dict[str, Any] = (await api.post("/v1/networks", {"name": api.fresh()}, **who)).json()

    async with api.events(f"?since={since}&network={made['id']}") as events, asyncio.timeout(5):
        told = await anext(events)
    assert told.data["actor"] == "alice@example.com"
    assert told.data["request_id"] == "req-42"
    assert told.data["source"] == "127.0.0.1"
    assert told.data["kind"] == "network.created"
