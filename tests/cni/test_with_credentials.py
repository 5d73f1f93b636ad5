"""CNI's commands on hosts that joined. The plugin has no credential; the worker, whose socket it opens, has one."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from lab import namespaces
from lab.lab import until
from lab.ping import ping
from tests.cni.calling import Programs, Runtime
from tests.lab.eye import everything
from tests.lab.security.joined import Joined, joined, refusals

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Joined]:
    """Two hosts with a certificate and a token each, over TLS, and a network `pods`."""
    async with joined(tmp_path_factory.mktemp("lab")) as made:
        subnets = [{"cidr": "10.90.0.0/24"}, {"cidr": "fd90::/64"}]
        await made.lab.client.create_network({"name": "pods", "driver": "overlay", "subnets": subnets})
        yield made


@pytest.fixture
def sandbox() -> Iterator[Callable[[str], Path]]:
    made: list[Path] = []

    def make(name: str) -> Path:
        made.append(namespaces.create(name))
        return made[-1]

    yield make
    for path in made:
        namespaces.destroy(path)


def runtime_of(site: Joined, programs: Programs, host: str) -> Runtime:
    return Runtime(programs.cni, site.lab.hosts[host].socket)


def links(netns: Path) -> set[str]:
    return set(everything(netns).links)


async def endpoints(site: Joined) -> dict[str, str]:
    """Address to host, as an admin sees them."""
    return {str(one["address"]): str(one["host"]) async for one in site.lab.client.endpoints()}


async def test_pods_on_two_hosts_that_joined_reach_each_other_and_leave_nothing(
    site: Joined, programs: Programs, sandbox: Callable[[str], Path]
) -> None:
    places = {"h1": sandbox("blue"), "h2": sandbox("green")}
    found = {}
    for host, netns in places.items():
        result = await runtime_of(site, programs, host).add(f"pod-{host}", netns)
        found[host] = result["ips"][0]["address"].split("/")[0]
        (await runtime_of(site, programs, host).call("CHECK", f"pod-{host}", netns, prevResult=result)).require_quiet()
        (await runtime_of(site, programs, host).call("STATUS")).require_quiet()
    assert await endpoints(site) == {found["h1"]: "h1", found["h2"]: "h2"}
    await until_reached(places["h1"], found["h2"])
    for host, netns in places.items():
        await runtime_of(site, programs, host).delete(f"pod-{host}", netns)
    assert await endpoints(site) == {}
    assert "eth0" not in links(places["h1"])
    assert refusals(site.lab) == []


async def test_the_workers_socket_is_for_root_alone(site: Joined) -> None:
    """Whoever opens it asks in the host's name."""
    mode = os.stat(site.lab.hosts["h1"].socket).st_mode
    assert stat.S_IMODE(mode) == 0o600


async def test_on_a_host_that_is_put_out_no_pod_begins_and_those_that_run_go_on_and_may_end(
    site: Joined, programs: Programs, sandbox: Callable[[str], Path]
) -> None:
    lab, runtime, other = site.lab, runtime_of(site, programs, "h2"), runtime_of(site, programs, "h1")
    old, new, far = sandbox("old"), sandbox("new"), sandbox("far")
    running = (await runtime.add("old", old))["ips"][0]["address"].split("/")[0]
    await other.add("far", far)
    await until_reached(far, running)
    token = next(one for one in await lab.client.tokens() if one["host"] == "h2")
    await lab.client.delete_token(token["id"])
    worker = lab.hosts["h2"].worker
    assert worker is not None

    async def is_told() -> bool:
        return "credentials-refused" in worker.log.read_text()

    await until(is_told, "the worker says that it is put out", seconds=5.0, watched=worker)

    refused = await runtime.call("ADD", "new", new)
    assert "[unauthenticated]" in refused.message
    assert refused.said is not None
    assert "kvnet worker join" in refused.said["details"], "what to do on this host"
    assert "eth0" not in links(new)
    await until_reached(far, running)
    await runtime.delete("old", old)
    assert "eth0" not in links(old)

    joined_again = await site.join("h2", "--replace")
    assert joined_again.returncode == 0, joined_again.stderr
    await worker.stop()
    await site.start("h2")
    await runtime.add("new", new)
    await runtime.delete("new", new)
    await other.delete("far", far)
    assert await endpoints(site) == {}


async def until_reached(source: Path, address: str) -> None:
    opener = partial(namespaces.open_socket, source)

    async def is_reached() -> bool:
        return (await ping(opener, ip_address(address), timeout_s=1.0)).ok

    await until(is_reached, f"{source.name} reaches {address}")
