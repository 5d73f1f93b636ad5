"""Networks as Docker makes them: first their subnets, then the network, and its name at the end."""

from __future__ import annotations

from typing import Any

import pytest

from kvnet.client import Client
from kvnet.errors import HoldGone, NetworkNamed, NetworkNaming
from tests.api.under_test import Api, pointers, problem_of, until

pytestmark = pytest.mark.anyio


async def hold(api: Api, **more: Any) -> dict[str, Any]:
    answer = await api.post("/v1/holds", {"host": "h1", **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def nameless(api: Api, *holds: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = await api.post("/v1/networks", {"holds": [one["id"] for one in holds], "naming": True, **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_a_subnet_is_held_then_a_networks_and_the_network_gets_its_name_last(api: Api) -> None:
    v4, v6 = await hold(api), await hold(api, version=6)
    docker = {"options": {"driver": "overlay"}, "labels": {"a": "b"}, "attachable": True, "host": "h1"}

    made = await nameless(api, v4, v6, docker=docker)
    name = api.fresh("web")
    named = (await api.post(f"/v1/networks/{made['id']}/name", {"name": name})).json()

    assert made["id"] == v4["id"]
    assert (made["name"], made["state"]) == (f"docker-{v4['id']}", "naming")
    assert [subnet["cidr"] for subnet in made["subnets"]] == [v4["cidr"], v6["cidr"]]
    assert made["docker"] == {"ipam_options": {}, "ipv6": False, **docker}
    assert made["labels"] == {"a": "b"}
    assert (named["name"], named["state"], named["id"]) == (name, "active", made["id"])
    assert (await api.get(f"/v1/networks/{name}")).json()["docker"] == made["docker"]
    assert (await api.get(f"/v1/networks/{made['name']}")).status_code == 404
    assert (await api.get("/v1/holds")).json()["items"] == []


async def test_errors_about_its_addresses_tell_its_name_as_soon_as_it_has_one(api: Api) -> None:
    for driver in ("overlay", "routed"):
        network = await nameless(api, await hold(api), driver=driver)
        await api.get(f"/v1/networks/{network['id']}?view=full")
        await api.get(f"/v1/networks/{network['id']}/addresses")
        name = api.fresh("web")
        await api.post(f"/v1/networks/{network['id']}/name", {"name": name})

        body = {"host": "h1", "name": "c1", "address": network["subnets"][0]["cidr"].replace(".0/24", ".0")}
        refused = await api.post(f"/v1/networks/{name}/endpoints", body)

        assert name in refused.json()["detail"], refused.text


async def test_what_is_repeated_is_the_same_and_not_a_second_one(api: Api) -> None:
    held = await hold(api)
    body = {"holds": [held["id"]], "naming": True, "docker": {"labels": {"x": "y"}}}
    name = api.fresh("web")

    first = await api.post("/v1/networks", body)
    again = await api.post("/v1/networks", body)
    named = await api.post(f"/v1/networks/{held['id']}/name", {"name": name})
    named_again = await api.post(f"/v1/networks/{held['id']}/name", {"name": name})
    late = await api.post("/v1/networks", body)

    assert [first.status_code, again.status_code, late.status_code] == [201, 200, 200]
    assert again.json() == first.json()
    assert named.status_code == named_again.status_code == 200
    assert named.json() == named_again.json() == late.json()


async def test_the_client_makes_and_names_a_network_and_its_errors_are_what_they_are(api: Api) -> None:
    name = api.fresh("web")
    async with Client(api.url) as client:
        held = await client.hold_subnet({"host": "h1"})
        spare = await client.hold_subnet({"host": "h1"})
        made = await client.create_network({"holds": [held["id"]], "naming": True, "docker": {"host": "h1"}})
        with pytest.raises(NetworkNaming):
            await client.create_endpoint(made["id"], {"host": "h1", "name": "c1"})
        named = await client.name_network(made["id"], {"name": name})
        await client.release_hold(spare["id"])
        with pytest.raises(HoldGone):
            await client.create_network({"holds": [spare["id"]], "naming": True})
        with pytest.raises(NetworkNamed):
            await client.name_network(made["id"], {"name": "other"})
        left = [hold["id"] async for hold in client.holds(host="h1")]

    assert named["docker"] is not None
    assert (named["name"], named["state"], named["docker"]["host"]) == (name, "active", "h1")
    assert not {held["id"], spare["id"]} & set(left)


async def test_an_idempotency_key_changes_nothing_where_holds_say_which_network_it_is(api: Api) -> None:
    held = await hold(api)
    body = {"holds": [held["id"]], "naming": True}

    made = [await api.post("/v1/networks", body, **{"Idempotency-Key": "a-key"}) for _ in range(2)]

    assert [(one.status_code, one.json()["id"]) for one in made] == [(201, held["id"]), (200, held["id"])]


async def test_the_making_of_a_network_is_told_as_it_happens(api: Api) -> None:
    async with api.events() as events:
        await until(events, lambda e: e.type == "bookmark")
        held = await hold(api)
        made = await nameless(api, held)
        await api.post(f"/v1/networks/{made['id']}/name", {"name": api.fresh("web")})
        spare = await hold(api)
        await api.delete(f"/v1/holds/{spare['id']}")
        told = await until(events, lambda e: e.data.get("kind") == "hold.released")

    kinds = [event.data["kind"] for event in told if event.type == "change" and event.data["source"] != "status"]
    assert kinds == ["hold.created", "network.created", "network.named", "hold.created", "hold.released"]


async def test_a_hold_is_listed_and_found_and_released_as_often_as_one_likes(api: Api) -> None:
    held = await hold(api, cidr="10.77.0.0/24")

    listed = (await api.get("/v1/holds?host=h1")).json()["items"]
    others = (await api.get("/v1/holds?host=h2")).json()["items"]
    found = await api.get(f"/v1/holds/{held['id']}")
    released = [(await api.delete(f"/v1/holds/{held['id']}")).status_code for _ in range(2)]

    assert held in listed
    assert held not in others
    assert found.json() == held
    assert released == [204, 204]
    problem_of(await api.get(f"/v1/holds/{held['id']}"), 404, "not-found")


async def test_nobody_else_gets_what_is_held_and_is_told_who_has_it(api: Api) -> None:
    held = await hold(api, cidr="10.78.0.0/24")

    for answer in (
        await api.post("/v1/holds", {"host": "h2", "cidr": "10.78.0.0/25"}),
        await api.post("/v1/networks", {"name": api.fresh(), "subnets": [{"cidr": "10.78.0.0/16"}]}),
    ):
        told = problem_of(answer, 409, "subnet-taken")
        assert (told["hold"], told["host"], told["network"], told["cidr"]) == (True, "h1", "", held["cidr"])
        assert "held for a network that host h1" in told["detail"]
        assert "or wait a minute" in told["fix"]
    holders = (await api.get("/v1/ipam/subnets/10.78.0.0/24")).json()["holders"]
    assert ("hold", held["id"]) in [(h["kind"], h["holder"]) for h in holders]


async def test_a_subnet_of_a_network_is_not_held_again_and_the_problem_names_the_network(api: Api) -> None:
    made = await api.network(subnets=[{"cidr": "10.79.0.0/24"}])

    told = problem_of(await api.post("/v1/holds", {"host": "h1", "cidr": "10.79.0.0/24"}), 409, "subnet-taken")

    assert (told["network"], told["name"], told["hold"]) == (made["id"], made["name"], False)
    assert told["cidr"] == "10.79.0.0/24"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/host"),
        ({"host": "h1", "version": 5}, "/version"),
        ({"host": "h1", "cidr": "10.1.0.1/24"}, "/cidr"),
        ({"host": "h1", "version": 4, "cidr": "fd00:1::/64"}, "/cidr"),
        ({"host": "h1", "cidr": "127.0.0.0/24"}, "/cidr"),
        ({"host": "h1", "cidr": "10.1.0.0/31"}, "/cidr"),
        ({"host": "h1", "cidr": "10.1.0.0/24", "pool": "default"}, "/pool"),
        ({"host": "h1", "pool": "default6"}, "/pool"),
        ({"host": "h1", "prefix_length": 3}, "/prefix_length"),
        ({"host": "h1", "nonsense": 1}, "/nonsense"),
    ],
)
async def test_a_bad_hold_is_refused_at_the_field_and_nothing_is_held(
    api: Api, body: dict[str, Any], pointer: str
) -> None:
    before = (await api.get("/v1/holds")).json()["items"]

    assert pointers(problem_of(await api.post("/v1/holds", body), 422, "invalid")) == [pointer]

    assert (await api.get("/v1/holds")).json()["items"] == before


async def test_a_host_or_a_pool_that_is_not_there_holds_nothing(api: Api) -> None:
    problem_of(await api.post("/v1/holds", {"host": "nowhere"}), 404, "not-found")
    problem_of(await api.post("/v1/holds", {"host": "h1", "pool": "nowhere"}), 404, "not-found")


async def test_a_network_cannot_name_a_hold_that_is_over_or_for_something_else(api: Api) -> None:
    held = await hold(api)
    await api.delete(f"/v1/holds/{held['id']}")
    gone = await api.post("/v1/networks", {"naming": True, "holds": [held["id"]]})
    other = await hold(api)
    elsewhere = await api.post(
        "/v1/networks", {"naming": True, "holds": [other["id"]], "subnets": [{"cidr": "10.80.0.0/24"}]}
    )
    stranger = await api.post("/v1/networks", {"naming": True, "holds": [other["id"]], "docker": {"host": "h2"}})

    assert problem_of(gone, 409, "hold-gone")["hold"] == held["id"]
    assert problem_of(elsewhere, 409, "hold-mismatch")["cidr"] == other["cidr"]
    assert problem_of(stranger, 409, "hold-mismatch")["host"] == "h1"
    assert (await api.get(f"/v1/holds/{other['id']}")).status_code == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/name"),
        ({"naming": True, "name": "web"}, "/name"),
        ({"naming": True, "holds": ["0" * 12], "id": "1" * 12}, "/id"),
        ({"naming": True, "holds": ["0" * 12] * 2}, "/holds"),
        ({"naming": True, "holds": ["0"]}, "/holds/0"),
        ({"naming": True, "docker": {"options": {str(n): "" for n in range(257)}}}, "/docker/options"),
        ({"naming": True, "docker": {"labels": {"a": "x" * 40_000}}}, "/docker"),
        ({"naming": True, "docker": {"host": "no host"}}, "/docker/host"),
        ({"naming": True, "docker": {"other": "x"}}, "/docker/other"),
    ],
)
async def test_a_bad_network_of_dockers_is_refused_at_the_field(api: Api, body: dict[str, Any], pointer: str) -> None:
    assert pointers(problem_of(await api.post("/v1/networks", body), 422, "invalid")) == [pointer]


async def test_labels_of_dockers_that_no_label_could_be_are_kept_as_they_are(api: Api) -> None:
    odd = {"": "empty", "fine": "yes", "lines": "a\nb", "long": "x" * 2000, "zero": "\u0000"}

    made = await api.network(docker={"labels": odd}, labels={"fine": "mine"})

    assert made["docker"]["labels"] == odd
    assert made["labels"] == {"fine": "mine"}


async def test_a_nameless_network_takes_nothing_and_can_be_deleted(api: Api) -> None:
    made = await nameless(api, await hold(api))
    other = await api.network()
    path = f"/v1/networks/{made['id']}"

    for answer in (
        await api.post(f"{path}/endpoints", {"host": "h1", "name": "c1"}),
        await api.post(f"{path}/reservations", {"name": "printer"}),
        await api.http.patch(path, json={"labels": {"a": "b"}}),
        await api.post(f"{path}/peers/{other['id']}"),
    ):
        told = problem_of(answer, 409, "network-naming")
        assert told["network"] == made["id"]
        assert told["fix"]
    assert made["id"] not in [n["id"] for n in (await api.post("/v1/networks/prune?dry_run=true")).json()["deleted"]]
    assert made["id"] in [n["id"] for n in (await api.get("/v1/networks?limit=500")).json()["items"]]
    assert (await api.delete(path)).status_code == 204
    problem_of(await api.post(f"{path}/name", {"name": api.fresh()}), 404, "not-found")


async def test_a_name_is_given_once_and_only_to_one(api: Api) -> None:
    one, other = await nameless(api, await hold(api)), await nameless(api, await hold(api))
    name = api.fresh("web")
    await api.post(f"/v1/networks/{one['id']}/name", {"name": name})

    taken = problem_of(await api.post(f"/v1/networks/{other['id']}/name", {"name": name}), 409, "name-taken")
    named = problem_of(await api.post(f"/v1/networks/{one['id']}/name", {"name": "x"}), 409, "network-named")
    itself = await api.post(f"/v1/networks/{other['id']}/name", {"name": other["name"]})
    an_id = await api.post(f"/v1/networks/{other['id']}/name", {"name": "0" * 12})

    assert taken["network"] == one["id"]
    assert named["name"] == name
    assert pointers(problem_of(itself, 422, "invalid")) == ["/name"]
    assert pointers(problem_of(an_id, 422, "invalid")) == ["/name"]
    assert (await api.get(f"/v1/networks/{other['id']}")).json() == other


async def test_the_name_may_bring_what_docker_told_only_then(api: Api) -> None:
    made = await nameless(api, await hold(api), docker={"labels": {"old": "1"}}, labels={"mine": "1"})

    named = await api.post(
        f"/v1/networks/{made['id']}/name",
        {"name": api.fresh(), "docker": {"labels": {"new": "1"}, "attachable": True}, "labels": {"more": "1"}},
    )

    assert named.json()["docker"]["attachable"] is True
    assert named.json()["labels"] == {"mine": "1", "new": "1", "more": "1"}


async def test_a_plan_of_a_network_with_holds_uses_up_nothing(api: Api) -> None:
    held = await hold(api)

    planned = await api.post("/v1/networks?dry_run=plan", {"holds": [held["id"]], "naming": True})

    assert planned.status_code == 200
    assert planned.json()["result"]["subnets"][0]["cidr"] == held["cidr"]
    assert (await api.get(f"/v1/holds/{held['id']}")).json() == held
    assert (await api.get(f"/v1/networks/{held['id']}")).status_code == 404


async def test_what_docker_said_of_a_living_network_does_not_change(api: Api) -> None:
    made = await api.network(docker={"labels": {"a": "b"}})
    path = f"/v1/networks/{made['id']}"

    same = await api.http.patch(path, json={"docker": made["docker"], "labels": {"more": "1"}})
    other = await api.http.patch(path, json={"docker": {**made["docker"], "attachable": True}})

    assert same.json()["labels"] == {"a": "b", "more": "1"}
    assert pointers(problem_of(other, 409, "immutable")) == ["/docker"]
