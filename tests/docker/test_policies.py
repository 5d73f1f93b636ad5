"""What removing means, which networks a host shows, daemons that were away, and what they show then."""

from __future__ import annotations

import pytest

from tests.docker.site import Site

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]
SITE = {"hosts": 3}


async def test_a_network_in_use_elsewhere_comes_back_after_its_removal(site: Site) -> None:
    await site.create("h1", "web")
    await site.until_listed("web")
    await site.run("h2", "ann", "web")
    before = (await site.listed("h1"))["web"]

    await site.docker("h1", "network rm web")

    async def is_back() -> bool:
        return (await site.listed("h1")).get("web", before) != before

    await site.until(is_back, "h1 shows it again")
    await site.run("h1", "bob", "web")
    await site.until_reaches("h1", "bob", "ann")
    assert "active endpoints" in await site.refusal("h2", "network rm web")


async def test_where_removal_is_not_allowed_it_comes_back(site: Site) -> None:
    await site.kill_worker("h3")
    await site.start_worker("h3", "--docker-removal", "here")
    try:
        await site.create("h1", "web")
        await site.until_listed("web")
        before = (await site.listed("h3"))["web"]

        await site.docker("h3", "network prune -f")

        async def is_back() -> bool:
            return (await site.listed("h3")).get("web", before) != before

        await site.until(is_back, "h3 shows it again")
        await site.until_listed("web")
        await site.docker("h1", "network rm web")
        await site.until_unlisted("web")
    finally:
        await site.kill_worker("h3")
        await site.start_worker("h3")


async def test_a_network_that_only_kvnet_removes(site: Site) -> None:
    await site.create("h1", "kept", "-o removal=kvnet")
    await site.until_listed("kept")
    before = (await site.listed("h2"))["kept"]

    await site.docker("h2", "network rm kept")

    async def is_back() -> bool:
        return (await site.listed("h2")).get("kept", before) != before

    await site.until(is_back, "h2 shows it again")
    await site.until_listed("kept")
    await site.lab.lab.client.delete_network("kept")
    await site.until_unlisted("kept")


async def test_a_host_that_shows_only_its_own(site: Site) -> None:
    await site.kill_worker("h3")
    await site.start_worker("h3", "--docker-networks", "own")
    try:
        await site.create("h1", "theirs")
        await site.create("h3", "ours")
        await site.until_listed("theirs", "h1", "h2")
        await site.until_listed("ours")
        assert "theirs" not in await site.listed("h3")
    finally:
        await site.kill_worker("h3")
        await site.start_worker("h3")
    await site.until_listed("theirs", "h3")


async def test_a_daemon_that_was_down_catches_up(site: Site) -> None:
    for name in ("old", "same"):
        await site.create("h1", name)
        await site.until_listed(name)
    subnet = (await site.network("same"))["subnets"][0]["cidr"]
    await site.hosts["h3"].stop()
    for name in ("old", "same"):
        await site.docker("h1", f"network rm {name}")
    await site.create("h1", "new")
    await site.create("h2", "same")

    await site.hosts["h3"].start()

    await site.until_unlisted("old", "h3")
    await site.until_listed("new", "h3")
    await site.until_listed("same", "h3")
    wanted = (await site.network("same"))["subnets"][0]["cidr"]

    async def is_the_new_one() -> bool:
        return wanted in await site.docker("h3", "network inspect same")

    await site.until(is_the_new_one, f"h3 has {wanted}, not {subnet}")
    await site.run("h1", "ann", "same")
    await site.run("h3", "bob", "same")
    await site.until_reaches("h3", "bob", "ann")


async def test_a_network_that_is_no_more_is_gone_from_a_daemon_whose_worker_was_away(site: Site) -> None:
    await site.create("h1", "gone")
    await site.until_listed("gone")
    await site.kill_worker("h3")
    await site.docker("h1", "network rm gone")

    await site.start_worker("h3")

    await site.until_unlisted("gone", "h3")


async def test_a_removal_while_the_worker_was_away_counts(site: Site) -> None:
    await site.create("h1", "web")
    await site.until_listed("web")
    await site.kill_worker("h3")
    with_worker_away = site.hosts["h3"].docker("network", "rm", "web")

    await site.start_worker("h3")
    await with_worker_away

    await site.until_unlisted("web")


async def test_a_name_that_another_driver_has_on_one_host(site: Site) -> None:
    await site.docker("h2", "network create -d bridge web")
    await site.create("h1", "web")
    await site.until_listed("web", "h1", "h3")
    assert "web" not in await site.listed("h2")

    async def is_told() -> bool:
        return "web" in str((await site.hosts["h2"].host.local.status()).get("docker", ""))

    await site.until(is_told, "the worker of h2 tells what is in the way")
    await site.docker("h2", "network rm web")
    await site.until_listed("web", "h2")


async def test_a_restarted_worker_knows_what_docker_was_told(site: Site) -> None:
    await site.create("h1", "web", "--subnet 10.96.0.0/24")
    await site.until_listed("web")
    before = {host: await site.listed(host) for host in site.hosts}
    for host in ("h1", "h2"):
        await site.kill_worker(host)
        await site.start_worker(host)

    await site.run("h1", "ann", "web")
    await site.run("h2", "bob", "web")

    await site.until_reaches("h1", "ann", "bob")
    assert {host: await site.listed(host) for host in site.hosts} == before, "nothing was made anew"
