"""What real workers make of status, convergence and `?wait=`: what is told is what their kernels have."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from datapath.names import bridge_name
from lab.lab import Lab, until
from tests.lab.eye import look
from tests.lab.worker.bench import attached, workers

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with workers(tmp_path) as lab:
        await lab.client.create_network({"name": "n", "subnets": [{"cidr": "10.63.0.0/24"}]})
        yield lab


async def first(lab: Lab, path: str) -> tuple[str, str]:
    ready = (await lab.client.request("GET", path))["status"]["conditions"][0]
    return ready["status"], ready["reason"]


async def until_ready(lab: Lab, path: str, wanted: tuple[str, str], seconds: float = 5.0) -> None:
    async def is_so() -> bool:
        return await first(lab, path) == wanted

    await until(is_so, f"{path} is {wanted}", seconds=seconds)


async def test_an_attached_endpoint_is_ready_and_one_that_nobody_attached_is_not(lab: Lab) -> None:
    await attached(lab, "n", {"c1": "h1", "c2": "h2"})
    made = await lab.client.create_endpoint("n", {"host": "h1", "name": "nobody"}, wait_s=10.0)

    assert made["applied"] == {"converged": True, "waiting_for": [], "away": []}
    for path, wanted in (
        (f"/v1/networks/n/endpoints/{lab.workloads['c1'].endpoints['n']['id']}", ("true", "attached")),
        (f"/v1/networks/n/endpoints/{lab.workloads['c2'].endpoints['n']['id']}", ("true", "attached")),
        ("/v1/networks/n/endpoints/nobody", ("false", "not-attached")),
        ("/v1/networks/n", ("true", "active")),
        ("/v1/hosts/h1", ("true", "alive")),
    ):
        await until_ready(lab, path, wanted)


async def test_when_a_waited_deletion_is_answered_no_kernel_has_it_any_more(lab: Lab) -> None:
    await attached(lab, "n", {"c1": "h1", "c2": "h2"})
    network = await lab.client.get_network("n")
    for host, workload in (("h1", "c1"), ("h2", "c2")):
        endpoint = lab.workloads[workload].endpoints["n"]["id"]
        path = f"/v1/networks/n/endpoints/{endpoint}"
        told = await lab.client.request("DELETE", path, query={"wait": "converged"}, wait_s=31.0)
        assert told == {"applied": {"converged": True, "waiting_for": [], "away": []}}
        assert bridge_name(network["id"]) not in look(lab.hosts[host].netns).links, host
    told = await lab.client.request("DELETE", "/v1/networks/n", query={"wait": "converged"}, wait_s=31.0)

    assert told["applied"]["converged"]


async def test_a_worker_that_stands_still_is_behind_since_the_change_and_then_not_any_more(lab: Lab) -> None:
    await attached(lab, "n", {"c1": "h1", "c2": "h2"})
    pid = lab.hosts["h2"].worker.pid  # type: ignore[union-attr]
    os.kill(pid, signal.SIGSTOP)
    try:
        query = {"wait": "3"}
        changed = await lab.client.request(
            "PATCH", "/v1/networks/n", query=query, body={"labels": {"a": "1"}}, wait_s=4.0
        )
        told: dict[str, Any] = dict(await lab.client.network_convergence("n"))
    finally:
        os.kill(pid, signal.SIGCONT)
    after = await lab.client.request("GET", "/v1/networks/n/convergence", query={"wait": "converged"}, wait_s=31.0)

    assert changed["applied"] == {"converged": False, "waiting_for": ["h2"], "away": []}
    h1, h2 = told["hosts"]
    assert (told["converged"], h1["lag_revisions"], h2["lag_revisions"] > 0) == (False, 0, True)
    assert 0.5 <= h2["lag_seconds"] < 10.0
    assert after["converged"]


async def test_peers_converge_on_the_hosts_of_both_and_nobody_stays_behind(lab: Lab) -> None:
    await lab.client.create_network({"name": "m", "subnets": [{"cidr": "10.64.0.0/24"}]})
    await attached(lab, "n", {"c1": "h1"})
    await attached(lab, "m", {"c2": "h2"})
    query = {"wait": "converged"}
    made = await lab.client.request("POST", "/v1/networks/n/peers/m", query=query, wait_s=31.0)
    await attached(lab, "n", {"c3": "h1"})
    for network in ("n", "m"):
        told = await lab.client.request("GET", f"/v1/networks/{network}/convergence", query=query, wait_s=31.0)
        assert told["converged"], told
    apart = await lab.client.request("DELETE", "/v1/networks/n/peers/m", query=query, wait_s=31.0)

    assert made["applied"]["converged"]
    assert apart["applied"]["converged"]

    async def nobody_is_behind() -> bool:
        return not any([host["lag_revisions"] async for host in lab.client.hosts()])

    await until(nobody_is_behind, "no host is behind in any network", seconds=5.0)
