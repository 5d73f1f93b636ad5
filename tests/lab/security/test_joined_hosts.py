"""On a real kernel: hosts that joined over TLS, with the two capabilities of their unit; and one that is put out."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from controller.security import authority
from kvnet.client import Client
from kvnet.tls import Trust
from lab.lab import Lab, open_lab, until
from lab.processes import KVNET
from tests.lab.worker.test_capabilities import THE_WORKERS

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
PORT = 7480


async def typed(command: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        lambda: subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, check=False)
    )


class Joined:
    """`admin` speaks over the controller's socket file, where nobody is asked."""

    def __init__(self, lab: Lab, ca: Path) -> None:
        self.lab = lab
        self.ca = ca
        self.url = f"https://{lab.places['control'].underlay}:{PORT}"

    async def join(self, host: str, *options: str) -> subprocess.CompletedProcess[str]:
        made = await self.lab.client.create_token(
            {"name": f"{host}-join-{time.monotonic_ns()}", "role": "join", "host": host, "expires_in_s": 60}
        )
        netns, state = self.lab.hosts[host].netns, self.lab.hosts[host].state_dir
        command = ["nsenter", f"--net={netns}", "--", *KVNET, "worker", "join", "--controller", self.url]
        command += ["--token-file", "-", "--state-dir", str(state), "--ca-fingerprint"]
        command += [f"sha256:{authority.load(self.ca).fingerprint}", *options]
        return await typed(command, made["token"])

    async def start(self, host: str) -> None:
        await self.lab.start_worker(host, "--controller", self.url, under=THE_WORKERS)
        await self.lab.until_ready(host)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Joined]:
    ca = tmp_path / "ca"
    authority.create(ca, time.time(), days=10, permitted=())
    async with open_lab(tmp_path, hosts=2, places=("control",)) as lab:
        lab.controller_place = "control"
        made = Joined(lab, ca)
        authority.issue_controller(ca, [], [str(lab.places["control"].underlay)], time.time(), days=5)
        await lab.start_controller("--ca", str(ca), "--listen", f"0.0.0.0:{PORT}")
        await lab.client.create_token({"name": "root", "role": "admin"})
        for host in lab.hosts:
            done = await made.join(host)
            assert done.returncode == 0, done.stderr
            await made.start(host)
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
