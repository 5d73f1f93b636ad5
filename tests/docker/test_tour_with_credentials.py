"""The first tour once more, with workers that have a host's credential and the grant `docker`, and no store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.docker_hosts import Programs, open_docker_lab
from tests.docker.site import Site
from tests.lab.security.joined import as_hosts, refusals

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]


@pytest.fixture
async def joined(tmp_path: Path, docker_programs: Programs) -> AsyncIterator[Site]:
    async with open_docker_lab(tmp_path, docker_programs) as lab:
        await lab.lab.start_controller()
        await as_hosts(lab.lab, start=lab.start_worker, grants=["docker"])
        for host in lab.hosts.values():
            await host.start()
        yield Site(lab)


async def test_networks_and_containers_of_two_hosts_with_credentials(joined: Site) -> None:
    site = joined
    await site.create("h1", "my-net", "--attachable")
    await site.run("h1", "alpine1", "my-net")
    await site.until_listed("my-net", "h2")
    await site.run("h2", "alpine2", "my-net")
    await site.until_reaches("h1", "alpine1", "alpine2")
    await site.until_reaches("h2", "alpine2", "alpine1")

    await site.docker("h2", "rm -f alpine2")
    await site.docker("h2", "network rm my-net")  # it was made on h1, so it is h1's to remove: it is there again
    await site.until_listed("my-net", "h2")

    await site.docker("h1", "rm -f alpine1")
    await site.docker("h1", "network rm my-net")
    await site.until_unlisted("my-net")
    await site.until_kernel_empty()
    unexpected = [line for line in refusals(site.lab.lab) if "docker-network-stays" not in line]
    assert unexpected == []
