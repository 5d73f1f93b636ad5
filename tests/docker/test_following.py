"""With real daemons: a network made anywhere is on every host, names follow, and what one side lost is put right."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from cli.words import problems
from kvnet.errors import KvnetError
from lab.docker_hosts import DockerLab, Programs, open_docker_lab
from lab.lab import until

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

CREATE = ("network", "create", "-d", "kvnet", "--ipam-driver", "kvnet")
OURS = quote(json.dumps({"driver": ["kvnet"]}))


@pytest.fixture
async def lab(docker_programs: Programs, tmp_path: Path) -> AsyncIterator[DockerLab]:
    """Two hosts, all running."""
    async with open_docker_lab(tmp_path, docker_programs, hosts=2) as made:
        await start(made)
        yield made


async def start(lab: DockerLab) -> None:
    await lab.lab.start_controller()
    for name, host in lab.hosts.items():
        await lab.start_worker(name)
        await lab.lab.until_ready(name)
        await host.start()


async def shown(lab: DockerLab, host: str) -> list[Mapping[str, Any]]:
    return list((await lab.hosts[host].api("GET", f"/networks?filters={OURS}"))[1])


async def names_on(lab: DockerLab, host: str) -> list[str]:
    return sorted(network["Name"] for network in await shown(lab, host))


async def until_shown(lab: DockerLab, *names: str) -> None:
    """And the cluster has just these."""

    async def is_so() -> bool:
        page = await lab.lab.client.list_networks()
        if sorted(network["name"] for network in page.items) != sorted(names):
            return False
        return all([await names_on(lab, host) == sorted(names) for host in lab.hosts])

    await until(is_so, f"every host shows {names}", seconds=15)


async def inspected(lab: DockerLab, host: str, network: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (await lab.hosts[host].api("GET", f"/networks/{network}"))[1]
    return found


async def docker_status(lab: DockerLab, host: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (await lab.lab.hosts[host].local.status())["docker"]
    return found


async def endpoint(lab: DockerLab, network: str, name: str) -> Mapping[str, Any] | None:
    try:
        return dict(await lab.lab.client.get_endpoint(network, name))
    except KvnetError:
        return None


async def run(lab: DockerLab, host: str, name: str, network: str, *options: str) -> str:
    words = ("run", "-d", "--name", name, "--network", network, *options, "busybox")
    return await lab.docker(host, *words)


async def test_a_network_made_with_docker_is_the_same_on_every_host_and_goes_everywhere(lab: DockerLab) -> None:
    await lab.docker(
        "h1", *CREATE, "--subnet", "10.9.0.0/24", "--label", "team=a", "--attachable", "-o", "mtu=1400", "web"
    )
    await until_shown(lab, "web")

    here, there = await inspected(lab, "h1", "web"), await inspected(lab, "h2", "web")
    for part in ("Name", "Driver", "Options", "Labels", "Internal", "Attachable", "EnableIPv6"):
        assert here[part] == there[part], part
    assert here["IPAM"]["Options"] == there["IPAM"]["Options"]
    assert here["IPAM"]["Config"][0]["Subnet"] == there["IPAM"]["Config"][0]["Subnet"]

    await lab.docker("h2", "network", "rm", "web")
    await until_shown(lab)


async def test_a_docker_whose_memory_was_wiped_gets_the_networks_back_and_takes_none_away(lab: DockerLab) -> None:
    await lab.docker("h1", *CREATE, "--subnet", "10.9.0.0/24", "web")
    await until_shown(lab, "web")
    host = lab.hosts["h2"]
    await host.stop()
    shutil.rmtree(host.folder / "docker" / "network")

    await host.start()

    await until_shown(lab, "web")


async def test_a_worker_without_its_memory_knows_dockers_networks_again(lab: DockerLab) -> None:
    await lab.docker("h1", *CREATE, "--subnet", "10.9.0.0/24", "web")
    await until_shown(lab, "web")
    host = lab.lab.hosts["h2"]
    assert host.worker is not None
    await host.worker.kill()
    before = await shown(lab, "h2")
    shutil.rmtree(host.state_dir)

    await lab.start_worker("h2")

    async def is_bound() -> bool:
        try:
            return bool((await docker_status(lab, "h2"))["networks"] == 1)
        except (KvnetError, KeyError):
            return False

    await until(is_bound, "it is bound again", seconds=20)
    await lab.lab.until_ready("h2")  # the session of the run before, whose memory is gone, runs out
    assert [n["Id"] for n in await shown(lab, "h2")] == [n["Id"] for n in before]
    await run(lab, "h2", "c2", "web")


async def test_names_aliases_hostname_and_a_new_name_are_told_to_the_cluster(lab: DockerLab) -> None:
    await lab.docker("h1", *CREATE, "--subnet", "10.9.0.0/24", "web")
    options = ("--network-alias", "db", "--hostname", "box", "--label", "com.docker.compose.service=api")
    id_ = await run(lab, "h1", "c1", "web", *options)

    async def is_named() -> bool:
        return await endpoint(lab, "web", "c1") is not None

    await until(is_named, "it is named", seconds=5)
    found = await endpoint(lab, "web", "c1")
    assert found is not None
    assert (found["hostname"], set(found["aliases"])) == ("box", {"db", id_[:12]})
    assert found["labels"] == {"docker.container": id_[:12], "com.docker.compose.service": "api"}

    await lab.docker("h1", "rename", "c1", "fresh")

    async def is_renamed() -> bool:
        return await endpoint(lab, "web", "fresh") is not None

    await until(is_renamed, "it has its new name", seconds=5)


async def test_the_aliases_of_a_later_connection_are_told_too(lab: DockerLab) -> None:
    await lab.docker("h1", *CREATE, "--subnet", "10.9.0.0/24", "web")
    await lab.docker("h1", "run", "-d", "--name", "c1", "busybox")
    await lab.docker("h1", "network", "connect", "--alias", "cache", "web", "c1")

    async def is_told() -> bool:
        found = await endpoint(lab, "web", "c1")
        return found is not None and "cache" in found["aliases"]

    await until(is_told, "the alias is there", seconds=5)


async def test_what_is_in_the_way_in_one_docker_is_told_to_the_whole_cluster(lab: DockerLab) -> None:
    await lab.docker("h2", "network", "create", "web")
    await lab.docker("h1", *CREATE, "--subnet", "10.9.0.0/24", "web")

    async def told() -> list[str]:
        return [found["detail"] for found in problems((await lab.lab.client.get_host("h2"))["status"])]

    async def is_told() -> bool:
        return any("copy of web" in detail for detail in await told())

    await until(is_told, "the host's conditions say so", seconds=20)
    await lab.docker("h2", "network", "rm", "web")
    await until_shown(lab, "web")

    async def is_well() -> bool:
        return not await told()

    await until(is_well, "nothing is wrong any more", seconds=10)
