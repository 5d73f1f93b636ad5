"""Where plain namespaces ask: a file that is ours comes and goes, one that is not is never touched."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from kvnet.model import Driver
from tests.unit.worker.dns.kit import HERE, THERE, Cluster, running, until
from worker.dns.resolv import MARK, NAMESPACES, PATIENCE_S

pytestmark = pytest.mark.anyio
OURS, ANOTHERS = MARK.format(host=HERE), MARK.format(host=THERE)


async def test_it_comes_with_the_first_network_and_goes_with_the_last(tmp_path: Path) -> None:
    cluster = Cluster()
    shop, back = cluster.add_network("shop"), cluster.add_network("back")
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.53\nsearch old\nsearch corp.example lab.example\n")
    place = tmp_path / "netns/web/resolv.conf"
    async with running(tmp_path, cluster):
        first = cluster.add(shop, "web", 2)
        second = cluster.add(back, "web", 2)
        await until(place.exists)
        lines = place.read_text().splitlines()
        assert lines == [OURS, "nameserver 127.0.0.1", "search corp.example lab.example", "options ndots:0"]
        cluster.remove(first)
        other = cluster.add(shop, "other", 3)
        await until((tmp_path / "netns/other/resolv.conf").exists)
        assert place.exists()
        cluster.remove(second)
        await until(lambda: not place.parent.exists())
        cluster.remove(other)
        await until(lambda: list((tmp_path / "netns").iterdir()) == [])


async def test_who_waits_for_it_finds_it_and_does_not_find_it_any_more(tmp_path: Path) -> None:
    cluster = Cluster()
    shop = cluster.add_network("shop")
    async with running(tmp_path, cluster) as server:
        for number in range(2, 12):
            endpoint, place = cluster.add(shop, f"web{number}", number), tmp_path / f"netns/web{number}/resolv.conf"
            await server.service.until_told()
            assert place.exists()
            if number % 2:
                cluster.remove(endpoint)
                await server.service.until_told()
                assert not place.parent.exists()


async def test_where_it_cannot_be_written_nobody_waits_for_long(tmp_path: Path) -> None:
    (tmp_path / "netns").write_text("a file")
    cluster = Cluster()
    async with running(tmp_path, cluster) as server:
        cluster.add(cluster.add_network("shop"), "web", 2)
        async with asyncio.timeout(PATIENCE_S / 2):
            await server.service.until_told()


async def test_what_is_not_ours_stays_as_it_is(tmp_path: Path) -> None:
    cluster = Cluster()
    shop = cluster.add_network("shop")
    theirs = {"plain": "nameserver 192.0.2.1\n", "empty": "", "another": ANOTHERS + "\n"}
    for name, text in theirs.items():
        (tmp_path / "netns" / name).mkdir(parents=True)
        (tmp_path / "netns" / name / "resolv.conf").write_text(text)
    (tmp_path / "netns/linked").mkdir()
    (tmp_path / "netns/linked/resolv.conf").symlink_to(tmp_path / "marked")
    (tmp_path / "marked").write_text(OURS)
    (tmp_path / "netns/beside").mkdir()
    (tmp_path / "netns/beside/hosts").write_text("")
    async with running(tmp_path, cluster):
        made = [cluster.add(shop, name, at) for at, name in enumerate([*theirs, "linked", "beside"], 2)]
        await until((tmp_path / "netns/beside/resolv.conf").exists)
        for endpoint in made:
            cluster.remove(endpoint)
        await until(lambda: not (tmp_path / "netns/beside/resolv.conf").exists())
    assert (tmp_path / "netns/beside/hosts").exists()
    assert (tmp_path / "netns/linked/resolv.conf").is_symlink()
    assert (tmp_path / "marked").read_text() == OURS
    for name, text in theirs.items():
        assert (tmp_path / "netns" / name / "resolv.conf").read_text() == text


async def test_what_a_crash_left_is_cleaned_up(tmp_path: Path) -> None:
    left = tmp_path / "netns/gone/resolv.conf"
    left.parent.mkdir(parents=True)
    left.write_text(OURS + "\nnameserver 169.254.53.53\n")
    async with running(tmp_path, Cluster()):
        await until(lambda: not left.parent.exists())


async def test_only_for_plain_namespaces_that_have_a_name_and_reach_the_address(tmp_path: Path) -> None:
    cluster = Cluster()
    shop = cluster.add_network("shop")
    lan = cluster.add_network("lan", driver=Driver.TRANSPARENT, uplink="eth0")
    six = cluster.add_network("six", "fd00:99::/64")
    cluster.add(lan, "on-lan", 2)
    cluster.add(six, "on-six", 2)
    docker = cluster.add(shop, "docker", 3)
    pathed = cluster.add(shop, "pathed", 4)
    cluster.records[docker.id] = replace(cluster.records[docker.id], runtime="docker")
    cluster.records[pathed.id] = replace(cluster.records[pathed.id], netns="/proc/77/ns/net")
    cluster.add(shop, "plain", 5)
    async with running(tmp_path, cluster):
        await until((tmp_path / "netns/plain/resolv.conf").exists)
        assert [entry.name for entry in (tmp_path / "netns").iterdir()] == ["plain"]
    assert Path("/run/netns") in NAMESPACES


async def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "netns").write_text("a file")
    cluster = Cluster()
    cluster.add(cluster.add_network("shop"), "web", 2)
    async with running(tmp_path, cluster) as server:
        assert server.service.is_answering
    assert "namespace-file" in capsys.readouterr().err


async def test_one_that_cannot_be_written_keeps_no_other_from_its_own(tmp_path: Path) -> None:
    (tmp_path / "netns").mkdir()
    (tmp_path / "netns/a").write_text("somebody's file")
    cluster = Cluster()
    shop = cluster.add_network("shop")
    async with running(tmp_path, cluster):
        cluster.add(shop, "a", 2)
        cluster.add(shop, "b", 3)
        await until((tmp_path / "netns/b/resolv.conf").exists)
    assert (tmp_path / "netns/a").read_text() == "somebody's file"
