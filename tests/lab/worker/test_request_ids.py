"""One request, from the API call to every kernel: its id is in the controller's log, the journal and the log line
of each worker's pass that applied it. Real processes on real kernels; the logs are JSON, as a program keeps them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from kvnet.http import HttpClient, Target
from lab.lab import Lab, open_lab, until

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
NETWORK = "my-net"
Line = dict[str, Any]


@pytest.fixture
async def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    """Two hosts with an endpoint each. What is logged is JSON, and all of it."""
    async with open_lab(tmp_path, hosts=2) as made:
        await made.start_controller("--log-format", "json")
        for name in made.hosts:
            await made.start_worker(name, "--log-format", "json", "--log-level", "debug")
        for name in made.hosts:
            await made.until_ready(name)
        await made.client.create_network({"name": NETWORK, "driver": "overlay"})
        for workload, host in (("c1", "h1"), ("c2", "h2")):
            await made.add_workload(workload, host)
            await made.attach(NETWORK, workload)
        yield made


async def ask(lab: Lab, method: str, path: str, body: object = None, **headers: str) -> Line:
    client = HttpClient((Target.parse(f"unix://{lab.directory}/c.sock"),), {"content-type": "application/json"})
    try:
        data = b"" if body is None else json.dumps(body).encode()
        reply = await client.request(method, path, data, 10.0, headers)
        assert reply.status < 300, reply
        found: Line = json.loads(reply.body) if reply.body else {}
        return found
    finally:
        await client.close()


def lines(lab: Lab, process: str) -> list[Line]:
    text = (lab.directory / f"{process}.log").read_text()
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


async def until_told(lab: Lab, process: str, wanted: Callable[[Line], bool]) -> Line:
    async def is_told() -> bool:
        return any(map(wanted, lines(lab, process)))

    await until(is_told, f"{process} tells it", seconds=5.0)
    return next(filter(wanted, lines(lab, process)))


def applied(request_id: str) -> Callable[[Line], bool]:
    return lambda line: line["event"] == "applied" and request_id in line.get("request_ids", ())


async def test_a_post_is_found_by_its_id_everywhere(lab: Lab) -> None:
    body = {"name": "third", "host": "h1"}
    made = await ask(lab, "POST", f"/v1/networks/{NETWORK}/endpoints", body, **{"x-request-id": "trace-me-1"})

    asked = await until_told(lab, "controller", lambda line: line.get("request_id") == "trace-me-1")
    assert (asked["event"], asked["method"], asked["status"]) == ("request", "POST", 201)
    assert asked["route"] == "/v1/networks/{network}/endpoints"
    assert asked["duration_ms"] > 0
    journal = await ask(lab, "GET", f"/v1/journal?endpoint={made['id']}")
    assert [change["request_id"] for change in journal["items"]] == ["trace-me-1"]
    for host in lab.hosts:
        line = await until_told(lab, f"worker-{host}", applied("trace-me-1"))
        assert line["network"] == NETWORK
        assert line["host"] == host
        assert line["revision"] == made["version"]
        assert line["operations"] >= (1 if host == "h2" else 0)
    told = [line["operation"] for line in lines(lab, "worker-h2") if line["event"] == "operation"]
    assert any(str(made["address"]) in operation for operation in told)


async def test_a_patch_and_a_delete_are_found_too(lab: Lab) -> None:
    path = f"/v1/networks/{NETWORK}"
    network = await ask(lab, "GET", path)
    await ask(lab, "PATCH", path, {"mtu": 1400}, **{"x-request-id": "the-patch", "if-match": f'"{network["version"]}"'})
    for host in lab.hosts:
        line = await until_told(lab, f"worker-{host}", applied("the-patch"))
        assert line["operations"] > 0
    made = await ask(lab, "POST", f"{path}/endpoints", {"name": "third", "host": "h1"})
    await ask(lab, "DELETE", f"{path}/endpoints/{made['id']}", **{"x-request-id": "the-delete"})
    for host in lab.hosts:
        line = await until_told(lab, f"worker-{host}", applied("the-delete"))
        assert line["removed"] == [made["id"]]


async def test_an_attach_takes_its_callers_id_to_the_controller(lab: Lab) -> None:
    await lab.add_workload("c3", "h1")
    local = lab.hosts["h1"].local
    await local.attach(NETWORK, str(lab.workloads["c3"].netns), "c3", request_id="my-attach")

    await until_told(lab, "controller", lambda line: line.get("request_id") == "my-attach")
    attached = await until_told(lab, "worker-h1", lambda line: line["event"] == "attached" and line["endpoint"] != "")
    assert attached["component"] == "worker"
    for host in lab.hosts:
        await until_told(lab, f"worker-{host}", applied("my-attach"))
