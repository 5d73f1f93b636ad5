"""Traces and pauses over the API, where no worker answers: the hosts of these tests are registered and nothing more."""

from __future__ import annotations

from typing import Any

import pytest

from controller.api.trace import TraceOut
from tests.api.under_test import Api, pointers, problem_of

pytestmark = pytest.mark.anyio


async def pair(api: Api) -> tuple[dict[str, Any], str, str]:
    network = await api.network()
    one = await api.endpoint(network["id"], host="h1")
    other = await api.endpoint(network["id"], host="h2")
    return network, one["id"], other["id"]


async def test_a_trace_tells_every_hop_also_where_nobody_answers(api: Api) -> None:
    network, one, other = await pair(api)

    answer = await api.post("/v1/trace", {"from": one, "to": other, "protocol": "tcp", "port": 80})

    assert answer.status_code == 200, answer.text
    found = TraceOut.model_validate(answer.json())
    assert found.from_.endpoint == one
    assert found.to.network == network["name"]
    assert (found.protocol, found.port, found.family) == ("tcp", 80, 4)
    assert not found.whole
    assert not found.complete
    assert found.finding is not None
    assert found.finding.code in ("worker-dead", "worker-silent")
    assert [hop.number for hop in found.hops] == list(range(1, len(found.hops) + 1))
    assert {"plan", "worker", "vxlan", "vxlan fdb", "underlay", "workload"} <= {hop.kind for hop in found.hops}
    assert {hop.direction for hop in found.hops} == {"there", "back"}


async def test_what_the_hosts_would_be_asked_can_be_had_and_answered_by_others(api: Api) -> None:
    network, one, other = await pair(api)
    wish = {"from": f"{network['name']}/{one}", "to": other, "ask": False}

    asked = (await api.post("/v1/trace", wish)).json()["questions"]

    assert set(asked) == {"h1", "h2"}
    assert f"kvx{network['id']}" in asked["h1"]["devices"]
    seen = {"h1": {"host": "h1"}, "h2": {"host": "h2"}}
    answer = await api.post("/v1/trace", {**wish, "ask": True, "seen": seen})
    found = TraceOut.model_validate(answer.json())
    assert all(host.looked_at and not host.answered for host in found.hosts)


@pytest.mark.parametrize(
    "seen",
    [
        {"insides": [{"endpoint": "ONE", "state": "ok"}]},
        {"insides": [{"endpoint": "ONE", "state": "asleep"}]},
        {"addresses": [{"device": "eth0", "address": "nowhere", "prefix_length": 24}]},
        {"ways": [{"to": "nowhere", "kind": "unicast"}]},
        {"dns": "nowhere"},
    ],
)
async def test_what_no_host_can_have_seen_is_refused(api: Api, seen: dict[str, Any]) -> None:
    _, one, other = await pair(api)
    told = {"host": "h1", **seen}
    for inside in told.get("insides", ()):
        inside["endpoint"] = one

    problem = problem_of(
        await api.post("/v1/trace", {"from": one, "to": other, "ask": False, "seen": {"h1": told}}), 422, "invalid"
    )

    assert any(pointer.startswith("/seen/h1") for pointer in pointers(problem))


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"from": "a"}, "/to"),
        ({"from": "", "to": "b"}, "/from"),
        ({"from": "a", "to": "b", "protocol": "sctp"}, "/protocol"),
        ({"from": "a", "to": "b", "port": 0}, "/port"),
        ({"from": "a", "to": "b", "family": 5}, "/family"),
        ({"from": "a", "to": "b", "how": "fast"}, "/how"),
        ({"from": "a", "to": "b", "seen": {"h1": 7}}, "/seen/h1"),
    ],
)
async def test_a_bad_request_names_what_is_wrong_with_it(api: Api, body: dict[str, Any], pointer: str) -> None:
    problem = problem_of(await api.post("/v1/trace", body), 422, "invalid")

    assert pointer in pointers(problem)


async def test_what_was_seen_must_be_an_answer(api: Api) -> None:
    _, one, other = await pair(api)
    for seen in ({"links": 7}, {"host": "h1", "links": [{"name": "x"}]}, {"host": "h1", "settings": {"a": 1}}):
        body = {"from": one, "to": other, "seen": {"h1": seen}}
        problem_of(await api.post("/v1/trace", body), 422, "invalid")


async def test_an_endpoint_that_is_not_there_is_not_found(api: Api) -> None:
    _, one, _ = await pair(api)

    problem_of(await api.post("/v1/trace", {"from": one, "to": "nobody-at-all"}), 404, "not-found")


async def test_a_pause_of_a_host_that_does_not_answer_or_is_not_there_is_told(api: Api) -> None:
    problem_of(await api.post("/v1/hosts/nowhere/pause", {"seconds": 60}), 404, "not-found")
    problem_of(await api.delete("/v1/hosts/nowhere/pause"), 404, "not-found")
    problem_of(await api.post("/v1/hosts/h1/pause", {"seconds": 0}), 422, "invalid")
    problem_of(await api.post("/v1/hosts/h1/pause", {"seconds": 100_000}), 422, "invalid")
    problem_of(await api.post("/v1/hosts/h1/pause", {"seconds": "60"}), 422, "invalid")
