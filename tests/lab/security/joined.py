"""Hosts of a lab with credentials of their own, as `kvnet worker join` leaves them."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from controller.security import authority
from lab.lab import Lab, open_lab
from lab.processes import KVNET
from tests.lab.worker.test_capabilities import THE_WORKERS
from worker.identity import TOKEN, About, save

PORT = 7480
NO_GRANTS: Mapping[str, Sequence[str]] = {}


async def as_hosts(lab: Lab, start: Callable[[str], Awaitable[object]] | None = None, **more: Any) -> dict[str, str]:
    """Every host's worker, running with a token of role `host`; the texts of the tokens by host.

    The first token of a cluster is an admin's; the lab's own client speaks over a socket file, where nobody is asked.
    """
    await lab.client.create_token({"name": "root", "role": "admin"})
    tokens = {}
    for name in lab.hosts:
        tokens[name] = await credited(lab, name, **more)
    for name in lab.hosts:
        await (start or lab.start_worker)(name)
    for name in lab.hosts:
        await lab.until_ready(name)
    return tokens


async def credited(lab: Lab, name: str, **more: Any) -> str:
    """A token for a host, in its state directory; its worker has yet to be started."""
    made = await lab.client.create_token({"name": f"token-{name}", "role": "host", "host": name, **more})
    save(lab.hosts[name].state_dir, About(name, lab.controller_url), {TOKEN: str(made["token"])})
    return str(made["token"])


def refusals(lab: Lab) -> Sequence[str]:
    """What the workers say of being refused something."""
    words = ("may not", "forbidden", "store-refused", "no credential", "takes part in", "unauthenticated")
    lines = [line for host in lab.hosts for line in (lab.directory / f"worker-{host}.log").read_text().splitlines()]
    return [line for line in lines if any(word in line.lower() for word in words)]


async def typed(command: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        lambda: subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, check=False)
    )


class Joined:
    """Hosts that join over TLS. The lab's client speaks over the controller's socket file, where nobody is asked."""

    def __init__(self, lab: Lab, ca: Path, grants: Mapping[str, Sequence[str]]) -> None:
        self.lab = lab
        self.ca = ca
        self.grants = dict(grants)
        self.url = f"https://{lab.places['control'].underlay}:{PORT}"

    async def join(self, host: str, *options: str) -> subprocess.CompletedProcess[str]:
        made = await self.lab.client.create_token(
            {"name": f"{host}-join-{time.monotonic_ns()}", "role": "join", "host": host, "expires_in_s": 60}
            | ({"grants": list(self.grants[host])} if host in self.grants else {})
        )
        netns, state = self.lab.hosts[host].netns, self.lab.hosts[host].state_dir
        command = ["nsenter", f"--net={netns}", "--", *KVNET, "worker", "join", "--controller", self.url]
        command += ["--token-file", "-", "--state-dir", str(state), "--ca-fingerprint"]
        command += [f"sha256:{authority.load(self.ca).fingerprint}", *options]
        return await typed(command, made["token"])

    async def start(self, host: str) -> None:
        await self.lab.start_worker(host, "--controller", self.url, under=THE_WORKERS)
        await self.lab.until_ready(host)


@asynccontextmanager
async def joined(
    folder: Path, grants: Mapping[str, Sequence[str]] = NO_GRANTS, **options: Any
) -> AsyncIterator[Joined]:
    """Two hosts, joined, with the two capabilities of their unit, and a controller that asks everybody; grants by host,
    options as of `open_lab`."""
    ca = folder / "ca"
    authority.create(ca, time.time(), days=10, permitted=())
    async with open_lab(folder, hosts=2, places=("control",), **options) as lab:
        lab.controller_place = "control"
        made = Joined(lab, ca, grants)
        authority.issue_controller(ca, [], [str(lab.places["control"].underlay)], time.time(), days=5)
        await lab.start_controller("--ca", str(ca), "--listen", f"0.0.0.0:{PORT}")
        await lab.client.create_token({"name": "root", "role": "admin"})
        for host in lab.hosts:
            done = await made.join(host)
            assert done.returncode == 0, done.stderr
            await made.start(host)
        yield made
