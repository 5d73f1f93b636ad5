"""On a real kernel: hosts that joined over TLS, with the two capabilities of their unit; and one that is put out."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kvnet.client import Client
from kvnet.tls import Trust
from lab.lab import until
from tests.lab.security.joined import Joined, joined, typed

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Joined]:
    async with joined(tmp_path) as made:
        yield made


async def test_joined_hosts_carry_a_network_and_one_that_is_put_out_loses_no_packet(site: Joined) -> None:
    lab = site.lab
    network = await lab.client.create_network({"name": "n", "driver": "overlay"})
    for name, host in (("a", "h1"), ("b", "h2")):
        await lab.add_workload(name, host)
        await lab.attach("n", name)
    await lab.until_applied(network["id"], lab.workloads["b"].endpoints["n"]["version"])
    assert (await lab.ping("a", lab.address_of("b", "n"))).ok

    worker = lab.hosts["h2"].worker
    assert worker is not None
    token = next(one for one in await lab.client.tokens() if one["host"] == "h2")
    await lab.client.delete_token(token["id"])

    async def is_told() -> bool:
        return "credentials-refused" in worker.log.read_text()

    await until(is_told, "the worker says that it is put out", seconds=5.0, watched=worker)
    assert (await lab.ping("a", lab.address_of("b", "n"))).ok, "what runs there goes on"

    refused = await site.join("h2")
    assert refused.returncode == 4
    assert "--replace" in refused.stderr
    done = await site.join("h2", "--replace")
    assert done.returncode == 0, done.stderr
    await worker.stop()
    await site.start("h2")
    assert (await lab.ping("a", lab.address_of("b", "n"))).ok
    await lab.detach("n", "b")


async def test_over_the_network_nobody_gets_in_without_credentials(site: Joined) -> None:
    """Asked from a host's own network, by the product's own command."""
    command = ["nsenter", f"--net={site.lab.hosts['h1'].netns}", "--", sys.executable, "-m", "cli.main"]
    asked = [*command, "--controller", site.url, "--ca-file", str(site.ca / "ca.pem"), "network", "ls"]
    found = await typed(asked)
    assert found.returncode == 1
    assert "no credential" in found.stderr
    async with Client(site.lab.controller_url, trust=Trust()) as local:
        assert (await local.whoami())["via"] == "unix"
